"""`hubcore units ...`: discrete units of speech, from a codebook of centroids."""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from hubcore.cli.complete import files, upstreams
from hubcore.cli.echo import echo, echo_json, json_flag
from hubcore.cli.extract import named_columns
from hubcore.cli.options import option_flag, typed_options
from hubcore.cli.picture import check_picture, write_picture
from hubcore.cli.units_import import import_command
from hubcore.cli.units_score import score_command
from hubcore.errors import OptionError
from hubcore.files import write_whole
from hubcore.progress import Progress
from hubcore.text import plural, printable

if TYPE_CHECKING:
    from hubcore.features import FeatureFolder
    from hubcore.protocol import Upstream
    from hubcore.units import Fitted

_Command = TypeVar("_Command", bound=Callable[..., Any])
_EXAMPLE = """\b
Example:
  hubcore units fit recordings/ -u hubert_base --layer 9 --clusters 500 --out km500.safetensors
  hubcore units apply km500.safetensors recordings/ --out units.txt --deduplicate"""
_FIT_EXAMPLE = """\b
Example:
  hubcore units fit recordings/ -u hubert_base --layer 9 --clusters 500 --out km500.safetensors
  hubcore units fit features/ --layer 9 --clusters 100 --seed 1 --out km100.safetensors --curve km100.png
  hubcore units fit recordings/ -u fbank --clusters 100 --normalize standard --out fbank.safetensors"""
_APPLY_EXAMPLE = """\b
Example:
  hubcore units apply km500.safetensors recordings/ --out units.npz --deduplicate
  hubcore units apply km500.safetensors features/ --out units.parquet
  hubcore units apply km500.safetensors train.tsv --out labels/train.km
  hubcore units apply km500.safetensors recordings/ --out units.txt --shard 0/2"""


@click.group(epilog=_EXAMPLE)
def command() -> None:
    """Make discrete units: fit centroids to the frames of a layer, and number each frame by its nearest one."""


command.add_command(import_command)
command.add_command(score_command)


def _of_audio(*, fit: bool) -> Callable[[_Command], _Command]:
    """The options of both commands that say how audio is found and computed."""
    upstream = "A name of `hubcore list`; needed for audio." if fit else "A name of `hubcore list`; the codebook's own."
    options = [
        click.option("--upstream", "-u", "name", shell_complete=upstreams, metavar="NAME", help=upstream),
        click.option(
            "--checkpoint", "-c", shell_complete=files, metavar="C", help="Your own weights: a path, https://, hf://."
        ),
        option_flag(),
        click.option("--root", metavar="R", help="The folder that relative paths in lists are below, or OLD=NEW."),
        click.option("--columns", metavar="path=P,id=I,...", help="A list's own names of its columns."),
        click.option("--allow-commands", is_flag=True, help="Run the commands that lists name, as in Kaldi's wav.scp."),
        click.option(
            "--audio", type=click.Choice(["libsndfile", "ffmpeg"]), default="libsndfile", help="ffmpeg needs hubcore[av]."
        ),
        click.option(
            "--batch-seconds",
            type=click.FloatRange(min=0, min_open=True),
            default=60.0,
            show_default=True,
            metavar="N",
            help="Audio computed at once.",
        ),
        click.option(
            "--chunk-seconds",
            type=click.FloatRange(min=0, min_open=True),
            metavar="N",
            help="Compute longer files in chunks of N seconds.",
        ),
        click.option("--device", default="cpu", show_default=True, help="Where to compute, such as cuda:0."),
        click.option(
            "--workers",
            type=click.IntRange(min=1),
            default=1,
            show_default=True,
            metavar="N",
            help="Threads that decode audio.",
        ),
        json_flag("lines"),
    ]

    def decorate(function: _Command) -> _Command:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


