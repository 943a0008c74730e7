"""Kaldi's `wav.scp`, lines of `<utterance> <path>` or `<utterance> <command> |`, and its data folders, with `segments`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from hubcore.corpus.found import Found
from hubcore.corpus.inputs.reading import Reading, bad, check_part, found_file, lines_of, seconds
from hubcore.text import listed, logger, plural, printable

_log = logger("corpus")


def read_wav_scp(path: Path, reading: Reading) -> Iterator[Found]:
    """The recordings of a `wav.scp`, named as it does.

    Raises:
        ExtractionError: a line is malformed, or a command that is not allowed.
    """
    for where, line in lines_of(path):
        name, _, rest = line.strip().replace("\t", " ").partition(" ")
        rest = rest.strip()
        if not rest:
            raise bad(where, f"this line is {line[:80]!r}, not <utterance> <path>", "Write it so")
        if re.search(r"\.ark:\d+$", rest):
            raise bad(where, f"{printable(rest)} is inside an archive of Kaldi, which is not read", "Write it as a file")
        if rest.endswith("|"):
            yield Found(name, reading.command(rest[:-1].strip(), where), where=where)
        else:
            yield found_file(rest, name, reading, path.parent, where)


def read_data_folder(folder: Path, reading: Reading) -> Iterator[Found]:
    """The utterances of a data folder: those of its `segments` or, if it has none, of its `wav.scp`.

    Raises:
        ExtractionError: a line is malformed, or a segment is of a recording that `wav.scp` lacks.
    """
    recordings = list(read_wav_scp(folder / "wav.scp", reading))
    if not (folder / "segments").exists():
        yield from recordings
        return
    named = {found.stem: found for found in recordings}
    without = dict.fromkeys(named)
    for where, line in lines_of(folder / "segments"):
        parts = line.split()
        if len(parts) != 4:
            raise bad(where, f"this line is {line[:80]!r}, not <utterance> <recording> <start> <end>", "Write it so")
        name, recording, begins, ends = parts
        if recording not in named:
            raise bad(where, f"wav.scp has no recording {printable(recording)!r}", "Add it there")
        without.pop(recording, None)
        start = seconds(begins, "start", where)
        end = None if re.fullmatch(r"-1(\.0*)?", ends) else seconds(ends, "end", where)
        check_part(start, end, where)
        yield Found(name, named[recording].source, start=start, end=end, where=where)
    if without:
        what = f"{plural(len(without), 'recording')} of {printable(folder / 'wav.scp')} have no segment"
        _log.warning("%s and are left out: %s", what, listed(without))
