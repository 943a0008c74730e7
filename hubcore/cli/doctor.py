"""`hubcore doctor`: what is installed, where things are kept, and everything that is broken."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hubcore.cli.echo import echo, echo_json, json_flag
from hubcore.cli.table import format_table
from hubcore.doctor.diagnosis import diagnose
from hubcore.doctor.installed import third_parties
from hubcore.doctor.process import TIMEOUT
from hubcore.doctor.report import PluginReport
from hubcore.errors import nearest_names
from hubcore.findings import Finding
from hubcore.text import plural
from hubcore.version import VERSION

if TYPE_CHECKING:
    from hubcore.registry.names import Entry, Registry

_PACKAGES = ("torch", "numpy", "soundfile", "soxr", "safetensors", "huggingface_hub", "pluggy", "click")

_EXAMPLE = """\b
Example:
  hubcore doctor
  hubcore doctor --json
  hubcore doctor --weights"""


@click.command(epilog=_EXAMPLE)
@json_flag("tables")
@click.option("--weights", is_flag=True, help="Load every cached checkpoint and look for NaN, infinity and zeros in it.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0.1),
    default=TIMEOUT,
    show_default=True,
    help="Seconds that one step of a plugin may take.",
)
def command(as_json: bool, weights: bool, timeout: float) -> None:
    """Check this installation; exits 1 if something is broken.

    Every plugin that is installed beside hubcore is imported in a process of its own, its families that need no checkpoint
    are built, and its hooks called once. What is slow, or changes what belongs to the whole process, is a warning.
    """
    from hubcore.registry.names import current_registry

    registry = current_registry()
    rows, findings = _environment()
    count = len(third_parties())
    if count:
        echo(f"examining {plural(count, 'plugin')} ...", err=True)
    diagnosis = diagnose(registry, timeout=timeout)
    findings += diagnosis.findings
    if weights:
        from hubcore.doctor.odd_weights import odd_checkpoints

        findings += odd_checkpoints(registry)
    unavailable = [_unavailable_row(entry, registry) for entry in registry.entries if entry.unavailable]
    plugins = [_plugin_row(report, findings) for report in diagnosis.plugins]
    rows.append(("upstreams", f"{plural(len(registry.entries), 'name')}, {len(unavailable)} unavailable"))
    if as_json:
        found = [_finding_row(finding) for finding in findings]
        data = {"environment": dict(rows), "plugins": plugins, "unavailable": unavailable, "findings": found}
        echo_json(data)
    else:
        echo(format_table(["what", "value"], rows))
        if plugins:
            table = [[*(row | {"seconds": f"{row['seconds']:.2f}"}).values()] for row in plugins]
            echo("\n" + format_table(["plugin", "version", "brings", "import, s", "state"], table, right=["import, s"]))
        if unavailable:
            echo("\n" + format_table(["unavailable", "from", "why"], [[*row.values()] for row in unavailable]))
        _print_findings("problems", [finding for finding in findings if not finding.warning])
        _print_findings("warnings", [finding for finding in findings if finding.warning])
        if not findings:
            echo("\nno problem found")
    if any(not finding.warning for finding in findings):
        click.get_current_context().exit(1)


def _environment() -> tuple[list[tuple[str, str]], list[Finding]]:
    """Versions and folders, and what is wrong with them."""
    from hubcore.sources.folders import cache_dir, is_offline

    rows = [
        ("hubcore", f"{VERSION}, {Path(__file__).parents[1]}"),
        ("python", f"{platform.python_version()}, {platform.platform(terse=True)}"),
    ]
    problems: list[Finding] = []
    for package in _PACKAGES:
        try:
            rows.append((package, importlib.metadata.version(package)))
        except importlib.metadata.PackageNotFoundError:
            rows.append((package, "missing"))
            problems.append(Finding(f"{package} is not installed. hubcore needs it.", f"Run pip install {package}."))
    try:
        import soundfile

        rows.append(("libsndfile", soundfile.__libsndfile_version__))
    except (ImportError, OSError) as error:
        what = f"libsndfile cannot be loaded ({error}). No audio file can be read."
        problems.append(Finding(what, "Reinstall soundfile."))
    cache = cache_dir()
    writable = _writable(cache)
    rows.append(("cache", f"{cache}{'' if writable else ', not writable'}"))
    if not writable:
        problems.append(Finding(f"the cache folder {cache} cannot be written.", "Set HUBCORE_CACHE to one that can."))
    rows.append(("offline", "yes" if is_offline() else "no"))
    return rows, problems


def _print_findings(title: str, findings: Sequence[Finding]) -> None:
    if findings:
        echo(f"\n{title}:")
    for finding in findings:
        name = f"{finding.owner} {finding.version}".rstrip()
        lines = [f"- {name}: {finding.text}" if name else f"- {finding.text}"]
        lines += [f"    entry point: {finding.entry_point}"] if finding.entry_point else []
        lines += [f"    file: {finding.place}"] if finding.file else []
        echo("\n".join([*lines, *(f"    {line}" for line in finding.traceback)]))


def _finding_row(finding: Finding) -> dict[str, object]:
    return {
        "owner": finding.owner,
        "what": finding.text,
        "version": finding.version,
        "entry_point": finding.entry_point,
        "file": finding.place,
        "traceback": finding.traceback,
        "warning": finding.warning,
    }


def _plugin_row(report: PluginReport, findings: Sequence[Finding]) -> dict[str, Any]:
    own = [finding for finding in findings if finding.owner == report.distribution]
    state = "broken" if any(not finding.warning for finding in own) else "odd" if own else "ok"
    return {
        "distribution": report.distribution,
        "version": report.version,
        "brings": report.brings,
        "seconds": round(report.seconds, 2),
        "state": state,
    }


def _unavailable_row(entry: Entry, registry: Registry) -> dict[str, str]:
    """Why a name cannot run here, and where it says so; with the family that was perhaps meant."""
    why = str(entry.unavailable)
    if entry.family is None and entry.card is not None:
        families = {other.family.name for other in registry.entries if other.family}
        near = nearest_names(entry.card.upstream, families, count=1)
        why += f". Did you mean the family {near[0]!r}?" if near and entry.owner != "hubcore" else ""
    place = f"{entry.card.file}, line {entry.card.line}" if entry.card and entry.owner != "hubcore" else ""
    version = f" {entry.family.version}" if entry.family else ""
    return {"name": entry.name, "from": f"{entry.owner}{version}{f': {place}' if place else ''}", "why": why}


def _writable(folder: Path) -> bool:
    """Checks that files can be made in `folder`, or in the nearest folder above it that exists."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)
