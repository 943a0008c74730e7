"""`hubcore info NAME`: which class a name runs, and where to change it; `hubcore info FILE`: what a checkpoint holds."""

from __future__ import annotations

import dataclasses
import os
from typing import TYPE_CHECKING

import click

from hubcore.cli.complete import upstreams_or_files
from hubcore.cli.echo import echo, echo_json, json_flag
from hubcore.cli.table import format_table

if TYPE_CHECKING:
    from hubcore.describe import UpstreamInfo
    from hubcore.options import Option

_COLUMNS = ("name", "type", "default", "meaning")
_EXAMPLE = """\b
Example:
  hubcore info wav2vec2_base_960
  hubcore info mine.safetensors
  hubcore info fbank --json"""


@click.command(epilog=_EXAMPLE)
@click.argument("name", metavar="NAME|FILE", shell_complete=upstreams_or_files)
@json_flag()
def command(name: str, as_json: bool) -> None:
    """Show what NAME is: class, file and line, config, sources, licence, paper, whether it is cached, and its options.

    For a checkpoint FILE, or the folder of a model or a run: its layout, family, config and parameters, and what is ignored.
    """
    from hubcore import hub

    if os.sep in name or (os.path.exists(name) and name not in hub.list()):
        _show_file(name, as_json)
        return
    info = hub.info(name)
    rows = [(option.name, option.type, option.default, option.doc) for option in _options(info)]
    if as_json:
        data = [dict(zip(_COLUMNS, row, strict=True)) for row in rows]
        echo_json({**info.to_dict(), "class_options": data})
        return
    echo(str(info))
    if rows:
        echo(f"\noptions, as -O NAME=VALUE or hub.load({name!r}, NAME=VALUE):\n")
        echo(format_table(_COLUMNS, rows))


def _show_file(path: str, as_json: bool) -> None:
    from hubcore.sources.resolve import resolve
    from hubcore.tools.file_info import describe_file

    found = describe_file(resolve(path))
    echo_json(dataclasses.asdict(found)) if as_json else echo(found)


def _options(info: UpstreamInfo) -> list[Option]:
    """The options that the class takes, with the defaults of its card and config; imports the class."""
    from hubcore.loading import import_class
    from hubcore.options import options_of
    from hubcore.registry.names import current_registry

    card, family = info.card, current_registry().find(f"{info.distribution}:{info.name}").family
    if family is None or family.missing:
        return []
    try:
        options = options_of(import_class(family), with_weights=True if card and card.sources else None) or ()
    except Exception:  # a broken plugin: the rest is shown
        return []
    given = {"config": info.config_name, **(info.config or {}), **(card.options if card else {})}
    return [dataclasses.replace(option, default=given.get(option.name, option.default)) for option in options]
