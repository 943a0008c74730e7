"""`hubcore export RUN OUT --format fairseq|hf|safetensors`: a checkpoint in another program's format."""

from __future__ import annotations

import dataclasses
from typing import Any

import click

from hubcore.cli.complete import files, folders
from hubcore.cli.echo import echo, echo_json, json_flag
from hubcore.text import plural, printable

_EXAMPLE = """\b
Example:
  hubcore export runs/tiny tiny.pt --format fairseq
  hubcore export runs/tiny tiny-hf --format hf
  hubcore export runs/ofa ofa.safetensors --format safetensors"""


@click.command(epilog=_EXAMPLE)
@click.argument("run", shell_complete=folders)
@click.argument("out", shell_complete=files)
@click.option("--format", "-f", type=click.Choice(["fairseq", "hf", "safetensors"]), required=True, help="What to write.")
@click.option("--force", is_flag=True, help="Replace OUT if it is there; a folder never is.")
@json_flag("text")
def command(run: str, out: str, format: Any, force: bool, as_json: bool) -> None:
    """Write the newest checkpoint of RUN, or any other checkpoint, as OUT for another program.

    fairseq is one file with cfg and model, hf a folder that transformers loads, heads of pre-training included where there are
    any; safetensors is hubcore's own file without them. OUT is read back before it gets its name, and must give the same
    weights and hidden states.
    """
    from hubcore.tools.export import export

    made = export(run, out, format=format, force=force)
    if as_json:
        echo_json({**dataclasses.asdict(made), "path": str(made.path)})
        return
    echo(f"upstream  {made.upstream}{', with heads of pre-training' if made.heads else ''}")
    echo(f"equal     {plural(made.weights, 'weight')} and {plural(made.layers, 'hidden state')} of a clip")
    echo(f"written   {printable(made.path)}")
