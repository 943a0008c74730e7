"""Checks of an installed plugin without running it: its metadata, entry points, cards and names."""

from __future__ import annotations

import contextlib
import importlib.metadata
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.metadata import Distribution, EntryPoint
from pathlib import Path

from hubcore.doctor.report import PluginReport
from hubcore.errors import HubcoreError, OptionError, nearest_hint, nearest_names
from hubcore.findings import Finding
from hubcore.registry.names import (
    DISABLE,
    HOOKS_GROUP,
    OBJECTIVES_GROUP,
    REGISTRIES_GROUP,
    UPSTREAMS_GROUP,
    Entry,
    Registry,
    canonical,
    current_registry,
    disabled_plugins,
    entry_points,
    is_installed,
    spec_of,
)
from hubcore.text import listed

GROUPS = (UPSTREAMS_GROUP, REGISTRIES_GROUP, HOOKS_GROUP, OBJECTIVES_GROUP)
CARDS = "cards of other distributions' families"
"""Instead of an entry point's group: the part is a card whose class belongs to another distribution."""
_KINDS = {HOOKS_GROUP: "hooks", REGISTRIES_GROUP: "cards", OBJECTIVES_GROUP: "objective"}


@dataclass(frozen=True)
class Plugin:
    """An installed distribution that has entry points for hubcore, or was meant to."""

    metadata: Distribution
    """As `importlib.metadata` found it."""

    @property
    def distribution(self) -> str:
        """Its name."""
        return str(self.metadata.metadata["Name"])

    @property
    def points(self) -> list[EntryPoint]:
        """Its entry points of hubcore's groups."""
        return [point for point in self.metadata.entry_points if point.group in GROUPS]

    def report(self) -> PluginReport:
        """An empty report of it."""
        brings = ", ".join(f"{point.name} ({_KINDS.get(point.group, 'family')})" for point in self.points)
        return PluginReport(self.distribution, str(self.metadata.metadata["Version"]), brings)

    def packages(self) -> set[str]:
        """Its top-level modules, as its files and its entry points name them."""
        named = {re.split(r"[.:\[]", point.value.strip(), maxsplit=1)[0] for point in self.points}
        for file in self.metadata.files or ():
            if file.suffix == ".py" and ".." not in file.parts:
                named.add(file.parts[0].removesuffix(".py"))
        return {name for name in named if name.isidentifier()} - {"hubcore"}

    def roots(self) -> list[str]:
        """The folders and files that hold its code, found without importing it."""
        roots: list[str] = []
        for package in sorted(self.packages()):
            spec = spec_of(package)
            roots += (spec.submodule_search_locations or filter(None, [spec.origin])) if spec else ()
        return roots

    def place(self, point: EntryPoint | None = None) -> tuple[str, int | None]:
        """The file of its entry points, or its folder; and the line of one of them."""
        folder = Path(str(getattr(self.metadata, "_path", "")))
        file, group = folder / "entry_points.txt", ""
        if not file.is_file():
            return str(folder), None
        for number, line in enumerate(file.read_text("utf-8", "replace").splitlines(), start=1) if point else ():
            text = line.strip()
            group = text[1:-1].strip() if text.startswith("[") and text.endswith("]") else group
            name, _, value = (part.strip() for part in text.partition("="))
            if point and (group, name, value) == (point.group, point.name, point.value):
                return str(file), number
        return str(file), None


def third_parties() -> list[Plugin]:
    """Every installed and enabled distribution with entry points for hubcore, but hubcore itself, by name."""
    found = {owner: point.dist for owner, _, point in entry_points([]) if owner != "hubcore"}
    return [Plugin(distribution) for _, distribution in sorted(found.items()) if distribution]


def find_plugin(name: str) -> Plugin:
    """The installed distribution of this name, in any spelling that packaging tools take for the same.

    Raises:
        OptionError: there is none, its metadata cannot be read, or it is turned off.
    """
    wanted = canonical(name)
    plugins: set[str] = set()
    others: set[str] = set()
    for distribution in importlib.metadata.distributions():
        try:
            known = canonical(str(distribution.metadata["Name"]))
            is_plugin = any(point.group in GROUPS for point in distribution.entry_points)
        except Exception as error:
            # Whose metadata cannot be read may still have its name in that of its folder, `acme_speech-1.0.dist-info`.
            folder = Path(str(getattr(distribution, "_path", "")))
            if canonical(folder.name.partition("-")[0]) == wanted:
                what = f"the metadata of {name} cannot be read ({type(error).__name__}: {error}). It is in {folder}."
                raise OptionError(what, "Build the distribution again and reinstall it.") from error
            continue
        if known == wanted:
            if wanted != "hubcore" and disabled_plugins() & {wanted, "*"}:
                raise OptionError(f"{name} is turned off by {DISABLE}, so it cannot be checked.", "Unset the variable.")
            return Plugin(distribution)
        (plugins if is_plugin else others).add(known)
    listed = f"The plugins here are {', '.join(sorted(plugins))}."
    hint = nearest_hint(wanted, plugins, nearest_hint(wanted, others, listed))
    with contextlib.suppress(HubcoreError):
        hint = f"It is the name of an upstream, which {current_registry().find(name).owner} provides: check that."
    raise OptionError(f"no installed distribution is called {name!r}. {hint}", "`pip list` shows all names.")


