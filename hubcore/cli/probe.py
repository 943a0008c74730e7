"""`hubcore probe FEATURES`: small classifiers on frozen features, for each layer, and how well they do."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hubcore.cli import complete
from hubcore.cli.echo import echo, echo_json, json_flag
from hubcore.cli.options import option_flag, typed_options
from hubcore.cli.picture import check_picture, write_picture
from hubcore.cli.table import format_table
from hubcore.errors import OptionError
from hubcore.progress import Progress
from hubcore.text import listed, plural, printable

if TYPE_CHECKING:
    from hubcore.probes import Labels, Report

_EXAMPLE = """\b
Example:
  hubcore probe features/ --labels labels.csv --task classify --out probes/
  hubcore probe recordings/ -u hubert_base --labels ages.csv --task regress --layers weighted -o ages/
  hubcore probe features/ --labels texts.csv --task ctc --layers 9 --hidden 256 --group speaker -o ctc/
  hubcore probe features/ --labels labels.csv --task classify --plot layers.png -o probes/"""


@click.command(epilog=_EXAMPLE)
@click.argument("paths", nargs=-1, required=True, metavar="FEATURES|AUDIO...", shell_complete=complete.files)
@click.option(
    "--labels", required=True, metavar="TABLE", shell_complete=complete.files, help="CSV: utterance,label[,speaker][,split]."
)
@click.option(
    "--task", type=click.Choice(["classify", "regress", "ctc"]), required=True, help="Labels: classes, numbers, or texts."
)
@click.option("--out", "-o", required=True, metavar="DIR", shell_complete=complete.folders, help="The folder for the probes.")
@click.option(
    "--layers", default="each", show_default=True, metavar="LAYERS", help="each, weighted (a learned sum), or 9, 0,6."
)
@click.option(
    "--hidden", type=click.IntRange(1, 65536), metavar="N", help="Add a hidden layer of N numbers; else it is linear."
)
@click.option("--group", metavar="COLUMN", help="No group of it is in two parts; speaker, if there is that column.")
@click.option("--seeds", type=click.IntRange(min=1), default=3, show_default=True, metavar="N", help="Trainings of each layer.")
@click.option("--pool", type=click.Choice(["mean", "mean+std", "max"]), help="One vector of the frames; mean, if not given.")
@click.option("--tokens", type=click.Choice(["characters", "phones"]), default="characters", help="Pieces of texts (ctc).")
@click.option(
    "--learning-rate",
    type=click.FloatRange(min=0, min_open=True),
    default=0.01,
    show_default=True,
    metavar="R",
    help="Of Adam.",
)
@click.option(
    "--epochs", type=click.IntRange(min=1), default=200, show_default=True, metavar="N", help="Of a training, at most."
)
@click.option(
    "--patience", type=click.IntRange(min=1), default=20, show_default=True, metavar="N", help="Epochs without gain, then stop."
)
@click.option("--batch", type=click.IntRange(min=1), default=64, show_default=True, metavar="N", help="Utterances at once.")
@click.option(
    "--batch-frames", type=click.IntRange(min=1), default=4000, show_default=True, metavar="N", help="The same of ctc."
)
@click.option("--plot", metavar="PICTURE", help="Draw the scores by layer: .png, .pdf or .svg. Needs hubcore[plot].")
@click.option("--device", default="cpu", show_default=True, help="Where to compute, such as cuda:0.")
@click.option("--upstream", "-u", "name", shell_complete=complete.upstreams, metavar="NAME", help="Of audio: the upstream.")
@click.option("--checkpoint", "-c", shell_complete=complete.files, metavar="C", help="Of audio: your own weights.")
@click.option(
    "--audio", type=click.Choice(["libsndfile", "ffmpeg"]), default="libsndfile", help="Of audio: the decoder, as in extract."
)
@option_flag()
@json_flag()
def command(
    paths: tuple[str, ...],
    labels: str,
    task: str,
    out: str,
    layers: str,
    hidden: int | None,
    group: str | None,
    seeds: int,
    pool: str | None,
    tokens: str,
    learning_rate: float,
    epochs: int,
    patience: int,
    batch: int,
    batch_frames: int,
    plot: str | None,
    device: str,
    name: str | None,
    checkpoint: str | None,
    audio: str,
    pairs: tuple[str, ...],
    as_json: bool,
) -> None:
    """Train a probe for each layer on frozen features, and measure it on utterances of other groups.

    FEATURES is a folder of `hubcore extract`. AUDIO is what that command takes, and needs --upstream: the features of
    labelled utterances are written to DIR/features, one vector for each (of ctc all frames).

    Every seed draws a train, a validation and a test part (70, 10 and 20 %) that share no group, or takes those of a column
    split (train, valid, test). Scores have 95 % intervals, from a bootstrap over groups. DIR gets a .safetensors file of each
    probe, for hubcore.probes.load, and report.json.
    """
    from hubcore import features, probes
    from hubcore.probes.report import draw_report

    if plot is not None:
        from hubcore.tools.plotting import STYLE, load_matplotlib

        check_picture(Path(plot))
        load_matplotlib("figure")
    recipe = probes.Recipe(hidden, seeds, learning_rate, epochs, patience, batch, batch_frames)
    known = probes.read_labels(labels, task, group)
    if len(paths) == 1 and (Path(paths[0]) / "run.json").exists():
        if name is not None or checkpoint is not None or pairs:
            raise click.UsageError("--upstream, --checkpoint and -O are for audio; a folder of features has its upstream.")
        folder = paths[0]
    elif name is None:
        raise click.UsageError("Missing option '--upstream' / '-u', which audio needs; a folder of features has a run.json.")
    else:
        folder = str(Path(out) / "features")
        _extract(paths, known, folder, name, checkpoint, pairs, layers, pool, audio, device, quiet=as_json)
    with Progress("training", say=lambda line: echo(line, err=True), quiet=as_json) as progress:
        found = probes.train_probes(
            features.open(folder),
            known,
            out,
            layers=layers,
            recipe=recipe,
            pool=pool,
            tokens=tokens,
            device=device,
            report=progress,
        )
    if plot is not None:
        write_picture(lambda: draw_report(found), Path(plot), STYLE)
    if as_json:
        echo_json(found.plain())
    else:
        _print(found, out)


def _extract(
    paths: tuple[str, ...],
    labels: Labels,
    folder: str,
    name: str,
    checkpoint: str | None,
    pairs: tuple[str, ...],
    layers: str,
    pool: str | None,
    audio: str,
    device: str,
    *,
    quiet: bool,
) -> None:
    """Writes the features of labelled utterances, those that are there already aside."""
    from hubcore import hub
    from hubcore.corpus import find_utterances
    from hubcore.extract import extract
    from hubcore.options import once

    options, calls = typed_options(name, checkpoint, pairs)
    every = find_utterances(paths, ffmpeg=audio == "ffmpeg")
    wanted = [utterance for utterance in every if utterance.name in labels.targets]
    if not wanted:
        ours, theirs = (listed(map(printable, names), 3) for names in (labels.targets, (one.name for one in every)))
        what = f"no utterance has a label: labels are of {ours}; the audio is of {theirs}."
        raise OptionError(what, fix="Names of files are paths below the folder without the ending: `hubcore docs corpora`.")
    upstream = hub.load(name, checkpoint, device=device, **options)
    logging.getLogger("hubcore.extract").setLevel(logging.WARNING if quiet else logging.INFO)
    with Progress("h", say=lambda line: echo(line, err=True), quiet=quiet) as progress:
        summary = extract(
            wanted,
            upstream,
            folder,
            layers="all" if layers in ("each", "weighted") else layers,
            pool=None if labels.task == "ctc" else pool or "mean",
            name=upstream.card.name if upstream.card else name,
            call_options=once(calls),
            report=progress,
        )
    for failure in summary.failures:
        echo(f"failed: {printable(failure.error)}", err=True)


def _print(report: Report, out: str) -> None:
    """The table, and below it what was tested."""
    measures = [*report.layers[0].scores]
    rows: list[list[str]] = []
    for layer in report.layers:
        cells = (f"{_number(one.value)} ({_number(one.low)} to {_number(one.high)})" for one in layer.scores.values())
        rows.append([layer.name, *cells, ", ".join(map(str, layer.epochs))])
    chances = [[_number(one.chance) for one in layer.scores.values()] for layer in report.layers]
    rows.append(["chance", *chances[0], ""])
    echo(format_table(["layer", *measures, "epochs"], rows))
    for layer in report.layers:
        if layer.weights:
            echo(format_table(["layer", "weight"], [(name, f"{weight:.3f}") for name, weight in layer.weights.items()]))
    parts = ", ".join(f"{count} {part} ({plural(report.groups[part], 'group')})" for part, count in report.parts.items())
    echo(f"{report.upstream}: {parts}; groups by {report.group}, {plural(report.seeds, 'seed')}")
    if report.left_out:
        echo("left out: " + ", ".join(f"{count} {reason}" for reason, count in report.left_out.items()))
    echo(f"best: {printable(report.best.name)}, in {printable(Path(out) / report.best.file)}")


def _number(value: float) -> str:
    return f"{value:.3f}" if abs(value) < 1000 else f"{value:.4g}"
