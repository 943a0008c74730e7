"""`check_plugin`: from a distribution's name to a report. What is read as text is checked here; what runs, in `upstreams`."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from hubcore import findings as findings_
from hubcore.doctor.probe import call_hooks
from hubcore.doctor.report import Finding, PluginReport, listed
from hubcore.errors import HubcoreError, OptionError, nearest_names
from hubcore.hooks import Hooks, current_hooks
from hubcore.registry.names import (
    DISABLE,
    HOOKS_GROUP,
    REGISTRIES_GROUP,
    UPSTREAMS_GROUP,
    canonical,
    current_registry,
    disabled_plugins,
    module_of,
)

GROUPS = (UPSTREAMS_GROUP, REGISTRIES_GROUP, HOOKS_GROUP)
_LISTING = "import json, sys; from hubcore import hub; hub.list(); print(json.dumps(sorted(sys.modules)))"
_LISTING_SECONDS = 60.0


def check_plugin(distribution: str, exempt: Mapping[str, str] | None = None) -> PluginReport:
    """Everything about an installed distribution that can be checked here, without downloading anything.

    Args:
        distribution: its name, in any spelling that packaging tools take for the same.
        exempt: exemptions of the conformance kit, as `hubcore.testing.check_upstream` takes them, for all upstreams of the
            distribution; for a single one, the key is `name/check`.

    Raises:
        OptionError: no such distribution, or it is turned off; or an exemption that is none.

    Example:
        >>> check_plugin("hubcroe")
        Traceback (most recent call last):
        ...
        hubcore.errors.OptionError: no installed distribution is called 'hubcroe'. The nearest are hubcore... all names.
    """
    from hubcore.doctor.upstreams import check_upstreams

    found = _find(distribution)
    report = PluginReport(str(found.metadata["Name"]), str(found.metadata["Version"]))
    points = _check_entry_points(report, found)
    if points:
        _check_listing(report, found, points)
        _check_cards(report)
        _check_names(report, found, points)
        check_upstreams(report, points, exempt or {})
        _check_hooks(report, points)
    return report


def _find(name: str) -> importlib.metadata.Distribution:
    wanted = canonical(name)
    plugins: set[str] = set()
    others: set[str] = set()
    for distribution in importlib.metadata.distributions():
        try:
            known = canonical(str(distribution.metadata["Name"]))
            groups = {point.group for point in distribution.entry_points}
        except Exception as error:
            # Whose metadata cannot be read may still have its name in that of its folder, `acme_speech-1.0.dist-info`.
            folder = Path(str(getattr(distribution, "_path", "")))
            if canonical(folder.name.partition("-")[0]) == wanted:
                raise OptionError(
                    f"the metadata of {name} cannot be read ({type(error).__name__}: {error}). It is in {folder}. "
                    "Build the distribution again and reinstall it."
                ) from error
            continue
        if known == wanted:
            if wanted != "hubcore" and disabled_plugins() & {wanted, "*"}:
                raise OptionError(f"{name} is turned off by {DISABLE}. Nothing of it can be checked so. Unset the variable.")
            return distribution
        (plugins if groups & {*GROUPS} else others).add(known)
    near = nearest_names(wanted, plugins) or nearest_names(wanted, others)
    hint = f"The nearest are {', '.join(near)}." if near else f"The plugins here are {', '.join(sorted(plugins))}."
    with contextlib.suppress(HubcoreError):
        hint = f"It is the name of an upstream, which {current_registry().find(name).owner} provides: check that."
    raise OptionError(f"no installed distribution is called {name!r}. {hint} `pip list` shows all names.")


def _check_entry_points(report: PluginReport, found: importlib.metadata.Distribution) -> list[importlib.metadata.EntryPoint]:
    """The entry points of our groups; findings for those that name nothing, and for groups that nobody reads."""
    points = [point for point in found.entry_points if point.group in GROUPS]
    lost = [point for point in found.entry_points if point.group not in GROUPS and "hubcore" in point.group]
    findings = []
    for point in lost:
        near = (nearest_names(point.group, GROUPS, count=1) or [UPSTREAMS_GROUP])[0]
        findings.append(
            Finding.of(
                f"the entry point {point.name!r} is in the group {point.group!r}, which nothing reads.",
                _place(found, point),
                f"The nearest group is {near!r}: rename it in pyproject.toml and install the distribution again.",
            )
        )
    if not points and not lost:
        groups = ", ".join(map(repr, GROUPS))
        findings.append(
            Finding.of(
                f"{report.distribution} has no entry point for hubcore, so hubcore does not see it.",
                _entry_points_file(found),
                f"Add one to its pyproject.toml, in one of the groups {groups}, and install it again.",
            )
        )
    for point in points:
        said = [
            p.text
            for p in problems_of(report)
            if p.what.startswith(f"entry point {point.name!r} ") and repr(point.value) in p.what
        ]
        findings += [Finding.of(what, _place(found, point)) for what in said]
    names = [f"{point.name} ({point.group})" for point in points]
    report.add("entry points", listed(names), findings, f"{len(points)} resolve")
    return points


def problems_of(report: PluginReport) -> list[findings_.Finding]:
    """What discovery found wrong with the distribution."""
    return [p for p in current_registry().problems if canonical(p.owner) == canonical(report.distribution)]


def _entry_points_file(found: importlib.metadata.Distribution) -> str:
    folder = getattr(found, "_path", None)
    file = Path(str(folder), "entry_points.txt")
    return str(file) if file.is_file() else str(folder or "")


def _place(found: importlib.metadata.Distribution, point: importlib.metadata.EntryPoint) -> str:
    """The file and the line of an entry point."""
    group = ""
    for number, line in enumerate((found.read_text("entry_points.txt") or "").splitlines(), start=1):
        text = line.strip()
        group = text[1:-1].strip() if text.startswith("[") and text.endswith("]") else group
        name, equals, value = text.partition("=")
        if equals and (group, name.strip(), value.strip()) == (point.group, point.name, point.value):
            return f"{_entry_points_file(found)}, line {number}"
    return _entry_points_file(found)


def packages_of(report: PluginReport, points: list[importlib.metadata.EntryPoint]) -> set[str]:
    """The top-level modules that belong to a distribution, as its files and its entry points name them."""
    named = {re.split(r"[.:\[]", point.value.strip(), maxsplit=1)[0] for point in points}
    for file in importlib.metadata.distribution(report.distribution).files or ():
        if file.suffix == ".py" and ".." not in file.parts:
            named.add(file.parts[0].removesuffix(".py"))
    return {name for name in named if name.isidentifier()} - {"hubcore"}


def _check_listing(
    report: PluginReport, found: importlib.metadata.Distribution, points: list[importlib.metadata.EntryPoint]
) -> None:
    """Whether `hub.list()` in a fresh interpreter imports torch or anything of the distribution."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(os.path.abspath(path) for path in sys.path)}
    command = [sys.executable, "-c", _LISTING]
    try:
        done = subprocess.run(  # noqa: S603 - this interpreter, and the constant above
            command, capture_output=True, text=True, env=environment, timeout=_LISTING_SECONDS, check=True
        )
        modules = set(json.loads(done.stdout.splitlines()[-1]))
    except (OSError, subprocess.SubprocessError, ValueError, IndexError) as error:
        last = (getattr(error, "stderr", None) or str(error)).strip().splitlines()[-1:]
        cause = f"hub.list() fails in a fresh interpreter: {''.join(last)}."
        remedy = "Run python -c 'from hubcore import hub; hub.list()' to see it whole."
        report.add("listing", "hub.list()", [Finding.of(cause, _start_up_file(found), remedy)], "")
        return
    own = packages_of(report, points)
    heavy = sorted(name for name in modules if name.partition(".")[0] in {"torch", *own})
    findings = []
    if heavy:
        findings.append(
            Finding.of(
                f"hub.list() imports {listed(heavy)}, although listing reads names only.",
                _start_up_file(found),
                "Nothing of a plugin may run before it is used: take the import out of the .pth file or of whatever else "
                "runs when Python starts.",
            )
        )
    report.add("listing", "hub.list()", findings, "imports neither torch nor this distribution")


