"""`hubcore convert SRC OUT`: a checkpoint of any layout as hubcore's own safetensors."""

from __future__ import annotations

import dataclasses

import click

from hubcore.cli.complete import families, files
from hubcore.cli.echo import echo, echo_json, json_flag
from hubcore.cli.options import option_flag
from hubcore.text import format_bytes, plural, printable

_EXAMPLE = """\b
Example:
  hubcore convert checkpoint_best.pt ours.safetensors
  hubcore convert bare_weights.pt ours.safetensors --upstream wav2vec2 --config base"""


@click.command(epilog=_EXAMPLE)
@click.argument("src", shell_complete=files)
@click.argument("out", shell_complete=files)
@click.option(
    "--upstream",
    "-u",
    shell_complete=families,
    metavar="NAME",
    help="The family that reads it; without it every installed one is tried.",
)
@click.option("--config", metavar="NAME", help="A named config of the family, for a file that has none.")
@option_flag()
@click.option("--force", is_flag=True, help="Replace OUT if it is there.")
@json_flag()
def command(
    src: str, out: str, upstream: str | None, config: str | None, pairs: tuple[str, ...], force: bool, as_json: bool
) -> None:
    """Write the checkpoint SRC as OUT, a safetensors file with its config.

    SRC is a file of fairseq or s3prl, a folder of Hugging Face, a state dict, an address or a name. OUT is read back before
    it gets its name: every weight, and every hidden state of a clip of 3 s, must be equal in every bit.
    """
    from hubcore.tools.convert import convert

    made = convert(src, out, upstream=upstream, config=config, options=pairs, force=force)
    if as_json:
        echo_json({**dataclasses.asdict(made), "path": str(made.path)})
        return
    if made.report is not None:
        echo(made.report)
    echo(f"upstream  {made.upstream}, {made.class_path}")
    echo(f"equal     {plural(made.weights, 'weight')} and {plural(made.layers, 'hidden state')} of a clip, every bit of them")
    echo(f"written   {printable(made.path)}, {format_bytes(made.bytes)}")
    echo(f"sha256    {made.sha256}")
