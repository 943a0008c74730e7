"""`hubcore list`: every name known here. Imports no torch and no plugin."""

from __future__ import annotations

import json
from typing import Any

import click

from hubcore.cli.table import format_table
from hubcore.registry.names import Entry, current_registry

_EXAMPLE = """\b
Example:
  hubcore list
  hubcore list --json"""


@click.command(epilog=_EXAMPLE)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def command(as_json: bool) -> None:
    """List every upstream known here."""
    registry = current_registry()
    duplicates = registry.duplicates()
    rows = [_row(entry, registry.spelling(entry), duplicates.get(entry.name, [])) for entry in registry.entries]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    headers = ["name", "family", "class", "available", "note"]
    table = [[row["name"], row["family"], row["class"], "yes" if row["available"] else "no", row["note"]] for row in rows]
    click.echo(format_table(headers, table))
    if registry.problems:
        count = len(registry.problems)
        click.echo(f"\n{count} problem{'s' * (count > 1)} found on the way; `hubcore doctor` shows them.", err=True)


def _row(entry: Entry, spelling: str, owners: list[str]) -> dict[str, Any]:
    notes = {
        "duplicate: claimed by": " and ".join(owners),
        "overridden by": entry.overridden_by,
        "unavailable:": entry.unavailable,
        "also": ", ".join(entry.aliases),
        "": entry.card.note if entry.card else None,
    }
    return {
        "name": spelling,
        "aliases": list(entry.aliases),
        "family": entry.card.upstream if entry.card else entry.name,
        "class": entry.family.target if entry.family else None,
        "from": entry.owner,
        "available": entry.unavailable is None,
        "duplicate_of": owners or None,
        "note": "; ".join(f"{label} {text}".strip() for label, text in notes.items() if text) or None,
    }