def _start_up_file(found: importlib.metadata.Distribution) -> str:
    """The .pth file by which a distribution runs code when Python starts; else its entry points."""
    for file in found.files or ():
        if file.suffix == ".pth":
            lines = Path(str(file.locate())).read_text(encoding="utf-8", errors="replace").splitlines()
            for number, line in enumerate(lines, start=1):
                if line.startswith(("import ", "import\t")):
                    return f"{file.locate()}, line {number}"
    return _entry_points_file(found)


def _check_cards(report: PluginReport) -> None:
    """Whether every record of the distribution's registry files is well-formed."""
    own = [entry for entry in current_registry().entries if canonical(entry.owner) == canonical(report.distribution)]
    cards = [entry.card for entry in own if entry.card]
    wrong = [problem for problem in problems_of(report) if not problem.what.startswith("entry point ")]
    findings = [Finding.of(problem.text, problem.place) for problem in wrong]
    files = sorted({Path(card.file).name for card in cards if card.file})
    report.add("cards", listed(files), findings, f"{len(cards)} well-formed")


def _check_names(
    report: PluginReport, found: importlib.metadata.Distribution, points: list[importlib.metadata.EntryPoint]
) -> None:
    """Whether another distribution, or this one twice, claims one of its names."""
    key = canonical(report.distribution)
    names = {
        name for entry in current_registry().entries if canonical(entry.owner) == key for name in (entry.name, *entry.aliases)
    }
    places = {point.name: _place(found, point) for point in points if point.group == UPSTREAMS_GROUP}
    findings = list(_contested(key, places))
    report.add("names", listed(sorted(names)), findings, f"{len(names)}, each its own")


