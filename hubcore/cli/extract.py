"""`hubcore extract PATH...`: the features of audio files, written to a folder."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hubcore.cli.complete import files, folders, formats, upstreams
from hubcore.cli.echo import echo, echo_json, json_flag
from hubcore.cli.options import option_flag, typed_options
from hubcore.cli.table import format_table
from hubcore.progress import Progress
from hubcore.text import format_bytes, format_duration, plural, printable

if TYPE_CHECKING:
    from hubcore.card import Card
    from hubcore.extract import Summary

_ROWS_SHOWN = 40
"""The final table stops here; the manifest has every row."""
_EXAMPLE = """\b
Example:
  hubcore extract recordings/ --upstream fbank --out features/
  hubcore extract a.wav b.flac -u wav2vec2_base_960 --layers 9 --dtype float16 -o layer9/
  hubcore extract lists/valid.tsv -u hubert_base --layers 1-3 -o features/ --format hdf5
  hubcore extract recordings/ -u hubert_base --mix 9,11 --pool mean -o vectors/
  hubcore extract recordings/ -u ofa_wav2vec2 -O lambd=0.7 -o compressed/
  hubcore extract data/train/ --root /data=/scratch/data -u fbank -o features/
  hubcore extract list.csv --columns path=wav,id=utt,start=from,end=to -u fbank -o features/
  find recordings -name '*.wav' | hubcore extract - -u fbank -o features/"""


@click.command(epilog=_EXAMPLE)
@click.argument("paths", nargs=-1, required=True, metavar="PATH...", shell_complete=files)
@click.option(
    "--upstream", "-u", "name", shell_complete=upstreams, required=True, metavar="NAME", help="A name of `hubcore list`."
)
@click.option(
    "--out", "-o", shell_complete=folders, required=True, metavar="DIR", help="The folder for the features; created if need be."
)
@click.option(
    "--root",
    metavar="R",
    help="The folder that relative paths in lists are below, or OLD=NEW if the corpus lies elsewhere.",
)
@click.option("--columns", metavar="path=P,id=I,...", help="A list's own names of path, id, start, end, duration, channel.")
@click.option("--allow-commands", is_flag=True, help="Run the commands that lists name, as in Kaldi's wav.scp.")
@click.option(
    "--audio",
    type=click.Choice(["libsndfile", "ffmpeg"]),
    default="libsndfile",
    show_default=True,
    help="ffmpeg also decodes m4a, aac, wma, g722 and others; needs hubcore[av].",
)
@click.option("--checkpoint", "-c", shell_complete=files, metavar="C", help="Your own weights: a path, https://... or hf://...")
@click.option(
    "--layers", metavar="LAYERS", help="all, last, 9, block_9, 0,6,12 or 1-3; the card's default, which is mostly all."
)
@click.option(
    "--dtype", type=click.Choice(["float32", "float16", "bfloat16"]), default="float32", show_default=True, help="Stored type."
)
@click.option(
    "--format",
    metavar="NAME",
    shell_complete=formats,
    help="npy (default), safetensors (default from 50,000 files on), hdf5, ark, parquet, webdataset, lhotse, or a plugin's.",
)
@click.option(
    "--mix", metavar="LAYERS", shell_complete=files, help="Write a sum of layers: 9,11, or 9:0.2,11:0.8, or W.safetensors."
)
@click.option("--pool", type=click.Choice(["mean", "mean+std", "max"]), help="Write one vector per file, in one table.")
@click.option(
    "--batch-seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=60.0,
    show_default=True,
    metavar="N",
    help="Audio computed at once.",
)
@click.option(
    "--chunk-seconds",
    type=click.FloatRange(min=0, min_open=True),
    metavar="N",
    help="Compute longer files in chunks of N seconds, in bounded memory; 30 suits most.",
)
@click.option(
    "--overlap-seconds", type=click.FloatRange(min=0), metavar="N", help="Audio computed with a chunk on both sides; 5 mostly."
)
@click.option("--device", default="cpu", show_default=True, help="Where to compute, such as cuda:0.")
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    metavar="N",
    help="Threads that decode audio.",
)
@click.option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="ray: --workers processes on a Ray cluster; needs hubcore[ray].",
)
@click.option(
    "--address", metavar="A", help="A running Ray cluster; default: RAY_ADDRESS, one on this machine, or its processes."
)
@click.option("--shard", metavar="I/N", help="Make one part, such as 0/2; default: that of SLURM's array, torchrun or MPI.")
@click.option("--dry-run", is_flag=True, help="Say how much there is to do and to write, and what cannot be used.")
@click.option("--force-unlock", is_flag=True, help="Ignore the lock file of a run that died on another machine.")
@option_flag()
@json_flag()
def command(
    paths: tuple[str, ...],
    name: str,
    out: str,
    root: str | None,
    columns: str | None,
    allow_commands: bool,
    audio: str,
    checkpoint: str | None,
    device: str,
    engine: str,
    shard: str | None,
    pairs: tuple[str, ...],
    as_json: bool,
    **settings: Any,  # what `extract` takes by the same names
) -> None:
    """Write the features of a corpus to a folder: of audio files, folders of them, lists, tables and archives (PATH...).

    Lists are those of `hubcore manifest` and fairseq (.tsv), of Kaldi (wav.scp or its data folder), NeMo and lhotse (.jsonl),
    tables (.csv, .tsv), Parquet and Arrow files, tar archives, and - for paths on standard input: `hubcore docs corpora`.

    --layers all gives arrays of (layers, frames, width), one layer (last, 9) gives (frames, width), several (0,6,12) are
    stacked. manifest.jsonl in the output folder has one row for each finished file. The same command resumes after an
    interruption. A file that cannot be used harms no other: it is listed at the end and in failures.jsonl, and the exit
    code is 1.
    """
    from hubcore import hub
    from hubcore.corpus import find_utterances
    from hubcore.extract import extract
    from hubcore.extract.journal import Part
    from hubcore.options import once

    options, calls = typed_options(name, checkpoint, pairs)
    if shard is None and engine == "ray":
        shard = "0/1"
    elif shard is None:
        part, launcher = Part.of_launcher(os.environ)
        shard = f"{part.index}/{part.count}"
        if part.count > 1:
            echo(f"this is shard {shard}, by the variables of {launcher}; --shard 0/1 makes everything here", err=True)
    named = find_utterances(
        paths, root=root, columns=named_columns(columns), allow_commands=allow_commands, ffmpeg=audio == "ffmpeg"
    )
    upstream = hub.load(name, checkpoint, device="cpu" if engine == "ray" else device, **options)
    logging.getLogger("hubcore.extract").setLevel(logging.WARNING if as_json else logging.INFO)
    try:
        with Progress("h", say=lambda line: echo(line, err=True), quiet=as_json) as progress:
            summary = extract(
                named,
                upstream,
                out,
                device=device,
                name=upstream.card.name if upstream.card else name,
                call_options=once(calls),
                report=progress,
                shard=shard,
                engine=engine,
                **settings,
            )
    except KeyboardInterrupt:
        echo("what is finished is kept; run the same command again to resume", err=True)
        raise
    _print(summary, upstream.card, as_json)
    if summary.failures:
        click.get_current_context().exit(1)


def named_columns(text: str | None) -> dict[str, str]:
    """The columns that `path=wav,id=utt` names.

    Example:
        >>> named_columns("path=wav,id=utt")
        {'path': 'wav', 'id': 'utt'}
    """
    pairs = [part.partition("=") for part in text.split(",")] if text else []
    if not all(equals for _, equals, _ in pairs):
        raise click.UsageError(f"--columns is {text!r}. Write it as path=wav,id=utt.")
    return {name.strip(): column.strip() for name, _, column in pairs}


def _print(summary: Summary, card: Card | None, as_json: bool) -> None:
    if as_json:
        result = {
            "folder": str(summary.folder),
            "written": list(summary.rows),
            "skipped": summary.skipped,
            "failed": [vars(failure) for failure in summary.failures],
            "audio_seconds": round(summary.audio_seconds, 3),
            "wall_seconds": round(summary.wall_seconds, 3),
            "speed": round(summary.speed, 2),
        }
        echo_json(result | ({"forecast": vars(summary.forecast)} if summary.forecast else {}))
        return
    if summary.forecast:
        forecast, free = summary.forecast, format_bytes(free_space(summary.folder))
        size = "a size that depends on the audio" if forecast.bytes is None else f"about {format_bytes(forecast.bytes)}"
        echo(
            f"{plural(forecast.utterances, 'utterance')} to do, {format_duration(forecast.seconds)} of audio: "
            f"{size} in {plural(forecast.files, 'file')} below {printable(summary.folder)}, where {free} are free; "
            f"{summary.skipped} done before, {len(summary.failures)} cannot be used"
        )
    if summary.rows:
        name = "file" if len({row["file"] for row in summary.rows}) == len(summary.rows) else "utterance"
        rows = [
            (
                row[name],
                f"{row['seconds']:.2f}",
                row["frames"],
                _layers(row["layers"]),
                row["shape"][-1],
                f"{summary.speeds[row['utterance']]:.0f} x real time",
            )
            for row in summary.rows[:_ROWS_SHOWN]
        ]
        headers = [name, "seconds", "frames", "layers", "width", "batch speed"]
        echo(format_table(headers, rows, right=("seconds", "frames", "width", "batch speed")))
        if len(summary.rows) > _ROWS_SHOWN:
            echo(f"... and {len(summary.rows) - _ROWS_SHOWN} more, all of them in manifest.jsonl")
    frames = sum(row["frames"] for row in summary.rows)
    if not summary.forecast:
        echo(
            f"{len(summary.rows)} written to {printable(summary.folder)}, {summary.skipped} done before, "
            f"{len(summary.failures)} failed; {format_duration(summary.audio_seconds)} of audio, {plural(frames, 'frame')}, "
            f"in {summary.wall_seconds:.1f} s ({summary.speed:.1f} x real time)"
        )
    if card is not None and card.note and card.needs_weights:
        echo(f"note: {printable(card.note)}")
    for failure in summary.failures:
        echo(f"failed: {printable(failure.error)}", err=True)


def free_space(folder: Path) -> int:
    """The bytes that are free where a folder is, or is to be."""
    return shutil.disk_usage(next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())).free


def _layers(indices: list[int]) -> str:
    """Indices as `0-12`, or with commas where they are not a run."""
    if len(indices) > 2 and indices == list(range(indices[0], indices[-1] + 1)):
        return f"{indices[0]}-{indices[-1]}"
    return ",".join(map(str, indices))
