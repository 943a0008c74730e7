"""Names -> cards -> `module:Class`, all of it read as text: nothing is imported until an upstream is used.

Families come from entry points `hubcore.upstreams`, cards from registry files: hubcore's own, those named by entry points
`hubcore.registries`, and the user's (`HUBCORE_REGISTRY` and the configuration folder). Whatever is broken is recorded in
`Registry.problems` and harms only its own names. Distributions in `HUBCORE_DISABLE_PLUGINS` are stepped over. Imports no
torch.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from hubcore.card import Card
from hubcore.errors import DuplicateUpstreamError, RegistryError, UnknownUpstreamError
from hubcore.findings import Finding, last_sentence
from hubcore.registry.reading import NAME, read_registry

UPSTREAMS_GROUP = "hubcore.upstreams"
REGISTRIES_GROUP = "hubcore.registries"
HOOKS_GROUP = "hubcore"
OBJECTIVES_GROUP = "hubcore.objectives"
_GROUPS = (UPSTREAMS_GROUP, REGISTRIES_GROUP, HOOKS_GROUP, OBJECTIVES_GROUP)
DISABLE = "HUBCORE_DISABLE_PLUGINS"
TARGET = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


@dataclass(frozen=True)
class Family:
    """One class that runs upstreams, as its distribution's entry point names it; not imported yet."""

    name: str
    """Entry-point name, such as `wav2vec2`."""
    target: str
    """`module:Class`."""
    distribution: str
    """The installed distribution that provides it."""
    version: str
    """That distribution's version."""
    missing: str | None = None
    """What must be installed before it can run, as a command; None if it is complete."""

    @property
    def module(self) -> str:
        """The module that holds the class."""
        return self.target.partition(":")[0]

    @property
    def class_name(self) -> str:
        """The class's name."""
        return self.target.partition(":")[2]


@dataclass(frozen=True)
class Entry:
    """Everything one name leads to: a card, a family, or both."""

    name: str
    """The card's name, or the family's where it has no card."""
    owner: str
    """The distribution, or `user` for a user's own file."""
    card: Card | None
    """None for a family without a card of this name."""
    family: Family | None
    """None if the card's family is not installed."""

    @property
    def aliases(self) -> tuple[str, ...]:
        """Other names of the same entry."""
        return self.card.aliases if self.card else ()

    @property
    def unavailable(self) -> str | None:
        """Why it cannot run here and what to do, or None if it can."""
        if self.family is None:
            family = self.card.upstream if self.card else self.name
            advice = f"Install the plugin that does{_or_enable()}"
            return f"no distribution that is installed and enabled provides the family {family!r}. {advice}"
        return self.family.missing


@dataclass
class Registry:
    """All names known here, at the moment it was built.

    Example:
        >>> current_registry().find("fbank").family.target
        'hubcore_fbank.upstream:FbankUpstream'
    """

    entries: list[Entry] = field(default_factory=list)
    """Sorted by name."""
    problems: list[Finding] = field(default_factory=list)
    """Everything broken, for `hubcore doctor`."""

    def names(self) -> list[str]:
        """Every name that `find` accepts: names and aliases, and both `owner:name` forms of a contested one."""
        owners = self._owners()
        contested = [f"{entry.owner}:{name}" for name, claims in owners.items() if len(claims) > 1 for entry in claims]
        return sorted({*owners, *contested})

    def find(self, name: str) -> Entry:
        """The entry that a name, an alias or `owner:name` means.

        Raises:
            UnknownUpstreamError: no such name.
            DuplicateUpstreamError: two distributions claim it.
        """
        owner, _, plain = name.rpartition(":")
        claims = self._owners().get(plain, [])
        if owner:
            claims = [entry for entry in claims if entry.owner == owner]
        if not claims:
            raise UnknownUpstreamError(name, self.names(), self._why_not(plain))
        if len(claims) > 1:
            files = [f"{entry.card.file}, line {entry.card.line}" for entry in claims if entry.card]
            raise DuplicateUpstreamError(plain, sorted(entry.owner for entry in claims), files)
        return claims[0]

    def _why_not(self, name: str) -> str:
        """Why a name may be missing: its own record is wrong, or something else could not be read, or is turned off."""
        for problem in self.problems:
            if repr(name) in problem.text:
                return f"Its record cannot be used: {problem.place}: {problem.text}"
        broken = f", and `hubcore doctor` what could not be read ({len(self.problems)})" if self.problems else ""
        return f"`hubcore list` shows every name{broken}{_or_enable()}."

    def duplicates(self) -> dict[str, list[str]]:
        """Contested names and their owners."""
        return {name: sorted(e.owner for e in claims) for name, claims in self._owners().items() if len(claims) > 1}

    def _owners(self) -> dict[str, list[Entry]]:
        owners: dict[str, list[Entry]] = {}
        for entry in self.entries:
            for name in (entry.name, *entry.aliases):
                claims = owners.setdefault(name, [])
                # A card explains the family of its own distribution better than the bare entry point does.
                if entry.card is None and any(claim.owner == entry.owner for claim in claims):
                    continue
                claims.append(entry)
        return owners


