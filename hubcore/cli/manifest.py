"""`hubcore manifest DIR`: the lists of audio files that pre-training reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from hubcore.cli.complete import folders
from hubcore.cli.echo import echo, echo_json, json_flag
from hubcore.cli.table import format_table
from hubcore.progress import Progress
from hubcore.text import format_duration, plural, printable

if TYPE_CHECKING:
    from pathlib import Path

    from hubcore.corpus import Built, LeftOut

_SHOWN = 20
"""Files left out that are shown; the .tsv files have all."""

_EXAMPLE = """\b
Example:
  hubcore manifest recordings/ --dest lists/
  hubcore manifest LibriSpeech/ --dest lists/ --ext flac --path-must-contain train- --min-seconds 2"""


@click.command(epilog=_EXAMPLE)
@click.argument("folder", metavar="DIR", shell_complete=folders)
@click.option("--dest", "-d", required=True, metavar="D", help="The folder for train.tsv and valid.tsv; created if need be.")
@click.option("--ext", default="flac,wav", show_default=True, metavar="E,E", help="Endings of the files to list.")
@click.option(
    "--valid-percent", default=0.01, show_default=True, metavar="P", help="Share of files for valid.tsv, 0 to 1, as in fairseq."
)
@click.option("--seed", default=42, show_default=True, metavar="N", help="Decides which files those are.")
@click.option("--path-must-contain", metavar="S", help="List only files with S in their path below DIR.")
@click.option("--min-seconds", type=click.FloatRange(min=0), default=0.0, metavar="S", help="Leave out shorter files.")
@click.option("--max-seconds", type=click.FloatRange(min=0), metavar="S", help="Leave out longer files.")
@click.option("--sample-rate", default=16000, show_default=True, metavar="HZ", help="Leave out, and tell, files of another.")
@click.option("--workers", type=click.IntRange(min=1), metavar="N", help="Threads that read headers; one for each processor.")
@json_flag()
def command(
    folder: str,
    dest: str,
    ext: str,
    as_json: bool,
    **settings: Any,  # what `build_manifest` takes by the same names
) -> None:
    """List the audio files below DIR with their lengths, in fairseq's format: D/train.tsv and D/valid.tsv.

    The lists are sorted, and which file is for validation depends on its path and the seed only: the same folder gives the
    same lists. Files that cannot be read are told in D/unreadable.tsv, files of another sample rate in D/other_rate.tsv; the
    exit code is then 1. Audio files of other endings than --ext are told in D/other_ending.tsv.
    """
    from hubcore.corpus import build_manifest, write_built

    with Progress("file", quiet=as_json) as progress:
        built = build_manifest(
            folder,
            extensions=ext.split(","),
            report=progress,
            **settings,
        )
    files = write_built(built, dest)
    _print(built, files, as_json)
    if built.unreadable or built.other_rate:
        click.get_current_context().exit(1)


def _print(built: Built, files: dict[str, Path], as_json: bool) -> None:
    lists = [("train.tsv", built.train), *([("valid.tsv", built.valid)] if built.valid is not None else [])]
    if as_json:
        result: dict[str, object] = {
            "root": printable(built.train.root),
            "files": {name: printable(path) for name, path in files.items()},
            "counts": dict(built.counts()),
            "seconds": {name: round(manifest.seconds(built.sample_rate), 3) for name, manifest in lists},
        }
        for name, left_out in built.told().items():
            result[name] = [{"path": printable(file.path), "reason": printable(file.reason)} for file in left_out]
        echo_json(result)
        return
    rows = [
        (printable(files[name]), len(manifest), format_duration(manifest.seconds(built.sample_rate)))
        for name, manifest in lists
    ]
    echo(format_table(["list", "files", "audio"], rows, right=("files", "audio")))
    counts = {"shorter": built.too_short, "longer": built.too_long, "without that text in the path": built.without_text}
    told = [f"{count} {what}" for what, count in counts.items() if count]
    if told:
        echo(f"left out as asked: {', '.join(told)}")
    if built.valid is not None and not built.valid.entries:
        echo("note: no file fell to validation; raise --valid-percent, or take another --seed", err=True)
    _tell("cannot be used", built.unreadable, "unreadable.tsv")
    _tell(
        f"are not of {built.sample_rate} Hz and not listed, since training resamples nothing; convert them first",
        built.other_rate,
        "other_rate.tsv",
    )
    _tell("have an ending that --ext does not name", built.other_ending, "other_ending.tsv")


def _tell(what: str, left_out: tuple[LeftOut, ...], where: str) -> None:
    if not left_out:
        return
    echo(f"{plural(len(left_out), 'file')} that {what}, all of them in {where}:", err=True)
    for file in left_out[:_SHOWN]:
        echo(f"  {printable(file.path)!r}: {printable(file.reason)}", err=True)
