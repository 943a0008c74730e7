"""`hubcore export SOURCE OUT --format FORMAT`: a checkpoint, or an upstream as a graph, for another program."""

from __future__ import annotations

import dataclasses
from typing import Any

import click

from hubcore.cli.complete import files, upstreams
from hubcore.cli.echo import echo, echo_json, json_flag
from hubcore.cli.options import option_flag
from hubcore.errors import OptionError
from hubcore.text import plural, printable

_EXAMPLE = """\b
Example:
  hubcore export runs/tiny tiny.pt --format fairseq
  hubcore export runs/tiny tiny-hf --format hf
  hubcore export runs/ofa ofa.safetensors --format safetensors
  hubcore export hubert_base hubert.onnx --format onnx --layers 9
  hubcore export ofa_wav2vec2 ofa.pt2 --format torch-export -O lambd=0.7"""


@click.command(epilog=_EXAMPLE)
@click.argument("source", shell_complete=upstreams)
@click.argument("out", shell_complete=files)
@click.option(
    "--format",
    "-f",
    type=click.Choice(["fairseq", "hf", "safetensors", "onnx", "torch-export"]),
    required=True,
    help="What to write.",
)
@click.option(
    "--layers", metavar="LAYERS", help="Of a graph: all, last, 9, block_9, 0,6,12 or 1-3; the card's default, mostly all."
)
@click.option("--force", is_flag=True, help="Replace OUT if it is there; a folder never is.")
@option_flag()
@json_flag("text")
def command(source: str, out: str, format: Any, layers: str | None, force: bool, pairs: tuple[str, ...], as_json: bool) -> None:
    """Write SOURCE, the folder of a run, a checkpoint or a name of `hubcore list`, as OUT for another program.

    fairseq is one file with cfg and model, hf a folder that transformers loads, heads of pre-training included where there are
    any; safetensors is hubcore's own file without them. OUT is read back before it gets its name, and must give the same
    weights and hidden states.

    onnx (needs pip install 'hubcore[onnx]') and torch-export are graphs for any batch of any lengths: from wavs
    (batch, samples) and lengths (batch) to the hidden states of --layers, by their names, and frame_lengths. OUT gets its
    name if its numbers are the upstream's, to 1e-4.
    """
    from hubcore.tools.export import export, export_as_graph

    if format in ("onnx", "torch-export"):
        graph = export_as_graph(source, out, format=format, layers=layers, options=pairs, force=force)
        if as_json:
            echo_json({**dataclasses.asdict(graph), "path": str(graph.path)})
            return
        echo(f"upstream  {graph.upstream}")
        echo(f"outputs   {', '.join(graph.layers)}, frame_lengths")
        echo(f"equal     to {graph.difference:.1e}, alone and in a batch, at lengths that were not traced")
        echo(f"written   {printable(graph.path)} ({graph.bytes / 1e6:.1f} MB)")
        return
    if layers is not None or pairs:
        raise OptionError("--layers and -O are for graphs, the formats onnx and torch-export.", "Leave them out.")
    made = export(source, out, format=format, force=force)
    if as_json:
        echo_json({**dataclasses.asdict(made), "path": str(made.path)})
        return
    echo(f"upstream  {made.upstream}{', with heads of pre-training' if made.heads else ''}")
    echo(f"equal     {plural(made.weights, 'weight')} and {plural(made.layers, 'hidden state')} of a clip")
    echo(f"written   {printable(made.path)}")
