"""`hubcore doctor`: what is installed, where things are kept, and everything that is broken."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path

import click

import hubcore
from hubcore.cli.table import format_table

_PACKAGES = ("torch", "numpy", "soundfile", "soxr", "safetensors", "huggingface_hub", "pluggy", "click")


_EXAMPLE = """\b
Example:
  hubcore doctor"""


@click.command(epilog=_EXAMPLE)
def command() -> None:
    """Check this installation; exits 1 if something is broken."""
    from hubcore.checkpoints.sources import cache_dir, is_offline
    from hubcore.hooks import current_hooks
    from hubcore.registry import current_registry

    registry, hooks = current_registry(), current_hooks()
    problems = [f"{problem.owner}: {problem.what}" for problem in (*registry.problems, *hooks.problems)]
    rows: list[tuple[str, str]] = [
        ("hubcore", f"{hubcore.__version__}, {Path(hubcore.__file__).parent}"),
        ("python", f"{platform.python_version()}, {platform.platform(terse=True)}"),
    ]
    for package in _PACKAGES:
        try:
            rows.append((package, importlib.metadata.version(package)))
        except importlib.metadata.PackageNotFoundError:
            rows.append((package, "missing"))
            problems.append(f"{package} is not installed. hubcore needs it. Run pip install {package}.")
    try:
        import soundfile

        rows.append(("libsndfile", soundfile.__libsndfile_version__))
    except (ImportError, OSError) as error:
        problems.append(f"libsndfile cannot be loaded ({error}). No audio file can be read. Reinstall soundfile.")
    cache = cache_dir()
    writable = _writable(cache)
    rows.append(("cache", f"{cache}{'' if writable else ', not writable'}"))
    if not writable:
        problems.append(f"the cache folder {cache} cannot be written. Set HUBCORE_CACHE to one that can.")
    rows.append(("offline", "yes" if is_offline() else "no"))
    unavailable = [entry for entry in registry.entries if entry.unavailable]
    rows.append(("upstreams", f"{len(registry.entries)} names, {len(unavailable)} unavailable"))
    click.echo(format_table(["what", "value"], rows))
    for name, owners in sorted(registry.duplicates().items()):
        choices = " or ".join(f"{owner}:{name}" for owner in owners)
        problems.append(f"{name} is claimed by {' and '.join(owners)}. Use {choices}, or uninstall one of them.")
    if unavailable:
        click.echo("\n" + format_table(["unavailable", "why"], [(e.name, e.unavailable) for e in unavailable]))
    if problems:
        click.echo("\nproblems:")
        for problem in dict.fromkeys(problems):
            click.echo(f"- {problem}")
        click.get_current_context().exit(1)
    click.echo("\nno problem found")


def _writable(folder: Path) -> bool:
    """Whether files can be made in `folder`, or in the nearest folder above it that exists."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)