def check_entry_points(plugin: Plugin, report: PluginReport) -> None:
    """Entry points that name nothing, unknown groups, and requirements that are not installed."""
    points = plugin.points
    findings = [*unmet_requirements(plugin)]
    lost = [point for point in plugin.metadata.entry_points if point.group not in GROUPS and "hubcore" in point.group]
    for point in lost:
        near = (nearest_names(point.group, GROUPS, count=1) or [UPSTREAMS_GROUP])[0]
        what = f"the entry point {point.name!r} is in the group {point.group!r}, which nothing reads."
        fix = f"The nearest group is {near!r}: rename it in pyproject.toml and install the distribution again."
        findings.append(Finding(what, fix, *plugin.place(point)))
    if not points and not lost:
        what = f"{report.distribution} has no entry point for hubcore, so hubcore does not see it."
        fix = f"Add one to its pyproject.toml, in one of the groups {', '.join(map(repr, GROUPS))}, and install it again."
        findings.append(Finding(what, fix, *plugin.place()))
    for problem in problems_of(report.distribution):
        of = [p for p in points if problem.what.startswith(f"entry point {p.name!r} ") and repr(p.value) in problem.what]
        findings += [Finding(problem.what, problem.fix, *plugin.place(point)) for point in of]
    names = [f"{point.name} ({point.group})" for point in points]
    report.add("entry points", listed(names, 3), findings, f"{len(points)} resolve")


def problems_of(distribution: str) -> list[Finding]:
    """Problems of a distribution that discovery found."""
    return [found for found in current_registry().problems if canonical(found.owner) == canonical(distribution)]


def unmet_requirements(plugin: Plugin) -> Iterator[Finding]:
    """Requirements of the distribution that are not installed, extras not counted."""
    for requirement in plugin.metadata.requires or ():
        needed = re.split(r"[\s<>=!~;\[(@]", requirement.strip(), maxsplit=1)[0]
        if needed and ";" not in requirement and not is_installed(needed):
            what = f"it requires {requirement}, which is not installed."
            yield Finding(what, f"Install it with: pip install '{requirement}'", *plugin.place())


def check_cards(report: PluginReport) -> None:
    """Checks that every record of the distribution's registry files is well-formed."""
    cards = [entry.card for entry in own_entries(report.distribution) if entry.card]
    wrong = [problem for problem in problems_of(report.distribution) if not problem.what.startswith("entry point ")]
    files = sorted({Path(card.file).name for card in cards if card.file})
    report.add("cards", listed(files, 3), wrong, f"{len(cards)} well-formed")


def own_entries(distribution: str) -> list[Entry]:
    """Entries of a distribution in the registry."""
    return [entry for entry in current_registry().entries if canonical(entry.owner) == canonical(distribution)]


def check_names(plugin: Plugin, report: PluginReport) -> None:
    """Finds the names that another distribution claims too, or this one twice."""
    own = own_entries(report.distribution)
    names = sorted({name for entry in own for name in (entry.name, *entry.aliases)})
    findings = []
    for name, finding in contested_names(current_registry()):
        ours = next((entry for entry in own if name in (entry.name, *entry.aliases)), None)
        if ours is not None:
            point = next((p for p in plugin.points if p.group == UPSTREAMS_GROUP and p.name == name), None)
            file, line = (ours.card.file or "", ours.card.line) if ours.card else plugin.place(point)
            findings.append(replace(finding, file=file, line=line))
    report.add("names", listed(names, 3), findings, f"{len(names)}, each its own")


def contested_names(registry: Registry) -> Iterator[tuple[str, Finding]]:
    """Each name with several owners, and where they claim it."""
    for name, owners in sorted(registry.duplicates().items()):
        choices = " or ".join(f"{owner}:{name}" for owner in dict.fromkeys(owners))
        fix = f"Use {choices}, or uninstall one of them." if len({*owners}) > 1 else "Remove all but one of its records."
        claims = tuple(_claim(entry) for entry in registry.entries if name in (entry.name, *entry.aliases))
        yield name, Finding(f"{name} is claimed by {' and '.join(owners)}.", fix, traceback=claims)


def _claim(entry: Entry) -> str:
    """Who claims a name, and the line of the card or the entry point that does."""
    version = f" {entry.family.version}" if entry.family and entry.family.distribution == entry.owner else ""
    if entry.card:
        return f"{entry.owner}{version}: {entry.card.file}, line {entry.card.line}"
    return f"{entry.owner}{version}: entry point {entry.name} = {entry.family.target if entry.family else '?'}"
