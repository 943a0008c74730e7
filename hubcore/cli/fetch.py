"""`hubcore fetch NAME...`: downloads and verifies checkpoints, to be used offline later."""

from __future__ import annotations

import click

from hubcore.errors import HubcoreError

_EXAMPLE = """\b
Example:
  hubcore fetch wav2vec2_base_960 xlsr_53"""


@click.command(epilog=_EXAMPLE)
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
def command(names: tuple[str, ...]) -> None:
    """Download and verify the checkpoints of NAMEs; those that are here already are only checked."""
    from hubcore import hub

    failed = 0
    for name in names:
        try:
            path = hub.fetch(name)
        except HubcoreError as error:
            if len(names) == 1:
                raise
            failed += 1
            click.echo(f"hubcore: error: {name}: {error}", err=True)
        else:
            click.echo(f"{name}: {'needs no weights' if path is None else path}")
    if failed:
        click.echo(f"{failed} of {len(names)} could not be fetched.", err=True)
        click.get_current_context().exit(1)
