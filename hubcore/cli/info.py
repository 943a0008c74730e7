"""`hubcore info NAME`: which class a name runs, and where to change it."""

from __future__ import annotations

import json

import click

_EXAMPLE = """\b
Example:
  hubcore info wav2vec2_base_960
  hubcore info fbank --json"""


@click.command(epilog=_EXAMPLE)
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def command(name: str, as_json: bool) -> None:
    """Show what NAME is: class, file and line, config, sources, licence, paper, whether it is here."""
    from hubcore import hub

    info = hub.info(name)
    click.echo(json.dumps(info.to_dict(), indent=2, default=str) if as_json else str(info))
