"""`hubcore fetch NAME...`: downloads and verifies checkpoints, to be used offline later."""

from __future__ import annotations

from pathlib import Path

import click

from hubcore.cli.complete import upstreams
from hubcore.cli.echo import echo, echo_error
from hubcore.cli.options import download_lines
from hubcore.errors import HubcoreError

_EXAMPLE = """\b
Example:
  hubcore fetch wav2vec2_base_960 xlsr_53
  hubcore fetch wav2vec2_base_960 --to /shared/hubcore"""


@click.command(epilog=_EXAMPLE)
@click.argument("names", nargs=-1, required=True, metavar="NAME...", shell_complete=upstreams)
@click.option(
    "--to",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Copy them into DIR too: a cache for machines without a network (HUBCORE_CACHE or HUBCORE_CACHE_READONLY there).",
)
def command(names: tuple[str, ...], folder: Path | None) -> None:
    """Download and verify the checkpoints of NAMEs; those that are cached are only checked.

    A NAME may also be an address: https://... or hf://org/repo[@revision][/file].
    """
    from hubcore import hub

    failed = 0
    with download_lines():
        for name in names:
            try:
                path = hub.fetch(name)
                if path is not None and folder is not None:
                    path = _copy(name, folder) or path
            except HubcoreError as error:
                if len(names) == 1:
                    raise
                failed += 1
                echo_error(f"hubcore: error: {name}: {error}")
            else:
                echo(f"{name}: {'needs no weights' if path is None else path}")
    if failed:
        echo(f"{failed} of {len(names)} could not be fetched.", err=True)
        click.get_current_context().exit(1)


def _copy(name: str, folder: Path) -> Path | None:
    """Copies what a name or an address stands for into another cache."""
    from hubcore.card import Source
    from hubcore.registry.names import current_registry
    from hubcore.sources.seeding import copy_to_cache

    card = None if "://" in name else current_registry().find(name).card
    return copy_to_cache(card.sources if card is not None else (Source(name),), card, folder)
