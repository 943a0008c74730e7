"""`hubcore list`: every name known here. Imports no torch and no plugin."""

from __future__ import annotations

import fnmatch
import math
import re
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

import click

from hubcore.card import Card
from hubcore.cli.complete import families, languages, licenses, upstreams
from hubcore.cli.echo import echo, echo_json, json_flag
from hubcore.cli.table import format_table
from hubcore.errors import OptionError, nearest_hint
from hubcore.registry.names import Entry, Registry, current_registry
from hubcore.sources.inventory import find_present
from hubcore.text import format_bytes, format_count, parse_count, plural

_EXAMPLE = """\b
Example:
  hubcore list
  hubcore list "wav2vec2_large*"
  hubcore list --family hubert --cached
  hubcore list --commercial-ok --language zh --max-params 100M
  hubcore list --json"""
_WHOLE = ("name", "size", "params", "lang", "cached")
"""Columns that are never cut; with the others at their narrowest, all fit into 100 characters."""
_COUNTED, _MANY = 3, 6
"""As many languages as these are shown as the first and the number of the others, or as `many`."""


def _count(ctx: click.Context, parameter: click.Parameter, value: str | None) -> int | None:  # noqa: ARG001
    try:
        return None if value is None else parse_count(value)
    except ValueError as error:
        raise click.BadParameter(f"{error}.") from error


@click.command(epilog=_EXAMPLE)
@click.argument("patterns", nargs=-1, metavar="[PATTERN]...", shell_complete=upstreams)
@click.option("--family", shell_complete=families, metavar="NAME", help="Only names of this family.")
@click.option("--license", shell_complete=licenses, metavar="NAME", help="Only this licence, or a pattern such as 'cc-by*'.")
@click.option("--commercial-ok", is_flag=True, help="Only licences known to allow commercial use.")
@click.option("--language", shell_complete=languages, metavar="CODE", help="Only models trained on this language, such as zh.")
@click.option("--max-params", callback=_count, metavar="N", help="Only encoders of at most N parameters, such as 100M.")
@click.option("--cached", is_flag=True, help="Only what is here: cached, bundled, or without weights.")
@json_flag()
def command(
    patterns: tuple[str, ...],
    family: str | None,
    license: str | None,
    commercial_ok: bool,
    language: str | None,
    max_params: int | None,
    cached: bool,
    as_json: bool,
) -> None:
    """List the upstreams known here, or those whose name or alias a PATTERN such as "wav2vec2*" matches.

    Size is that of the file that is here, else the published one. Parameters are those of the encoder. Many languages that
    a card does not list (mul) match every --language.
    """
    registry = current_registry()
    duplicates = registry.duplicates()
    entries = _matching(registry, patterns, family)
    for keep in _filters(registry, license, commercial_ok, language, max_params):
        entries = [entry for entry in entries if entry.card and keep(entry.card)]
    rows = [_row(entry, registry.spelling(entry), duplicates.get(entry.name, [])) for entry in entries]
    if cached:
        rows = [row for row in rows if row["cached"] is not False and row["available"]]
    rows.sort(key=lambda row: (row["family"], row["name"]))
    if as_json:
        echo_json(rows)
        return
    headers, shown = ["name", "size", "params", "lang", "licence", "cached", "note"], [_cells(row) for row in rows]
    top, rule, *lines = format_table(headers, shown, right=("size", "params"), whole=_WHOLE).split("\n")
    below = iter(lines)
    echo(f"{top}\n{rule}")
    for (name, cls), group in groupby(rows, key=lambda row: (row["family"], row["class"])):
        echo("\n".join([f"{name} ({cls or 'not installed'})", *(next(below) for _ in group)]))
    if not rows:
        echo("nothing matches all of these filters", err=True)
    if registry.problems:
        found = plural(len(registry.problems), "problem")
        echo(f"\n{found} found on the way; `hubcore doctor` shows them.", err=True)


