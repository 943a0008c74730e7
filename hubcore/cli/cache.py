"""`hubcore cache`: list, check and remove downloads."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from hubcore.cli.complete import upstreams
from hubcore.cli.echo import echo, echo_json, json_flag
from hubcore.errors import CheckpointError
from hubcore.text import plural

if TYPE_CHECKING:
    from hubcore.sources.inventory import CacheItem

_EXAMPLE = """\b
Example:
  hubcore cache ls
  hubcore cache verify
  hubcore cache rm wav2vec2_base_960
  hubcore cache gc --dry-run"""


@click.group(epilog=_EXAMPLE)
def command() -> None:
    """Show, check and clean what was downloaded."""


@command.command("path", epilog=_EXAMPLE)
@json_flag()
def path_(as_json: bool) -> None:
    """Print the folders that are looked into, in their order."""
    from hubcore.sources.folders import cache_dir, read_only_caches
    from hubcore.sources.hub.cache import hf_cache_dir

    folders = [("cache", cache_dir()), *(("read-only", layer) for layer in read_only_caches()), ("hub", hf_cache_dir())]
    if as_json:
        echo_json([{"kind": kind, "path": str(folder)} for kind, folder in folders])
        return
    for kind, folder in folders:
        echo(f"{kind:<9}  {folder}")


@command.command("ls", epilog=_EXAMPLE)
@json_flag()
def ls(as_json: bool) -> None:
    """List cached files: hubcore's own downloads, and the cards' files in the cache of the Hugging Face Hub."""
    from hubcore.cli.table import format_table
    from hubcore.sources.inventory import cache_items, partial_files
    from hubcore.text import format_bytes

    items = cache_items()
    if as_json:
        echo_json([item.to_dict() for item in items])
        return
    rows = [(", ".join(item.names) or "-", format_bytes(item.size), (item.sha256 or "-")[:12], item.path) for item in items]
    if rows:
        echo(format_table(["name", "size", "sha256", "path"], rows, right=["size"]))
    echo(f"{plural(len(items), 'file')}, {format_bytes(sum(item.size for item in items))}")
    partial = partial_files()
    if partial:
        size = sum(path.stat().st_size for path in partial)
        echo(f"and {len(partial)} partial downloads, {format_bytes(size)}, which the next fetch resumes")


@command.command("verify", epilog=_EXAMPLE)
@click.argument("targets", nargs=-1, metavar="[NAME|URI|DIGEST]...", shell_complete=upstreams)
def verify(targets: tuple[str, ...]) -> None:
    """Read every byte of the cached files and compare it with its SHA-256; exits 1 if a file is damaged."""
    from hubcore.sources.inventory import cache_items, what_is_wrong

    items = _chosen(cache_items(), targets)
    damaged = 0
    for item in items:
        wrong = what_is_wrong(item)
        damaged += wrong is not None
        echo(f"{'ok' if wrong is None else 'damaged':<7}  {item.label}" + (f"  {wrong}" if wrong else ""))
    echo(f"{plural(len(items), 'file')} read, {damaged} damaged" + ("; `hubcore cache rm` removes them" if damaged else ""))
    if damaged:
        click.get_current_context().exit(1)


@command.command("rm", epilog=_EXAMPLE)
@click.argument("targets", nargs=-1, required=True, metavar="NAME|URI|DIGEST...", shell_complete=upstreams)
def rm(targets: tuple[str, ...]) -> None:
    """Remove files and their pins: the next fetch accepts the file that is published then."""
    from hubcore.sources.inventory import remove_target

    nothing = []
    for target in targets:
        removed = remove_target(target)
        for path in removed:
            echo(f"removed {path}")
        if not removed:
            nothing.append(target)
    if nothing:
        raise _not_cached(", ".join(nothing))


@command.command("gc", epilog=_EXAMPLE)
@click.option("--older-than", type=click.FloatRange(min=0), default=24.0, show_default=True, metavar="HOURS",
              help="Keep files written to in the last HOURS.")  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Only show what would be removed.")
def gc(older_than: float, dry_run: bool) -> None:
    """Remove old partial downloads, here and in the cache of the Hub, and records of files that are gone."""
    from hubcore.sources.inventory import garbage
    from hubcore.text import format_bytes

    size = count = 0
    for path in garbage(older_than * 3600):
        bytes_here = path.stat().st_size if path.exists() else 0
        if not dry_run:
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                echo(f"{path} cannot be removed: {error.strerror}", err=True)
                continue
        size, count = size + bytes_here, count + 1
        echo(f"{'would remove' if dry_run else 'removed'} {path}")
    echo(f"{plural(count, 'file')}, {format_bytes(size)}")


def _chosen(items: list[CacheItem], targets: tuple[str, ...]) -> list[CacheItem]:
    from hubcore.sources.inventory import matches

    for target in targets:
        if not any(matches(item, target) for item in items):
            raise _not_cached(target)
    return [item for item in items if not targets or any(matches(item, target) for target in targets)]


def _not_cached(target: str) -> CheckpointError:
    return CheckpointError(f"{target} is not in the cache.", "`hubcore cache ls` lists what is cached.")