_lock = threading.Lock()
_current: dict[tuple[str | None, ...], Registry] = {}


def current_registry() -> Registry:
    """The registry of this environment, built on first use and again when a variable that decides about it changes."""
    key = tuple(os.environ.get(name) for name in ("HUBCORE_REGISTRY", "XDG_CONFIG_HOME", DISABLE))
    with _lock:
        if key not in _current:
            _current[key] = build_registry()
        return _current[key]


def refresh() -> None:
    """Forgets what was discovered, so that a package installed meanwhile is found."""
    with _lock:
        _current.clear()


def build_registry() -> Registry:
    """Reads all entry points and registry files; imports none of what they name."""
    problems: list[Finding] = []
    families: list[Family] = []
    files: list[tuple[str, str, Path]] = [("hubcore", "", own_registry_file())]
    for owner, version, point in entry_points(problems):
        if point.group == UPSTREAMS_GROUP:
            target = target_of(point)
            if not NAME.fullmatch(point.name) or not TARGET.fullmatch(target):
                what = f"entry point {point.name!r} = {point.value!r} must be name = module:Class."
                fix = "Correct it and install the distribution again."
                problems.append(Finding(what, fix, entry_points_file(point), owner=owner, version=version))
                continue
            family = Family(point.name, target, owner, version, _missing(point, target, owner))
            if family not in families:
                families.append(family)
        elif point.group == REGISTRIES_GROUP:
            located = _package_file(point.value)
            if located is None:
                what = f"entry point {point.name!r} names {point.value!r}, which is not there."
                fix = "It must be package:file."
                problems.append(Finding(what, fix, entry_points_file(point), owner=owner, version=version))
            elif (owner, version, located) not in files:
                files.append((owner, version, located))
    files += [("user", "", path) for path in user_files(problems)]

    entries: list[Entry] = []
    for owner, version, path in files:
        try:
            cards, broken = read_registry(path, None if owner == "user" else owner)
        except RegistryError as error:
            problems.append(_unreadable(error, path, owner, version))
            continue
        problems += [_unreadable(error, path, owner, version) for error in broken]
        entries += [Entry(card.name, owner, card, _family_of(card.upstream, owner, families)) for card in cards]
    entries += [Entry(family.name, family.distribution, None, family) for family in families]
    taken = {(entry.owner, name) for entry in entries if entry.card for name in (entry.name, *entry.aliases)}
    entries = [entry for entry in entries if entry.card or (entry.owner, entry.name) not in taken]
    return Registry(sorted(entries, key=lambda entry: (entry.name, entry.owner)), problems)


def _unreadable(error: RegistryError, path: Path, owner: str, version: str) -> Finding:
    """A registry file, or one record of it, that cannot be used."""
    what, fix = last_sentence(re.sub(rf"^{re.escape(str(path))}(, line \d+)?: ", "", str(error)))
    return Finding(what, fix, str(path), error.line, owner, version)


def _family_of(name: str, owner: str, families: Iterable[Family]) -> Family | None:
    """The family of that name: the card's own distribution's first, then hubcore's, then the only other one."""
    claims = [family for family in families if family.name == name]
    for preferred in (owner, "hubcore"):
        for family in claims:
            if family.distribution == preferred:
                return family
    return claims[0] if len(claims) == 1 else None


def disabled_plugins() -> frozenset[str]:
    """The distributions that `HUBCORE_DISABLE_PLUGINS` turns off, their names normalised; `*` stands for all but hubcore.

    Example:
        >>> sorted(disabled_plugins())
        []
    """
    listed = os.environ.get(DISABLE, "").split(",")
    return frozenset(canonical(name) for name in listed if name.strip()) - {"hubcore"}


def canonical(distribution: str) -> str:
    """A distribution's name as packaging tools compare it.

    Example:
        >>> canonical("Acme_Speech")
        'acme-speech'
    """
    return re.sub(r"[-_.]+", "-", distribution.strip()).lower()