def _matching(registry: Registry, patterns: Sequence[str], family: str | None) -> list[Entry]:
    """The entries that patterns and family leave.

    Raises:
        OptionError: a pattern or the family leaves none.
    """
    entries = registry.entries
    if family is not None:
        families = {entry.card.upstream if entry.card else entry.name for entry in entries}
        if family not in families:
            raise OptionError(f"there is no family {family!r}.", nearest_hint(family, families))
        entries = [entry for entry in entries if family == (entry.card.upstream if entry.card else entry.name)]
    for pattern in patterns:
        if not registry.matching(pattern):
            hint = nearest_hint(pattern, registry.names(), "`hubcore list` shows every name.")
            raise OptionError(f"no name matches {pattern!r}.", hint)
    if patterns:
        named = {name for pattern in patterns for name in registry.matching(pattern)}
        entries = [e for e in entries if named & {registry.spelling(e), e.name, *e.aliases}]
    return entries


def _filters(
    registry: Registry, license: str | None, commercial_ok: bool, language: str | None, max_params: int | None
) -> list[Callable[[Card], bool]]:
    """A test of a card for each filter that is given.

    Raises:
        OptionError: no card has the licence, or the language is no code.
    """
    cards = [entry.card for entry in registry.entries if entry.card]
    found: list[Callable[[Card], bool]] = []
    if license is not None:
        pattern = license.lower()
        found.append(lambda card: fnmatch.fnmatchcase(card.license.lower(), pattern))
        if not any(map(found[-1], cards)):
            raise OptionError(
                f"no card has the licence {license!r}.", nearest_hint(pattern, {card.license.lower() for card in cards})
            )
    if language is not None:
        code = language.lower()
        found.append(lambda card: card.has_language(code))
        if not re.fullmatch("[a-z]{2,3}", code):
            codes = {known for card in cards for known in card.languages}
            raise OptionError(f"{language!r} is no code of a language such as 'zh'.", nearest_hint(code, codes))
    if commercial_ok:
        found.append(lambda card: card.commercial_ok)
    if max_params is not None:
        found.append(lambda card: _parameters(card) <= max_params)
    return found


def _parameters(card: Card) -> float:
    """The parameters of a card's encoder: 0 for features without weights, and without end where the card does not say."""
    if card.parameters is not None:
        return card.parameters
    return 0 if card.license == "none needed" else math.inf


def _row(entry: Entry, spelling: str, owners: list[str]) -> dict[str, Any]:
    card = entry.card
    notes = {
        "duplicate: claimed by": " and ".join(owners),
        "overridden by": entry.overridden_by,
        "unavailable:": entry.unavailable,
        "also": ", ".join(entry.aliases),
        "": card.note if card else None,
    }
    present = find_present(card) if card else None
    published = next((source.size for source in card.sources if source.size), None) if card else None
    return {
        "name": spelling,
        "aliases": list(entry.aliases),
        "family": card.upstream if card else entry.name,
        "class": entry.family.target if entry.family else None,
        "from": entry.owner,
        "available": entry.unavailable is None,
        "cached": present is not None if card and card.sources else None,
        "size": present[1] if present else published,
        "parameters": card.parameters if card else None,
        "license": card.license if card else None,
        "languages": list(card.languages) if card else [],
        "hours": card.hours if card else None,
        "frame_stride": card.frame_stride if card else None,
        "duplicate_of": owners or None,
        "note": "; ".join(f"{label} {text}".strip() for label, text in notes.items() if text) or None,
    }


def _cells(row: dict[str, Any]) -> list[str | None]:
    size, parameters, cached = row["size"], row["parameters"], row["cached"]
    return [
        f"  {row['name']}",
        format_bytes(size) if size else None,
        format_count(parameters) if parameters else None,
        _languages(row["languages"]),
        row["license"],
        None if cached is None else "yes" if cached else "no",
        row["note"],
    ]


def _languages(codes: Sequence[str]) -> str | None:
    if codes == ["mul"] or len(codes) >= _MANY:
        return "many"
    return (f"{codes[0]} +{len(codes) - 1}" if len(codes) >= _COUNTED else " ".join(codes)) or None
