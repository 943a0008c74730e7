"""`hubcore verify NAME...`: whether a name is what its card says, from its links to its features."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from hubcore.cli.complete import upstreams
from hubcore.cli.echo import echo, echo_json, json_flag
from hubcore.cli.options import download_lines
from hubcore.cli.table import format_table
from hubcore.progress import Progress, is_terminal
from hubcore.text import plural

if TYPE_CHECKING:
    from hubcore.registry.names import Entry, Registry
    from hubcore.tools.verify import Verification

_EXAMPLE = """\b
Example:
  hubcore verify wav2vec2_tiny_prompts
  hubcore verify --all --json"""
_HEADERS = ("name", "source", "bytes", "sha256", "checksum", "config", "layers", "weights", "batch-mates", "seconds", "verdict")


@click.command(epilog=_EXAMPLE)
@click.argument("names", nargs=-1, metavar="[NAME]...", shell_complete=upstreams)
@click.option("--all", "everything", is_flag=True, help="Every card known here, such as in a nightly job.")
@json_flag()
def command(names: tuple[str, ...], everything: bool, as_json: bool) -> None:
    """Fetch, load and run NAMEs, and compare every step with their cards.

    Asks every link of a card, reads every byte of the file and compares SHA-256 and size, loads it, compares class, config
    and shapes, and runs a fixed clip of 3 s alone and in a batch with a shorter and a longer one. Offline, only what is
    here is verified.

    Exit code 0: all is well. 1: something failed, a link is dead, or a NAME that was asked for could not be verified here;
    with --all, names that are not here or whose family is not installed do not count. 2: no such name.
    """
    from hubcore.registry.names import current_registry

    if everything == bool(names):
        raise click.UsageError("Give either names or --all.")
    registry = current_registry()
    entries = _all_cards(registry) if everything else [(name, registry.find(name)) for name in dict.fromkeys(names)]
    results = _verified(entries)
    dead = [(result.name, link) for result in results for link in result.dead_links]
    if as_json:
        links = [{"name": name, "uri": link.uri, "problem": link.problem} for name, link in dead]
        echo_json({"results": [result.to_dict() for result in results], "dead_links": links})
    else:
        echo(_report(results))
    if everything and registry.problems:
        count = len(registry.problems)
        echo(f"{plural(count, 'problem')} in the registry itself; `hubcore doctor` shows them.", err=True)
    skipped = not everything and any(result.verdict in ("not here", "unavailable") for result in results)
    if dead or skipped or any(result.verdict == "failed" for result in results):
        click.get_current_context().exit(1)


def _all_cards(registry: Registry) -> list[tuple[str, Entry]]:
    """Every entry with a card, a contested name spelt as the form that picks its owner."""
    return [(registry.spelling(entry), entry) for entry in registry.entries if entry.card is not None]


def _verified(entries: list[tuple[str, Entry]]) -> list[Verification]:
    """One result for each entry; each is printed to standard error at once, since a run over all of them takes hours."""
    from hubcore.tools.verify import verify_entry

    results: list[Verification] = []
    with Progress("name") as progress, download_lines():
        for name, entry in entries:
            progress(len(results), len(entries), name)
            results.append(verify_entry(entry, name))
            if not is_terminal(sys.stderr):
                echo(f"{len(results)} of {len(entries)}: {name}: {results[-1].verdict}", err=True)
    return results


def _report(results: list[Verification]) -> str:
    """The table, then what is wrong, then the dead links, then the counts."""
    lines = [format_table(_HEADERS, [_row(result) for result in results], right=("bytes", "layers", "batch-mates", "seconds"))]
    problems = [f"- {result.name}: {problem}".replace("\n", "\n  ") for result in results for problem in result.problems]
    if problems:
        lines += ["", "what is wrong, or why it was not verified:", *problems]
    dead = [f"- {result.name}: {link.problem}" for result in results for link in result.dead_links]
    if dead:
        lines += ["", "dead links:", *dead]
    counts = {verdict: sum(result.verdict == verdict for result in results) for verdict in ("ok", "failed")}
    others = len(results) - sum(counts.values())
    asked = sum(link.reachable is not None for result in results for link in result.links)
    lines += ["", f"{counts['ok']} ok, {counts['failed']} failed, {others} not verified; {len(dead)} of {asked} links dead"]
    return "\n".join(lines)


def _row(result: Verification) -> list[object]:
    weights = None if result.used is None else f"{result.used} used, {len(result.ignored or ())} ignored"
    return [
        result.name,
        result.source,
        result.bytes,
        result.sha256[:12] if result.sha256 else None,
        result.checksum,
        result.config,
        result.layers,
        weights,
        None if result.batch_difference is None else f"{result.batch_difference:.1e}",
        None if result.seconds is None else f"{result.seconds:.1f}",
        result.verdict,
    ]