def _or_enable() -> str:
    disabled = disabled_plugins()
    return f"; {DISABLE} turns off {', '.join(sorted(disabled))}" if disabled else ""


def entry_points(problems: list[Finding]) -> Iterator[tuple[str, str, importlib.metadata.EntryPoint]]:
    """(distribution, version, entry point) of our groups; a distribution with unreadable metadata is stepped over.

    Of a distribution that stands twice on `sys.path`, the first counts, as it does for imports.
    """
    disabled, seen = disabled_plugins(), set()
    for distribution in importlib.metadata.distributions():
        try:
            points = [p for p in distribution.entry_points if p.group in _GROUPS]
            if not points:
                continue
            metadata = distribution.metadata
            if "Name" not in metadata or "Version" not in metadata:
                raise ValueError("it states no name or no version")
            name, version = str(metadata["Name"]), str(metadata["Version"])
        except Exception as error:  # whatever broken metadata raises must not hide the other distributions
            where = getattr(distribution, "_path", "unknown")
            what, fix = f"its metadata cannot be read ({error!r}).", "Reinstall that distribution."
            problems.append(Finding(what, fix, str(where), owner=str(where), error=error))
            continue
        key = canonical(name)
        if key in seen or (key != "hubcore" and disabled & {key, "*"}):
            continue
        seen.add(key)
        for point in points:
            yield name, version, point


def target_of(point: importlib.metadata.EntryPoint) -> str:
    """What an entry point names, without its extras: `module:Class`, `package:file` or a module; nothing is checked."""
    return point.value.partition("[")[0].strip()


def module_of(point: importlib.metadata.EntryPoint) -> str:
    """The module or package that an entry point names; nothing is checked."""
    return target_of(point).partition(":")[0].strip()


def entry_points_file(point: importlib.metadata.EntryPoint) -> str:
    """The `entry_points.txt` that an entry point stands in, or where it would be; empty if it is nowhere."""
    folder = getattr(point.dist, "_path", None)
    return str(folder / "entry_points.txt") if folder else ""


def _missing(point: importlib.metadata.EntryPoint, target: str, owner: str) -> str | None:
    """The command that installs what an entry point needs and lacks, or None."""
    try:
        top = importlib.util.find_spec(target.partition(":")[0].partition(".")[0])
    except Exception:  # the finder of some other distribution's editable install may be broken
        top = None
    if top is None:
        package = target.partition(":")[0].partition(".")[0]
        return f"its package {package!r} is missing. Put it back with: pip install --force-reinstall {owner}"
    for extra in point.extras:
        for requirement in importlib.metadata.requires(owner) or ():
            wanted, _, marker = requirement.partition(";")
            if re.search(rf"extra\s*==\s*['\"]{re.escape(extra)}['\"]", marker):
                needed = re.split(r"[\s<>=!~\[(]", wanted.strip(), maxsplit=1)[0]
                try:
                    importlib.metadata.distribution(needed)
                except importlib.metadata.PackageNotFoundError:
                    return f"{needed} is not installed. Install it with: pip install '{owner}[{extra}]'"
    return None


def _package_file(value: str) -> Path | None:
    """The file that `package:file` names, found without importing the package."""
    package, _, name = value.partition(":")
    try:
        spec = importlib.util.find_spec(package.partition(".")[0])
    except Exception:  # as above
        return None
    for root in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(root, *package.split(".")[1:], name)
        if name and path.is_file():
            return path
    return None


def own_registry_file() -> Path:
    """Hubcore's own `registry.yaml`: inside the package when installed from a wheel, else in the checkout beside it."""
    package = Path(__file__).parent.parent
    inside = package / "registry.yaml"
    return inside if inside.is_file() else package.parent / "registry.yaml"


def user_files(problems: list[Finding] | None = None) -> list[Path]:
    """The user's registry files, each once: those in `HUBCORE_REGISTRY`, then `hubcore/*.yaml` in the configuration folder.

    Their paths are absolute, since a program may change its working folder between this and loading.
    """
    files = []
    for text in filter(None, os.environ.get("HUBCORE_REGISTRY", "").split(os.pathsep)):
        path = Path(os.path.abspath(os.path.expanduser(text)))
        if path.is_file():
            files.append(path)
        elif problems is not None:
            problems.append(
                Finding(f"HUBCORE_REGISTRY names {text}, which is not a file.", "Correct or unset it.", owner="user")
            )
    config = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    files += sorted(Path(os.path.abspath(config), "hubcore").glob("*.yaml"))
    once: dict[str, Path] = {}
    for path in files:
        once.setdefault(os.path.realpath(path), path)
    return [*once.values()]
