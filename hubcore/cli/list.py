"""`hubcore list`: every name known here. Imports no torch and no plugin."""

from __future__ import annotations

import json
from typing import Any

import click

from hubcore.cli.table import format_table
from hubcore.registry.names import Entry, Registry, current_registry

_EXAMPLE = """\b
Example:
  hubcore list
  hubcore list --json"""


@click.command(epilog=_EXAMPLE)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def command(as_json: bool) -> None:
    """List every upstream known here."""
    registry = current_registry()
    rows = [row for entry in registry.entries for row in _rows(entry, registry)]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    headers = ["name", "family", "class", "available", "note"]
    table = [[row["name"], row["family"], row["class"], "yes" if row["available"] else "no", row["note"]] for row in rows]
    click.echo(format_table(headers, table))
    if registry.problems:
        count = len(registry.problems)
        click.echo(f"\n{count} problem{'s' * (count > 1)} found on the way; `hubcore doctor` shows them.", err=True)


def _rows(entry: Entry, registry: Registry) -> list[dict[str, Any]]:
    """One row for the entry's name; a contested name is spelt as the form that picks this owner."""
    owners = registry.duplicates().get(entry.name, [])
    notes = []
    if owners:
        notes.append(f"duplicate: claimed by {' and '.join(owners)}")
    if entry.unavailable:
        notes.append(f"unavailable: {entry.unavailable}")
    if entry.aliases:
        notes.append(f"also {', '.join(entry.aliases)}")
    if entry.card and entry.card.note:
        notes.append(entry.card.note)
    return [
        {
            "name": f"{entry.owner}:{entry.name}" if owners else entry.name,
            "aliases": list(entry.aliases),
            "family": entry.card.upstream if entry.card else entry.name,
            "class": entry.family.target if entry.family else None,
            "from": entry.owner,
            "available": entry.unavailable is None,
            "duplicate_of": owners or None,
            "note": "; ".join(notes) or None,
        }
    ]
