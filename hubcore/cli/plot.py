"""`hubcore plot FILE`: a picture of one recording and of what an upstream makes of it."""

from __future__ import annotations

import warnings

import click

from hubcore.cli.table import format_table
from hubcore.text import printable

_EXAMPLE = """\b
Example:
  hubcore plot speech.wav --upstream ofa_wav2vec2 --lambd 0.2,0.5,1.0 --out picture.png
  hubcore plot speech.wav -u fbank -o fbank.svg"""


class _Lambdas(click.ParamType[tuple[float, ...]]):
    """Numbers with commas between."""

    name = "L,L,..."

    def convert(
        self, value: str | tuple[float, ...], param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, ...]:
        """The numbers; anything else is bad usage."""
        if isinstance(value, tuple):
            return value
        try:
            return tuple(float(part) for part in value.split(","))
        except ValueError:
            self.fail(f"{value!r} is not a list of numbers such as 0.2,0.5,1.0.", param, ctx)


@click.command(epilog=_EXAMPLE)
@click.argument("file")
@click.option("--upstream", "-u", "name", required=True, metavar="NAME", help="A name of `hubcore list`.")
@click.option("--out", "-o", required=True, metavar="PICTURE", help="The picture: .png, .pdf or .svg.")
@click.option("--checkpoint", "-c", metavar="C", help="Your own weights: a path, https://... or hf://...")
@click.option("--lambd", "lambds", type=_Lambdas(), default=(), metavar="L,L,...", help="Frame rates to compare.")
def command(file: str, name: str, out: str, checkpoint: str | None, lambds: tuple[float, ...]) -> None:
    """Draw the waveform and the log-mel picture of FILE, and what an upstream makes of it.

    With --lambd, for upstreams that have one: alpha, and where the frames begin and end at each lambda. Without: the last
    hidden state. Needs matplotlib: pip install 'hubcore[plot]'.
    """
    from hubcore import hub
    from hubcore.plotting import check_target, look_at, save_picture

    check_target(out)  # before a model is loaded for nothing
    upstream = hub.load(name, checkpoint=checkpoint)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", UserWarning)
        look = look_at(file, upstream, lambds=lambds, name=upstream.card.name if upstream.card else name)
    for warning in said:
        click.echo(f"hubcore: {warning.message}", err=True)
    save_picture(look, out)
    if look.segments:
        rows = [(f"{found.lambd:g}", found.frames, f"{found.mean_period_ms:.1f}") for found in look.segments]
        headers = ["lambda", "frames", "mean period, ms"]
        click.echo(format_table(headers, rows, right=headers))
    click.echo(f"{printable(out)}: {look.seconds:.2f} s of {printable(file)}")
    if look.note:
        click.echo(f"note: {look.note}")
