"""Lists of JSON, one object a line: NeMo's manifests, lhotse's recordings and cuts, and tables whose columns the user names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hubcore.corpus.found import Found
from hubcore.corpus.inputs.reading import FIELDS, Reading, bad, found_file, lines_of, part_of, row_found
from hubcore.files import parse_json
from hubcore.text import listed, printable

NEMO = {"path": "audio_filepath", "start": "offset", "duration": "duration"}
"""NeMo's names of columns."""
_CUT = {"start": "start", "duration": "duration"}


def read_jsonl(path: Path, reading: Reading) -> Iterator[Found]:
    """The utterances of a list of objects.

    Raises:
        ExtractionError: a line is no object of a known form.
    """
    for where, line in lines_of(path):
        try:
            row = parse_json(line)
        except ValueError as error:
            raise bad(where, f"this line is no JSON ({error})", "Correct it") from error
        if not isinstance(row, dict):
            raise bad(where, f"this line is {line[:80]!r}, not an object in braces", "Write it so")
        if reading.columns:
            yield row_found(row, {name: reading.columns.get(name, name) for name in FIELDS}, reading, path.parent, where)
        elif "audio_filepath" in row:
            yield row_found(row, NEMO, reading, path.parent, where)
        elif "sources" in row:
            yield _recording(row, None, reading, path.parent, where)
        elif row.get("type") in ("MonoCut", "MultiCut", "Cut"):
            yield _cut(row, reading, path.parent, where)
        else:
            what = f"this line is no row of NeMo and no recording or cut of lhotse that is read; its keys: {listed(row, 20)}"
            raise bad(where, what, "Name the columns with --columns path=...,id=...")


def _cut(row: Mapping[str, Any], reading: Reading, folder: Path, where: str) -> Found:
    """A cut of lhotse."""
    recording = row.get("recording")
    if not isinstance(recording, dict) or not isinstance(recording.get("sources"), list):
        raise bad(where, "this cut has no recording", "Make the list with recordings")
    start, end, _ = part_of(row, _CUT, where)
    if start == 0 and row.get("duration") == recording.get("duration"):
        end = None  # all of it, to the last sample
    channels = row.get("channel", 0)
    found = _recording(recording, channels if isinstance(channels, list) else [channels], reading, folder, where)
    return found._replace(stem=_id(row, where), start=start, end=end)


def _recording(row: Mapping[str, Any], wanted: list[Any] | None, reading: Reading, folder: Path, where: str) -> Found:
    """A recording of lhotse, of which some channels are wanted, or all."""
    if row.get("transforms"):
        raise bad(where, "the recording is to be transformed first, which is not done", "Write it as a file")
    try:
        sources = [(source["type"], source["source"], list(source["channels"])) for source in row["sources"]]
    except (KeyError, TypeError) as error:
        raise bad(where, "its sources have no type, source and channels", "Correct them") from error
    there = [channel for _, _, channels in sources for channel in channels]
    wanted = there if wanted is None else wanted
    holding = [(kind, text, channels) for kind, text, channels in sources if set(wanted) <= set(channels)]
    if not holding or len(wanted) not in (1, len(there)):
        what = f"channels {listed(map(str, wanted))} of {listed(map(str, there))} are not one, and not all of one file"
        raise bad(where, what, "Make one cut for each channel")
    kind, text, channels = holding[0]
    if kind not in ("file", "command") or not isinstance(text, str):
        raise bad(where, f"its source is of the type {printable(str(kind))!r}; file and command are read", "Write it as a file")
    channel = channels.index(wanted[0]) if len(channels) > len(wanted) else None
    if kind == "command":
        return Found(_id(row, where), reading.command(text, where), channel=channel, where=where)
    return found_file(text, _id(row, where), reading, folder, where, channel=channel)


def _id(row: Mapping[str, Any], where: str) -> str:
    name = row.get("id")
    if not isinstance(name, str) or not name:
        raise bad(where, f"its id is {name!r}, not a name", "Name it")
    return name
