"""`hubcore.units.scoring`: units against a phone alignment."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from hubcore.cli.complete import files
from hubcore.cli.echo import echo, echo_json, json_flag
from hubcore.cli.picture import check_picture, write_picture
from hubcore.cli.table import format_table
from hubcore.text import listed, plural, printable

if TYPE_CHECKING:
    from hubcore.units.scoring import Score

_EXAMPLE = """\b
Example:
  hubcore.units.scoring units.npz --reference alignment/
  hubcore.units.scoring layer_*.npz --reference phones.ctm --ignore SIL --out purity.png
  hubcore.units.scoring train.km --frame-stride 0.02 --reference TIMIT/TRAIN --map phones.60-48-39.map --json"""
_MUCH = 1.25
"""A ratio of lengths beyond which units and alignments are not of the same audio."""


@click.command("score", epilog=_EXAMPLE)
@click.argument("paths", nargs=-1, required=True, metavar="UNITS...", shell_complete=files)
@click.option(
    "--reference", "-r", required=True, metavar="ALIGNMENT", shell_complete=files, help=".TextGrid, .ctm, .phn, or a folder."
)
@click.option("--tier", metavar="NAME", help="The tier of TextGrids; default: the only one, or the one of phones.")
@click.option(
    "--sample-rate", type=click.IntRange(min=1), default=16000, show_default=True, metavar="HZ", help="That of .phn files."
)
@click.option(
    "--frame-stride",
    type=click.FloatRange(min=0, min_open=True),
    metavar="S",
    help="Seconds between frames, for units without times (text, km).",
)
@click.option("--ignore", multiple=True, metavar="LABEL", help="A label to leave out, such as SIL; may be repeated.")
@click.option("--map", "change", metavar="FILE", shell_complete=files, help="Labels to change: Kaldi's form, old ... new.")
@click.option("--out", "-o", metavar="PICTURE", help="Draw P(phone | unit): .png, .pdf or .svg; needs hubcore[plot].")
@json_flag()
def score_command(
    paths: tuple[str, ...],
    reference: str,
    tier: str | None,
    sample_rate: int,
    frame_stride: float | None,
    ignore: tuple[str, ...],
    change: str | None,
    out: str | None,
    as_json: bool,
) -> None:
    """Compare units with a phone alignment, frame by frame: phone purity, cluster purity and PNMI (HuBERT, section IV.B).

    PNMI is the part of what there is to know about a frame's phone that its unit tells, from 0 to 1. Cluster purity falls with
    the number of units; compare it among equal numbers. Utterances are matched by name; those on one side only are named.
    """
    from hubcore.units import read_alignment, read_units
    from hubcore.units.scoring import draw_scores, read_changes, score

    if out is not None:
        check_picture(Path(out))
    given = read_alignment(reference, tier=tier, sample_rate=sample_rate)
    changes = read_changes(change) if change is not None else {}
    names = [Path(path).stem for path in paths]
    names = names if len(set(names)) == len(names) else [*paths]
    scores = {
        name: score(read_units(path), given, frame_stride=frame_stride, change=changes, ignore=ignore)
        for name, path in zip(names, paths, strict=True)
    }
    for name, one in scores.items():
        _warn(name, one)
    if as_json:
        echo_json([_as_json(path, one) for path, one in zip(paths, scores.values(), strict=True)])
    else:
        _print(scores)
    if out is not None:
        from hubcore.tools.plotting import STYLE

        write_picture(lambda: draw_scores(scores), Path(out), STYLE)


def _print(scores: dict[str, Score]) -> None:
    headers = ["units", "phone purity", "cluster purity", "PNMI", "units used", "phones", "frames"]
    rows = [
        (name, *(f"{value:.4f}" for value in one.measures), len(one.units), len(one.phones), one.frames)
        for name, one in scores.items()
    ]
    echo(format_table(headers, rows, right=headers[1:], whole=headers[:1]))
    told: dict[str, list[str]] = {}  # once for all units of which the same is to be said
    for name, one in scores.items():
        about = plural(one.utterances, "utterance")
        for missing, what in ((one.without_reference, "an alignment"), (one.without_units, "units")):
            about += f"; {len(missing)} without {what}" + (f" ({listed(map(printable, missing))})" if missing else "")
        told.setdefault(f"{about}; {plural(one.unlabelled, 'frame')} without a label", []).append(printable(name))
    for about, names in told.items():
        echo(f"{', '.join(names)}: {about}")


def _warn(name: str, one: Score) -> None:
    if 1 / _MUCH < one.covered_seconds / max(one.aligned_seconds, 1e-9) < _MUCH:
        return
    lengths = f"units last {one.covered_seconds:.1f} s, and the labels of these utterances {one.aligned_seconds:.1f} s"
    hint = "check the frame stride; a text of deduplicated units has no durations"
    echo(f"hubcore: {printable(name)}: {lengths}: {hint}", err=True)


def _as_json(path: str, one: Score) -> dict[str, object]:
    return {
        "file": path,
        **one.measures._asdict(),
        "frames": one.frames,
        "unlabelled": one.unlabelled,
        "utterances": one.utterances,
        "without_reference": one.without_reference,
        "without_units": one.without_units,
        "aligned_seconds": one.aligned_seconds,
        "covered_seconds": one.covered_seconds,
        "phones": one.phones,
        "units": one.units,
        "counts": one.counts.tolist(),
    }
