"""Names -> cards -> `module:Class`, all of it read as text: nothing is imported until an upstream is used.

Families come from entry points `hubcore.upstreams`, cards from registry files: hubcore's own, those named by entry points
`hubcore.registries`, and the user's (`HUBCORE_REGISTRY` and the configuration folder). Whatever is broken is recorded in
`Registry.problems` and harms only its own names. Distributions in `HUBCORE_DISABLE_PLUGINS` are stepped over. Imports no
torch.
"""

from __future__ import annotations

import fnmatch
import functools
import importlib.metadata
import importlib.util
import os
import re
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from importlib.machinery import ModuleSpec
from pathlib import Path

from hubcore.card import Card
from hubcore.errors import DuplicateUpstreamError, RegistryError, UnknownUpstreamError
from hubcore.findings import Finding
from hubcore.registry.elsewhere import lead_from
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
    """Command that installs what it still needs; None if it is complete."""

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
    overridden_by: str | None = None
    """The place of a user's card that takes this name; `owner:name` still means this entry."""

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


@dataclass(frozen=True)
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
        """Every name that `find` accepts: names and aliases, and the `owner:name` forms where a plain name is not enough."""
        plain = {name for name in self._by_name if self.claims(name)}
        return sorted(
            plain.union(f"{e.owner}:{name}" for name, found in self._by_name.items() if len(found) > 1 for e in found)
        )

    def matching(self, pattern: str) -> list[str]:
        """The names that a pattern such as `wav2vec2*` matches.

        Example:
            >>> current_registry().matching("fbank*")
            ['fbank', 'fbank_no_cmvn']
        """
        return fnmatch.filter(self.names(), pattern)

    def find(self, name: str) -> Entry:
        """The entry that a name, an alias or `owner:name` means.

        Raises:
            UnknownUpstreamError: no such name.
            DuplicateUpstreamError: two distributions claim it.
        """
        owner, _, plain = name.rpartition(":")
        claims = self.claims(plain)
        if owner:
            claims = [entry for entry in self._by_name.get(plain, []) if entry.owner == owner]
        if not claims:
            lead = self.lead(name)
            raise UnknownUpstreamError(name, () if lead else self.names(), lead or self._why_not(plain))
        if len(claims) > 1:
            files = [f"{entry.card.file}, line {entry.card.line}" for entry in claims if entry.card]
            raise DuplicateUpstreamError(plain, sorted(entry.owner for entry in claims), files)
        return claims[0]

    def lead(self, name: str) -> str | None:
        """A sentence that leads from a name of s3prl or of the Hugging Face Hub to one here, or None.

        Example:
            >>> current_registry().lead("hubert-base-ls960")
            "hub.load('hubert_base_hf') loads hf://facebook/hubert-base-ls960."
        """
        return lead_from(name, [entry.card for entry in self.entries if entry.card])

    def claims(self, name: str) -> list[Entry]:
        """The entries that a plain name could mean; more than one if it is contested."""
        return [entry for entry in self._by_name.get(name, []) if not entry.overridden_by]

    def duplicates(self) -> dict[str, list[str]]:
        """Contested names and their owners."""
        claims = ((name, self.claims(name)) for name in self._by_name)
        return {name: sorted(entry.owner for entry in found) for name, found in claims if len(found) > 1}

    def spelling(self, entry: Entry) -> str:
        """The name by which `find` gives an entry: `owner:name` where the plain one is contested or means another."""
        return entry.name if self.claims(entry.name) == [entry] else f"{entry.owner}:{entry.name}"

    @functools.cached_property
    def families(self) -> dict[str, list[Family]]:
        """The installed families by name; more than one where distributions share a name."""
        found: dict[str, dict[Family, None]] = {}
        for entry in self.entries:
            if entry.family is not None:
                found.setdefault(entry.family.name, {})[entry.family] = None
        return {name: [*claims] for name, claims in found.items()}

    @functools.cached_property
    def _by_name(self) -> dict[str, list[Entry]]:
        found: dict[str, list[Entry]] = {}
        for entry in self.entries:
            for name in (entry.name, *entry.aliases):
                claims = found.setdefault(name, [])
                # A card says more than the bare entry point of its own distribution.
                if entry.card or all(claim.owner != entry.owner for claim in claims):
                    claims.append(entry)
        return found

    def _why_not(self, name: str) -> str:
        """Why a name may be missing: its own record is wrong, or something else could not be read, or is turned off."""
        for problem in self.problems:
            if repr(name) in problem.text:
                return f"Its record cannot be used: {problem.place}: {problem.text}"
        broken = f", and `hubcore doctor` what could not be read ({len(self.problems)})" if self.problems else ""
        return f"`hubcore list` shows every name{broken}{_or_enable()}."


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
    for cached in (spec_of, _requirements, is_installed):
        cached.cache_clear()
    problems: list[Finding] = []
    families: dict[str, list[Family]] = {}
    files = {("hubcore", "", own_registry_file()): None}
    for owner, version, point in entry_points(problems):
        what = fix = ""
        if point.group == UPSTREAMS_GROUP:
            target = target_of(point)
            if NAME.fullmatch(point.name) and TARGET.fullmatch(target):
                families.setdefault(point.name, []).append(Family(point.name, target, owner, version, _missing(point, owner)))
            else:
                what = f"entry point {point.name!r} = {point.value!r} must be name = module:Class."
                fix = "Correct it and install the distribution again."
        elif point.group == REGISTRIES_GROUP:
            package, _, file = point.value.partition(":")
            located = package_file(package, file)
            if located:
                files[owner, version, located] = None
            else:
                what = f"entry point {point.name!r} names {point.value!r}, which is not there."
                fix = "It must be package:file."
        if what:
            problems.append(Finding(what, fix, entry_points_file(point), owner=owner, version=version))
    files |= {("user", "", path): None for path in user_files(problems)}

    entries: list[Entry] = []
    for owner, version, path in files:
        try:
            cards, broken = read_registry(path, None if owner == "user" else owner)
        except RegistryError as error:
            cards, broken = [], [error]
        problems += [Finding(error.what, error.fix, str(path), error.line, owner, version) for error in broken]
        entries += [Entry(card.name, owner, card, choose_family(families.get(card.upstream, ()), owner)) for card in cards]
    taken = {(entry.owner, name) for entry in entries for name in (entry.name, *entry.aliases)}
    for family in dict.fromkeys(family for claims in families.values() for family in claims):
        if (family.distribution, family.name) not in taken:
            entries.append(Entry(family.name, family.distribution, None, family))
    _override(entries, problems)
    return Registry(sorted(entries, key=lambda entry: (entry.name, entry.owner)), problems)


