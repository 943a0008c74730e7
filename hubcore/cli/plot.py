"""`hubcore plot FILE` draws one recording and what an upstream makes of it; `hubcore plot RUN...` the curves of runs."""

from __future__ import annotations

import io
import itertools
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from hubcore.cli import complete
from hubcore.cli.echo import echo
from hubcore.cli.options import option_flag, typed_options
from hubcore.cli.table import format_table
from hubcore.errors import OptionError
from hubcore.files import write_whole
from hubcore.text import printable

# The same picture must be the same bytes, so no date goes into it.
_METADATA = {".png": {"Software": None}, ".pdf": {"CreationDate": None}, ".svg": {"Date": None}}

_EXAMPLE = """\b
Example:
  hubcore plot speech.wav --upstream ofa_wav2vec2 -O lambd=0.2 -O lambd=1 --out picture.png
  hubcore plot speech.wav -u fbank -o fbank.svg
  hubcore plot runs/tiny runs/other --out curves.png"""


@click.command(epilog=_EXAMPLE)
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
    of several over each other. Needs matplotlib: pip install 'hubcore[plot]'.
    """
    from hubcore.tools.plotting import load_matplotlib

    target = Path(out)
    _check(target)  # before a model is loaded for nothing
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
    _write(lambda: draw_curves(curves), target, STYLE)
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
    _write(lambda: draw(look), target, STYLE)
    for panel in look.panels:
        if isinstance(panel, Spans):
            echo(format_table([panel.label, ""], [(row.label, row.note) for row in panel.rows]))
    echo(f"{printable(target)}: {look.seconds:.2f} s of {printable(file)}")
    if look.note:
        echo(f"note: {look.note}")


def _check(target: Path) -> None:
    """Checks the name and folder of a picture to be written."""
    if target.suffix.lower() not in _METADATA:
        what = f"the picture {printable(target)} has an ending that cannot be drawn."
        raise OptionError(what, fix=f"The formats are {', '.join(_METADATA)}.")
    if target.is_dir() or not target.parent.is_dir():
        reason = "it is a folder" if target.is_dir() else f"there is no folder {printable(target.parent)}"
        what = f"the picture {printable(target)} cannot be written: {reason}."
        raise OptionError(what, fix="Choose another name, or make the folder.")


def _write(draw: Callable[[], Any], target: Path, style: Mapping[str, Any]) -> None:
    """Draws the picture; it appears whole or not at all."""
    from hubcore.tools.plotting import load_matplotlib

    kind, buffer = target.suffix.lower(), io.BytesIO()
    with load_matplotlib("style").context(dict(style), after_reset=True), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # a name in a script that the font lacks
        draw().savefig(buffer, format=kind[1:], metadata=_METADATA[kind])
    try:
        with write_whole(target) as temporary:
            temporary.write_bytes(buffer.getvalue())
    except OSError as error:
        what = f"the picture {printable(target)} cannot be written: {error.strerror or error}. Nothing was changed there."
        raise OptionError(what, fix="Choose a folder that can be written, or make room.") from error