@command.command("fit", epilog=_FIT_EXAMPLE)
@click.argument("paths", nargs=-1, required=True, metavar="FEATURES_OR_AUDIO...", shell_complete=files)
@click.option("--layer", metavar="LAYER", help="A hidden state, by number or name, such as 9 or block_9.")
@click.option("--clusters", type=click.IntRange(min=1), required=True, metavar="K", help="The number of centroids.")
@click.option("--out", "-o", required=True, metavar="FILE", help="The codebook, a .safetensors file.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of all that is random.")
@click.option(
    "--passes", type=click.IntRange(min=0), default=1, show_default=True, help="Passes over all frames after the sample."
)
@click.option(
    "--sample-frames", type=click.IntRange(min=1), metavar="N", help="Frames of the sample in memory; 256 per centroid."
)
@click.option(
    "--normalize",
    type=click.Choice(["none", "standard"]),
    default="none",
    show_default=True,
    help="standard: mean 0 and deviation 1 in each dimension; for filter banks.",
)
@click.option(
    "--curve", shell_complete=files, metavar="FILE", help="Draw or write the distance by step: .png, .svg, .pdf, .json."
)
@_of_audio(fit=True)
def fit_command(
    paths: tuple[str, ...],
    layer: str | None,
    clusters: int,
    out: str,
    seed: int,
    passes: int,
    sample_frames: int | None,
    normalize: str,
    curve: str | None,
    name: str | None,
    checkpoint: str | None,
    pairs: tuple[str, ...],
    root: str | None,
    columns: str | None,
    allow_commands: bool,
    audio: str,
    batch_seconds: float,
    chunk_seconds: float | None,
    device: str,
    workers: int,
    as_json: bool,
) -> None:
    """Fit centroids to the frames of one layer, of a corpus of audio or a folder of `hubcore extract`, by k-means.

    A first pass draws a sample, from which the centroids start; another one moves them by each frame. Memory holds the sample
    and the model, however long the corpus is. Of audio no feature is stored, but each pass computes them.
    """
    from hubcore.options import once
    from hubcore.units import AudioFrames, FolderFrames, fit
    from hubcore.units.frames import FrameSource

    if not Path(out).absolute().parent.is_dir():
        raise OptionError(f"there is no folder {printable(Path(out).parent)} for the codebook.", fix="Make it first.")
    if curve is not None:
        check_picture(Path(curve).with_suffix(".png") if curve.endswith(".json") else Path(curve))
    folder = _features(paths)
    with _reporting(as_json) as progress:
        source: FrameSource
        if folder is not None:
            source = FolderFrames(folder, layer, upstream=_load(name, checkpoint, pairs, device)[0] if name else None)
        elif name is None:
            raise click.UsageError("Missing option '--upstream' / '-u': it says what computes the features of audio.")
        else:
            found = _utterances(paths, root, columns, allow_commands, audio)
            upstream, calls = _load(name, checkpoint, pairs, device)
            source = AudioFrames(
                found,
                upstream,
                layer,
                name=upstream.card.name if upstream.card else name,
                batch_seconds=batch_seconds,
                chunk_seconds=chunk_seconds,
                workers=workers,
                device=device,
                call_options=once(calls),
            )
        fitted = fit(
            source,
            clusters=clusters,
            seed=seed,
            passes=passes,
            sample_frames=sample_frames,
            normalize=normalize,
            device=device,
            report=progress,
        )
    fitted.codebook.save(out)
    points = [point._asdict() for point in fitted.curve]
    if curve is not None:
        _write_curve(fitted, Path(curve), points)
    failed = [vars(failure) for failure in fitted.failures]
    if as_json:
        layer_name = fitted.codebook.layer_name
        echo_json({**fitted.codebook.fitted, "codebook": out, "layer": layer_name, "curve": points, "failed": failed})
    else:
        about = f"{fitted.codebook.extra_repr()}, from {plural(fitted.frames, 'frame')}"
        echo(f"{printable(out)}: {about}; mean squared distance {fitted.codebook.fitted['inertia']:.5g}")
    _end(failed)