def choose_family(claims: Sequence[Family], owner: str) -> Family | None:
    """Of the families of one name the one for a card of `owner`: its own, then hubcore's, then the only other one."""
    for preferred in (owner, "hubcore"):
        for family in claims:
            if family.distribution == preferred:
                return family
    return claims[0] if claims and all(family == claims[0] for family in claims) else None


def _override(entries: list[Entry], problems: list[Finding]) -> None:
    """Lets a user's card with `overrides` take the name and the aliases of the card that it names the owner of."""
    places = {(canonical(entry.owner), entry.name): place for place, entry in enumerate(entries) if entry.card}
    for place, entry in enumerate(entries):
        card = entry.card
        if card is None or card.overrides is None:
            continue
        there = places.get((canonical(card.overrides), entry.name))
        if entry.owner != "user" or there is None or there == place:
            why = f"{card.overrides!r} has no such card" if entry.owner == "user" else "only a card of the user may do that"
            what = f"the card {entry.name!r} overrides that of {card.overrides!r}, but {why}."
            problems.append(Finding(what, "Remove `overrides`.", card.file or "", card.line, entry.owner))
            continue
        aliases = dict.fromkeys((*entry.aliases, *entries[there].aliases))
        entries[place] = replace(entry, card=replace(card, aliases=tuple(aliases)))
        entries[there] = replace(entries[there], overridden_by=f"{card.file}, line {card.line}")


