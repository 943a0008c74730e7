"""`hubcore units import`: centroids of another program as a codebook."""

from __future__ import annotations

import click

from hubcore.cli.complete import files, upstreams
from hubcore.cli.echo import echo
from hubcore.cli.options import option_flag, typed_options
from hubcore.text import printable

_EXAMPLE = """\b
Example:
  hubcore units import km100.bin --upstream hubert_base --layer 6 --out km100.safetensors
  hubcore units import kmeans.pt -u hubert_base -c mine.pt --layer 7 --out codebook.safetensors"""


@click.command("import", epilog=_EXAMPLE)
@click.argument("foreign", metavar="FOREIGN", shell_complete=files)
@click.option("--upstream", "-u", "name", required=True, shell_complete=upstreams, metavar="NAME", help="Of `hubcore list`.")
@click.option("--layer", required=True, metavar="LAYER", help="A hidden state, by number or name, such as 9 or block_9.")
@click.option("--out", "-o", required=True, metavar="CODEBOOK", help="The codebook, a .safetensors file.")
@click.option("--checkpoint", "-c", shell_complete=files, metavar="C", help="Your own weights: a path, https://, hf://.")
@option_flag()
def import_command(foreign: str, name: str, layer: str, out: str, checkpoint: str | None, pairs: tuple[str, ...]) -> None:
    """Make a codebook of the centroids in FOREIGN, which another program wrote.

    FOREIGN is a k-means of scikit-learn by joblib or pickle, as fairseq and textless publish them (.bin, .pkl, .km), a tensor
    or a dict with one by torch.save (.pt), or an array (.npy). It is read as data: nothing in it runs. It does not say what it
    was made with: name the upstream, the checkpoint and the layer as its authors do. `hubcore docs hidden_states` has the
    number of a layer in fairseq, transformers and s3prl beside ours.
    """
    from hubcore import hub
    from hubcore.options import once
    from hubcore.units import import_codebook

    options, calls = typed_options(name, checkpoint, pairs)
    upstream = hub.load(name, checkpoint, **options)
    known = upstream.card.name if upstream.card else name
    codebook = import_codebook(foreign, upstream, layer, name=known, call_options=once(calls))
    codebook.save(out)
    echo(f"{printable(out)}: {codebook.extra_repr()}, from {printable(foreign)}")