@command.command("apply", epilog=_APPLY_EXAMPLE)
@click.argument("codebook", metavar="CODEBOOK", shell_complete=files)
@click.argument("paths", nargs=-1, required=True, metavar="FEATURES_OR_AUDIO...", shell_complete=files)
@click.option("--out", "-o", required=True, metavar="FILE", help="The file of units: .npz, .parquet, .txt or .km.")
@click.option(
    "--format", type=click.Choice(["npz", "parquet", "text", "km"]), help="If the file's ending does not say it; km: fairseq's."
)
@click.option("--deduplicate", is_flag=True, help="Write each run of one unit once, with its duration in frames.")
@click.option("--layer", metavar="LAYER", help="Which codebook of a card, if CODEBOOK is a name of `hubcore list`.")
@click.option("--shard", metavar="I/N", help="Make one part of the audio, such as 0/2; default: that of the launcher.")
@click.option("--force-unlock", is_flag=True, help="Ignore the lock file of a run that died on another machine.")
@_of_audio(fit=False)
def apply_command(
    codebook: str,
    paths: tuple[str, ...],
    out: str,
    format: str | None,
    deduplicate: bool,
    layer: str | None,
    shard: str | None,
    force_unlock: bool,
    name: str | None,
    checkpoint: str | None,
    pairs: tuple[str, ...],
    root: str | None,
    columns: str | None,
    allow_commands: bool,
    audio: str,
    batch_seconds: float,
    chunk_seconds: float | None,
    device: str,
    workers: int,
    as_json: bool,
) -> None:
    """Write the units of a corpus of audio, or of a folder of `hubcore extract`, to one file.

    A codebook that was made with another upstream, checkpoint, layer or option is refused. Frame times and durations are in
    .npz and .parquet. Units of audio that are finished are kept in OUT.work until all are there: the same command resumes, and
    the last one of several parts (--shard) writes the file.
    """
    from hubcore.extract.journal import Part
    from hubcore.options import once
    from hubcore.units import apply, load
    from hubcore.units.files import format_of

    format_of(out, format)
    book, folder = load(codebook, layer=layer), _features(paths)
    if folder is not None:
        done = apply(book.to(device), folder, out, format=format, deduplicate=deduplicate, shard=shard or "0/1")
    else:
        if shard is None:
            part, launcher = Part.of_launcher(os.environ)
            shard = f"{part.index}/{part.count}"
            if part.count > 1:
                echo(f"this is shard {shard}, by the variables of {launcher}; --shard 0/1 makes everything here", err=True)
        found = _utterances(paths, root, columns, allow_commands, audio)
        upstream, calls = _load(name or book.record.settings["upstream"], checkpoint, pairs, device)
        with _reporting(as_json, kept="what is finished is kept; run the same command again to resume") as progress:
            done = apply(
                book,
                found,
                out,
                upstream=upstream,
                format=format,
                deduplicate=deduplicate,
                shard=shard,
                name=upstream.card.name if upstream.card else name,
                batch_seconds=batch_seconds,
                chunk_seconds=chunk_seconds,
                workers=workers,
                device=device,
                call_options=once(calls),
                force_unlock=force_unlock,
                report=progress,
            )
    failed = [vars(failure) for failure in done.failures]
    if as_json:
        echo_json({**vars(done), "file": out, "failures": failed})
    elif done.written:
        echo(f"{printable(out)}: {plural(done.units, 'unit')} of {plural(done.utterances, 'utterance')}, {len(failed)} failed")
    else:
        told = f"{plural(done.utterances, 'utterance')} done of this part, {len(failed)} failed"
        echo(f"{told}; the last part writes {printable(out)}")
    _end(failed)


def _features(paths: tuple[str, ...]) -> FeatureFolder | None:
    """The folder of features that is given; None for audio."""
    from hubcore import features
    from hubcore.tools.frames import is_features

    folders = [path for path in paths if is_features(path)]
    if not folders:
        return None
    if len(paths) > 1:
        raise click.UsageError(f"{folders[0]} is a folder of features. Give it alone.")
    return features.open(folders[0])


def _utterances(paths: tuple[str, ...], root: str | None, columns: str | None, allow_commands: bool, audio: str) -> Any:
    from hubcore.corpus import find_utterances

    named = named_columns(columns)
    return find_utterances(paths, root=root, columns=named, allow_commands=allow_commands, ffmpeg=audio == "ffmpeg")


def _load(name: str, checkpoint: str | None, pairs: tuple[str, ...], device: str) -> tuple[Upstream, Mapping[str, list[Any]]]:
    from hubcore import hub

    options, calls = typed_options(name, checkpoint, pairs)
    return hub.load(name, checkpoint, device=device, **options), calls


@contextlib.contextmanager
def _reporting(quiet: bool, kept: str = "") -> Iterator[Progress]:
    logging.getLogger("hubcore.extract").setLevel(logging.WARNING if quiet else logging.INFO)
    try:
        with Progress("h", say=lambda line: echo(line, err=True), quiet=quiet) as progress:
            yield progress
    except KeyboardInterrupt:
        if kept:
            echo(kept, err=True)
        raise


def _write_curve(fitted: Fitted, target: Path, points: list[dict[str, Any]]) -> None:
    from hubcore.tools.plotting import STYLE
    from hubcore.units.fitting import draw_curve

    if target.suffix != ".json":
        write_picture(lambda: draw_curve(fitted), target, STYLE)
        return
    try:
        with write_whole(target) as temporary:
            temporary.write_text(json.dumps(points, indent=2) + "\n", encoding="ascii")
    except OSError as error:
        what = f"{printable(target)} cannot be written: {error.strerror or error}."
        raise OptionError(what, fix="Choose a folder that can be written.") from error


def _end(failed: list[dict[str, Any]]) -> None:
    for failure in failed:
        echo(f"failed: {printable(failure['error'])}", err=True)
    if failed:
        click.get_current_context().exit(1)
