"""`hubcore plot FILE` draws one recording and what an upstream makes of it; `hubcore plot RUN...` the curves of runs.

`hubcore plot similarity` is in `plot_similarity.py`.
"""

from __future__ import annotations

import itertools
import warnings
from pathlib import Path
from typing import Any

import click

from hubcore.cli import complete
from hubcore.cli.echo import echo
from hubcore.cli.options import option_flag, typed_options
from hubcore.cli.picture import check_picture, write_picture
from hubcore.cli.plot_similarity import command as similarity
from hubcore.cli.table import format_table
from hubcore.errors import OptionError
from hubcore.text import printable

_EXAMPLE = """\b
Example:
  hubcore plot speech.wav --upstream ofa_wav2vec2 -O lambd=0.2 -O lambd=1 --out picture.png
  hubcore plot speech.wav -u fbank -o fbank.svg
  hubcore plot runs/tiny runs/other --out curves.png
  hubcore plot similarity hubert_base --corpus recordings/ --out layers.png"""


class _Plot(click.Command):
    """`similarity` as first word leads to a command of its own; a recording of that name is `./similarity`."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        if args[:1] == ["similarity"]:
            return similarity.make_context(f"{info_name} similarity", args[1:], parent, **extra)
        return super().make_context(info_name, args, parent, **extra)


@click.command(cls=_Plot, epilog=_EXAMPLE)
@click.argument("files", nargs=-1, required=True, metavar="FILE", shell_complete=complete.files)
@click.option(
    "--upstream",
    "-u",
    "name",
    shell_complete=complete.upstreams,
    metavar="NAME",
    help="A name of `hubcore list`; needed for a recording.",
)
@click.option("--out", "-o", required=True, metavar="PICTURE", help="The picture: .png, .pdf or .svg.")
@click.option("--checkpoint", "-c", metavar="C", help="Your own weights: a path, https://... or hf://...")
@option_flag("An option of the upstream, as `hubcore info` lists them; one of a call may be repeated, to compare values.")
def command(files: tuple[str, ...], name: str | None, out: str, checkpoint: str | None, pairs: tuple[str, ...]) -> None:
    """Draw the waveform and the log-mel picture of FILE, and what an upstream makes of it; or the curves of runs.

    An upstream may have panels of its own, such as where its frames begin and end for each value of an option; without
    them, the last hidden state is drawn. Where FILE is a folder that `hubcore pretrain` wrote, its curves are drawn, those
    of several over each other. `hubcore plot similarity` compares layers. Needs matplotlib: pip install 'hubcore[plot]'.
    """
    from hubcore.tools.plotting import load_matplotlib

    target = Path(out)
    check_picture(target)  # before a model is loaded for nothing
    load_matplotlib("figure")
    if any(Path(file).is_dir() for file in files):
        _plot_runs([Path(file) for file in files], target, alone=name is None and checkpoint is None and not pairs)
        return
    if len(files) > 1:
        raise click.UsageError(f"{len(files)} recordings were given. A picture is of one. Draw them one by one.")
    if name is None:
        raise click.UsageError("Missing option '--upstream' / '-u'.")
    _plot_recording(files[0], name, target, checkpoint, pairs)


def _plot_runs(runs: list[Path], target: Path, *, alone: bool) -> None:
    from hubcore.pretrain.curves import draw_curves, is_run, read_curves
    from hubcore.tools.plotting import STYLE

    if not alone:
        raise click.UsageError("--upstream, --checkpoint and -O are for a recording; a run's curves need none of them.")
    for run in runs:
        if not is_run(run):
            raise OptionError(
                f"{printable(run)} is not a run: it has no metrics.jsonl, which `hubcore pretrain` writes.",
                fix="Check the spelling.",
            )
    curves = [read_curves(run) for run in runs]
    write_picture(lambda: draw_curves(curves), target, STYLE)
    last = max(updates[-1] for run in curves for updates, _ in run.series.values())
    echo(f"{printable(target)}: {', '.join(printable(run) for run in runs)}, up to update {last}")


def _plot_recording(file: str, name: str, target: Path, checkpoint: str | None, pairs: tuple[str, ...]) -> None:
    from hubcore import hub
    from hubcore.panels import Spans
    from hubcore.tools.plotting import STYLE, draw, look_at

    options, calls = typed_options(name, checkpoint, pairs, compare=True)
    variants = [dict(zip(calls, values, strict=True)) for values in itertools.product(*calls.values())] if calls else []
    upstream = hub.load(name, checkpoint=checkpoint, **options)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", UserWarning)
        look = look_at(file, upstream, variants=variants, name=upstream.card.name if upstream.card else name)
    for warning in said:
        echo(f"hubcore: {warning.message}", err=True)
    write_picture(lambda: draw(look), target, STYLE)
    for panel in look.panels:
        if isinstance(panel, Spans):
            echo(format_table([panel.label, ""], [(row.label, row.note) for row in panel.rows]))
    echo(f"{printable(target)}: {look.seconds:.2f} s of {printable(file)}")
    if look.note:
        echo(f"note: {look.note}")
