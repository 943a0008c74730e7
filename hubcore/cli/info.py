"""`hubcore info NAME`: which class a name runs, and where to change it."""

from __future__ import annotations

import json

import click

from hubcore.cli.table import format_table

_COLUMNS = ("name", "type", "default", "meaning")
_EXAMPLE = """\b
Example:
  hubcore info wav2vec2_base_960
  hubcore info fbank --json"""


@click.command(epilog=_EXAMPLE)
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def command(name: str, as_json: bool) -> None:
    """Show what NAME is: class, file and line, config, sources, licence, paper, whether it is here, and its options."""
    from hubcore import hub
    from hubcore.describe import class_options
    from hubcore.registry.names import current_registry

    info = hub.info(name)
    options = class_options(current_registry().find(name), info)
    rows = [(option.name, option.type, option.default, option.doc) for option in options]
    if as_json:
        data = [dict(zip(_COLUMNS, row, strict=True)) for row in rows]
        click.echo(json.dumps({**info.to_dict(), "class_options": data}, indent=2, default=str))
        return
    click.echo(str(info))
    if rows:
        click.echo(f"\noptions, as -O NAME=VALUE or hub.load({name!r}, NAME=VALUE):\n")
        click.echo(format_table(_COLUMNS, rows))