def disabled_plugins() -> frozenset[str]:
    """The distributions that `HUBCORE_DISABLE_PLUGINS` turns off, their names normalised; `*` stands for all but hubcore."""
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
    """Target of an entry point without its extras: `module:Class`, `package:file` or a module; nothing is checked."""
    return point.value.partition("[")[0].strip()


def module_of(point: importlib.metadata.EntryPoint) -> str:
    """The module or package that an entry point names; nothing is checked."""
    return target_of(point).partition(":")[0].strip()


def entry_points_file(point: importlib.metadata.EntryPoint) -> str:
    """The `entry_points.txt` that an entry point stands in, or where it would be; empty if it is nowhere."""
    folder = getattr(point.dist, "_path", None)
    return str(folder / "entry_points.txt") if folder else ""


def _missing(point: importlib.metadata.EntryPoint, owner: str) -> str | None:
    """The command that installs what an entry point needs and lacks, or None."""
    package = module_of(point).partition(".")[0]
    if spec_of(package) is None:
        return f"its package {package!r} is missing. Put it back with: pip install --force-reinstall {owner}"
    for extra in point.extras if "[" in point.value else ():
        for needed, marker in _requirements(owner):
            if re.search(rf"extra\s*==\s*['\"]{re.escape(extra)}['\"]", marker) and not is_installed(needed):
                return f"{needed} is not installed. Install it with: pip install '{owner}[{extra}]'"
    return None


@functools.cache
def _requirements(distribution: str) -> list[tuple[str, str]]:
    """Name and marker of everything that a distribution requires."""
    found = [requirement.partition(";") for requirement in importlib.metadata.requires(distribution) or ()]
    return [(re.split(r"[\s<>=!~\[(]", wanted.strip(), maxsplit=1)[0], marker) for wanted, _, marker in found]


@functools.cache
def is_installed(distribution: str) -> bool:
    """True if a distribution is there, whatever its version."""
    try:
        importlib.metadata.distribution(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


@functools.cache
def spec_of(package: str) -> ModuleSpec | None:
    """Place of a top-level package or module, which is not imported; None if it is missing."""
    try:
        return importlib.util.find_spec(package)
    except Exception:  # the finder of some other distribution's editable install may be broken
        return None


def package_file(package: str, name: str) -> Path | None:
    """A file of a package, found without importing it."""
    top, *rest = package.split(".")
    spec = spec_of(top)
    paths = [Path(root, *rest, name) for root in (spec.submodule_search_locations or ())] if spec else []
    return next((path for path in paths if name and path.is_file()), None)


def own_registry_file() -> Path:
    """Hubcore's own `registry.yaml`: inside the package when installed from a wheel, else in the checkout beside it."""
    package = Path(__file__).parent.parent
    inside = package / "registry.yaml"
    return inside if inside.is_file() else package.parent / "registry.yaml"


def user_files(problems: list[Finding] | None = None) -> list[Path]:
    """The user's registry files, each once: those that `HUBCORE_REGISTRY` names, then those in `config_folder`.

    It names files, or folders whose `*.yaml` are read. All paths are absolute, since a program may change its working folder.
    """
    files: list[Path] = []
    for text in filter(None, os.environ.get("HUBCORE_REGISTRY", "").split(os.pathsep)):
        path = Path(os.path.abspath(os.path.expanduser(text)))
        if path.is_file():
            files.append(path)
        elif path.is_dir():
            files += card_files(path)
        elif problems is not None:
            what = f"HUBCORE_REGISTRY names {text}, which is not a file or a folder."
            problems.append(Finding(what, "Correct or unset it.", owner="user"))
    files += card_files(config_folder())
    once: dict[str, Path] = {}
    for path in files:
        once.setdefault(os.path.realpath(path), path)
    return [*once.values()]


def card_files(folder: Path) -> list[Path]:
    """The registry files in a folder, sorted by name."""
    return sorted(folder.glob("*.yaml"))


def config_folder() -> Path:
    """The folder of the user's own cards, `hubcore` in the configuration folder; it need not be there."""
    return Path(os.path.abspath(os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")), "hubcore")
