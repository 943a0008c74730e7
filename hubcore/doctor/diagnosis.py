"""`diagnose`, what `hubcore doctor` prints, and `check_plugin`, what `hubcore plugin check` prints."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from hubcore.doctor.installed import (
    CARDS,
    Plugin,
    check_cards,
    check_entry_points,
    check_names,
    contested_names,
    find_plugin,
    own_entries,
    third_parties,
    unmet_requirements,
)
from hubcore.doctor.process import NO_BACKENDS, TIMEOUT, Part, entry_points_error, examine
from hubcore.doctor.report import PluginReport
from hubcore.errors import OptionError
from hubcore.findings import Finding
from hubcore.registry.names import REGISTRIES_GROUP, UPSTREAMS_GROUP, Registry, target_of


@dataclass
class Diagnosis:
    """All that was found out."""

    findings: list[Finding]
    """Problems found."""
    plugins: list[PluginReport]
    """Every third-party distribution, by name."""


def diagnose(registry: Registry, *, timeout: float = TIMEOUT) -> Diagnosis:
    """Everything that is wrong with what is installed, with distribution, version, file and traceback.

    Every family that needs no checkpoint is built, and every hook called once: `hubcore_fetch` with an address of no
    scheme, `hubcore_upstream_loaded` with an `fbank`. A class that needs weights is only imported. Each step of a plugin
    gets `timeout` seconds; one that takes a fourth of it is called slow.
    """
    findings = [*_unreadable_entry_points(), *registry.problems, *(found for _, found in contested_names(registry))]

    def examined(plugin: Plugin) -> PluginReport:
        report = plugin.report()
        for unmet in unmet_requirements(plugin):
            report.findings.append(replace(unmet, owner=report.distribution, version=report.version))
        examine(report, _parts(plugin, registry), timeout, conformance=False, exempt={})
        return report

    with ThreadPoolExecutor(max(2, os.cpu_count() or 1)) as pool:
        reports = [*pool.map(examined, third_parties())]
    findings += [finding for report in reports for finding in report.findings]
    return Diagnosis(list(dict.fromkeys(findings)), reports)


def check_plugin(distribution: str, exempt: Mapping[str, str] | None = None, *, conformance: bool = True) -> PluginReport:
    """Everything about an installed distribution that can be checked here, without downloading anything.

    Its code runs in a process of its own: a plugin that ends the process is a finding, and what it prints is not seen.

    Args:
        distribution: its name, in any spelling that packaging tools take for the same.
        exempt: exemptions of the conformance kit, as `hubcore.testing.check_upstream` takes them, for all upstreams of the
            distribution; for a single one, the key is `name/check`.
        conformance: whether to load the checkpoints that are here and run the conformance kit.

    Raises:
        OptionError: no such distribution, or it is turned off; or an exemption that is none.

    Example:
        >>> check_plugin("hubcroe")
        Traceback (most recent call last):
        ...
        hubcore.errors.OptionError: no installed distribution is called 'hubcroe'. The nearest are hubcore... all names.
    """
    from hubcore.registry.names import current_registry

    plugin = find_plugin(distribution)
    report = plugin.report()
    exemptions = _exemptions(exempt or {}, report.distribution)
    check_entry_points(plugin, report)
    if plugin.points:
        check_cards(report)
        check_names(plugin, report)
        foreign = [
            (CARDS, entry.name, entry.card.file or "")
            for entry in own_entries(report.distribution)
            if entry.card and (entry.family is None or entry.family.distribution != report.distribution)
        ]
        parts = [*_parts(plugin, current_registry()), *foreign]
        examine(report, parts, conformance=conformance, exempt=exemptions)
    return report


def _parts(plugin: Plugin, registry: Registry) -> list[Part]:
    """The entry points whose code can run here."""
    usable = {
        (e.family.distribution, e.family.name, e.family.target) for e in registry.entries if e.family and not e.family.missing
    }
    return [
        (point.group, point.name, point.value)
        for point in plugin.points
        if point.group not in (REGISTRIES_GROUP, UPSTREAMS_GROUP)
        or (plugin.distribution, point.name, target_of(point)) in usable
    ]


def _exemptions(exempt: Mapping[str, str], distribution: str) -> dict[str, dict[str, str]]:
    """The exemptions by name of the upstream, "" for those of all."""
    names = {entry.name for entry in own_entries(distribution)}
    found: dict[str, dict[str, str]] = {}
    for text, reason in exempt.items():
        from hubcore.testing.exemptions import Exemptions

        name, _, check = text.rpartition("/")
        if name and name not in names:
            raise OptionError(f"an exemption is for {name!r}. {distribution} has {', '.join(sorted(names))}.", "Name one.")
        Exemptions.parse({check: reason})
        found.setdefault(name, {})[check] = reason
    return found


def _unreadable_entry_points() -> Iterator[Finding]:
    """Metadata that stops everybody who asks for all entry points at once, and not only the distribution concerned."""
    error = entry_points_error()
    if error is not None:
        what = f"importlib.metadata.entry_points() fails: {error!r}. hubcore steps over the distribution that is to blame, but "
        what += "torch looks for backends there, so even `import torch` can fail."
        yield Finding(what, f"Reinstall that distribution, which another finding names; until then set {NO_BACKENDS}=0.")
