"""`find_utterances`: the utterances that paths mean, whatever the form of the corpus."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import cast

from hubcore.audio import check_exist, full_name
from hubcore.corpus.found import Found, name_apart
from hubcore.corpus.inputs.archive import read_archive
from hubcore.corpus.inputs.arrow import dataset_files, read_arrow
from hubcore.corpus.inputs.files import read_fairseq, read_files
from hubcore.corpus.inputs.jsonl import read_jsonl
from hubcore.corpus.inputs.kaldi import read_data_folder, read_wav_scp
from hubcore.corpus.inputs.reading import Reading, found_file
from hubcore.corpus.inputs.table import read_table
from hubcore.corpus.utterance import Utterance
from hubcore.errors import AudioError, ExtractionError
from hubcore.files import read_regular
from hubcore.text import logger, printable, text_path

_log = logger("corpus")

Reader = Callable[[Path, Reading], Iterator[Found]]
_READERS: Mapping[str, Reader] = {
    ".arrow": read_arrow,
    ".csv": read_table,
    ".json": read_jsonl,
    ".json.gz": read_jsonl,
    ".jsonl": read_jsonl,
    ".jsonl.gz": read_jsonl,
    ".parquet": read_arrow,
    ".scp": read_wav_scp,
    ".tar": read_archive,
}
"""Readers of files by their ending; `.tsv` may be of two forms, and any other file is audio."""


def find_utterances(
    paths: Iterable[str | os.PathLike[str]],
    *,
    root: str | os.PathLike[str] | None = None,
    columns: Mapping[str, str] | None = None,
    allow_commands: bool = False,
    ffmpeg: bool = False,
) -> list[Utterance]:
    r"""The utterances of `paths`: in the order of the paths and of the lists, sorted inside a folder.

    The name of one that has none of its own is the path below its folder without the ending, `/` between folders. Those that
    would share a name get longer ones: with the ending (`a.wav`, `a.flac`), below the name of the folder that was given
    (`train/a`, `dev/a`), then both, and so on.

    Args:
        paths: audio files, folders of them, `*` patterns, and `-`, for a list of such on standard input, one a line; lists of
            `hubcore manifest` and fairseq (`.tsv`), of Kaldi (`wav.scp`, or its data folder), NeMo and lhotse (`.jsonl`,
            `.json`, also `.gz`), and tables (`.csv`, `.tsv`); Parquet and Arrow files, also folders that Hugging Face
            `datasets` wrote; and plain tar archives.
        root: the folder that relative paths in lists are below, or `OLD=NEW` to take absolute ones below NEW and not OLD.
            If None, they are below the list's own folder or, if nothing is there, the current one.
        columns: a list's own names of the columns path, id, start, end, duration and channel, where they are others.
        allow_commands: whether commands that lists name are run, as in Kaldi's `wav.scp`.
        ffmpeg: whether FFmpeg decodes what libsndfile does not read (m4a, aac, wma, g722, ...), which is then found too.

    Raises:
        AudioError: paths do not exist, or a folder holds no audio file.
        ExtractionError: a list is malformed, which names file and line, or two utterances share even the longest name.
        OptionError: `root` or `columns` is none.

    Example:
        >>> import tempfile, pathlib
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> (folder / "anna").mkdir()
        >>> for name in ("anna/1.wav", "2.flac", "2.wav"):
        ...     (folder / name).touch()
        >>> sorted(utterance.name for utterance in find_utterances([folder]))
        ['2.flac', '2.wav', 'anna/1']
        >>> _ = (folder / "list.csv").write_text("wav,from,to\nanna/1.wav,0.5,2\n")
        >>> find_utterances([folder / "list.csv"], columns={"path": "wav", "start": "from", "end": "to"})
        [Utterance(name='anna/1-0.500-2.000', source=File(path='...anna/1.wav'), start=0.5, end=2.0, ...)]
    """
    reading = Reading(None if root is None else os.fspath(root), columns or {}, allow_commands, ffmpeg)
    given = [place for path in paths for place in _places(os.fspath(path))]
    check_exist(place for place in given if isinstance(place, Path))
    seen: dict[tuple[object, ...], Found] = {}
    for place in given:
        for item in _found(place, reading):
            # A file is one utterance, however often it is given, unless lists give it names of their own.
            name = full_name(text_path(item.source.given)) if item.ending or not item.where else ""
            key = (name, item.start, item.end, item.channel) if name else (len(seen),)
            seen.setdefault(key, item)
    return name_apart(seen.values(), ffmpeg=ffmpeg)


def utterances_by_name(given: Iterable[str | os.PathLike[str]] | Iterable[Utterance]) -> dict[str, Utterance]:
    """Utterances by name: those given, or those that paths mean, as `find_utterances` has it.

    Raises:
        AudioError: see `find_utterances`.
        ExtractionError: see `find_utterances`; or two of those given have one name.

    Example:
        >>> from hubcore.corpus.utterance import File
        >>> list(utterances_by_name([Utterance("a", File("a.wav")), Utterance("b", File("b.wav"))]))
        ['a', 'b']
    """
    items = [*given]
    if not all(isinstance(item, Utterance) for item in items):
        return {utterance.name: utterance for utterance in find_utterances(cast("list[str]", items))}
    utterances = cast("list[Utterance]", items)
    named = {utterance.name: utterance for utterance in utterances}
    if len(named) < len(utterances):
        twice = next(utterance.name for utterance in utterances if named[utterance.name] is not utterance)
        raise ExtractionError(f"two utterances are called {printable(twice)!r}.", fix="Give one of them another name.")
    return named


def _places(given: str) -> Iterator[Path | str]:
    """The paths that an argument means; the lines of standard input as text."""
    if given == "-":
        text = sys.stdin.buffer.read().decode("utf-8", "surrogateescape")
        yield from (line for line in text.replace("\0", "\n").splitlines() if line.strip())
    elif any(sign in given for sign in "*?[") and not os.path.lexists(given):
        found = sorted(glob.glob(given, recursive=True))
        if not found:
            raise AudioError(f"nothing matches {printable(given)}.", fix="Check the spelling and the folder.")
        yield from map(Path, found)
    else:
        yield Path(given)


def _found(given: Path | str, reading: Reading) -> Iterator[Found]:
    """The utterances that one path means."""
    if isinstance(given, str):
        path = Path(reading.locate(given, "", "-"))
        if _reader(path) is read_files and not path.is_dir():
            return iter((found_file(given, None, reading, Path(), "-"),))
        return _found(path, reading)
    if (given / "wav.scp").is_file():
        _log.info("%s is read as a data folder of Kaldi", printable(given))
        return read_data_folder(given, reading)
    files = dataset_files(given)
    if files is not None:
        return (item for file in files for item in read_arrow(file, reading))
    return _reader(given)(given, reading)


def _reader(path: Path) -> Reader:
    """The reader of a path by its ending."""
    name = path.name.lower()
    if name.endswith((".tar.gz", ".tgz")) and path.is_file():
        raise ExtractionError(
            f"{printable(path)} is compressed, so nothing in it can be found.", fix="Unpack it with `gunzip`."
        )
    ending = path.suffix.lower()
    if not path.is_file():
        return read_files
    if ending == ".tsv":
        first = read_regular(path).partition(b"\n")[0]
        return read_table if b"\t" in first else read_fairseq
    ending = "".join(path.suffixes[-2:]).lower() if ending == ".gz" else ending
    return _READERS.get(ending, read_files)