def _contested(key: str, places: Mapping[str, str]) -> Iterator[Finding]:
    registry = current_registry()
    for name, owners in sorted(registry.duplicates().items()):
        if key not in map(canonical, owners):
            continue
        claims = [entry for entry in registry.entries if name in (entry.name, *entry.aliases)]
        ours = next(entry for entry in claims if canonical(entry.owner) == key)
        place = f"{ours.card.file}, line {ours.card.line}" if ours.card else places.get(name, "")
        others = sorted({owner for owner in owners if canonical(owner) != key}) or [f"{ours.owner} once more"]
        yield Finding.of(
            f"the name {name!r} is claimed by {' and by '.join(others)} too, so that nobody can use it plainly.",
            place,
            f"Rename it; until then {ours.owner}:{name} picks this one."
            if others[0] in owners
            else "Remove one of the records.",
        )


def _check_hooks(report: PluginReport, points: list[importlib.metadata.EntryPoint]) -> None:
    """Whether its hooks are loaded and, called once each, do not fail; conflicts with other plugins' count too."""
    modules = [point for point in points if point.group == HOOKS_GROUP]
    alone = Hooks()
    for point in modules:
        alone.load(report.distribution, report.version, point)
    said = [*call_hooks(alone, lambda _: None)] if modules else []
    wrong = {
        problem: None
        for problem in (*alone.problems, *current_hooks().problems)
        if canonical(problem.owner) == canonical(report.distribution)
    }
    found = [Finding.of(problem.text, problem.place or _module_file(modules)) for problem in wrong]
    found += [Finding.of(what, _module_file(modules)) for what in said]
    if modules or found:
        report.add("hooks", ", ".join(point.value for point in modules), found, "loaded and called once; none has failed")


def _module_file(modules: list[importlib.metadata.EntryPoint]) -> str:
    for point in modules:
        top, *rest = module_of(point).split(".")
        try:
            spec = importlib.util.find_spec(top)
        except Exception:  # the finder of some other distribution's editable install may be broken
            return ""
        for root in (spec.submodule_search_locations or ()) if spec and rest else ():
            file = Path(root, *rest).with_suffix(".py")
            if file.is_file():
                return str(file)
        if spec and spec.origin:
            return spec.origin
    return ""
