"""`Reading`, how lists are read, and `row_found`, the utterance that a row of any of them means."""

from __future__ import annotations

import gzip
import math
import os
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hubcore.audio import full_name
from hubcore.corpus.found import Found
from hubcore.corpus.utterance import Command, File, Source
from hubcore.errors import ExtractionError, OptionError
from hubcore.files import read_regular
from hubcore.text import path_text, printable, text_path

FIELDS = ("path", "id", "start", "end", "duration", "channel")
"""Columns that a list may have, by our names for them."""


@dataclass(frozen=True)
class Reading:
    """Settings of a user for reading lists.

    Example:
        >>> Reading(root="/old=/").locate("/old/a.wav", "lists", "a.csv:2")
        '/a.wav'
    """

    root: str | None = None
    """The folder that relative paths are below, or `OLD=NEW` for absolute ones; None for the list's own folder."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """A list's own names of the columns in `FIELDS`, where they are others."""
    allow_commands: bool = False
    """True if commands in lists are run."""
    ffmpeg: bool = False
    """True if FFmpeg decodes what libsndfile does not read."""

    def __post_init__(self) -> None:
        unknown = set(self.columns) - set(FIELDS)
        if unknown:
            what = f"there is no column {', '.join(sorted(unknown))} to be named."
            raise OptionError(what, fix=f"Those that can be are {', '.join(FIELDS)}, as in path=wav,id=utt.")
        if not all(isinstance(name, str) and name for name in self.columns.values()):
            raise OptionError("a column is called by nothing.", fix="Name it, as in path=wav,id=utt.")

    def locate(self, path: str, folder: str | os.PathLike[str], where: str) -> str:
        """The place of a file that a list in `folder` calls `path`.

        A relative path is below the root; without one below the list's own folder or, if nothing is there, the current one.

        Raises:
            ExtractionError: it is absolute, and the root is no `OLD=NEW`.
        """
        name = text_path(path)
        old, new = self._roots()
        if os.path.isabs(name):
            if old is not None:
                inner = os.path.relpath(name, old)
                return name if inner.split(os.sep)[0] == ".." else os.path.normpath(os.path.join(new or "", inner))
            if new is not None:
                fix = "Give --root OLD=NEW, with the folder that the list names and the one to take instead."
                raise ExtractionError(
                    f"{where}: {printable(path)} is absolute, so --root {printable(new)} says nothing of it.", fix
                )
            return name
        if new is not None:
            return os.path.join(new, name)
        beside = os.path.join(folder, name)
        return beside if os.path.lexists(beside) or not os.path.lexists(name) else name

    def _roots(self) -> tuple[str | None, str | None]:
        """The folder to replace, if one is named, and the one to take."""
        root = self.root
        if root is None or os.path.isdir(root):  # a folder may have = in its name
            return None, root
        old, equals, new = root.partition("=")
        if equals and os.path.isabs(old) and os.path.isdir(new):
            return old, new
        raise OptionError(f"root is {root!r}, which is no folder, and no OLD=NEW with a folder NEW.", fix="Check the spelling.")

    def command(self, text: str, where: str) -> Source:
        """A command that a list names.

        Raises:
            ExtractionError: the user did not allow any.
        """
        if not self.allow_commands:
            what = f"{where}: {printable(text)!r} is a command. Lists may run any, so that none is run unless you allow it."
            raise ExtractionError(what, fix="If you know where the list is from, add --allow-commands (allow_commands=True).")
        return Command(text)


def lines_of(path: Path) -> Iterator[tuple[str, str]]:
    """The lines of a text, each with its place as `list.scp:3`; blank ones are passed over.

    Raises:
        ExtractionError: it cannot be read, or is a damaged `.gz`.
    """
    name = printable(path)
    try:
        data = read_regular(path)
        if path.suffix == ".gz":
            data = gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise ExtractionError(f"{name} cannot be read: {reason}.", fix="Check the file, or fetch it again.") from error
    text = data.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield f"{name}:{number}", line.removesuffix("\r")


def bad(where: str, what: str, fix: str) -> ExtractionError:
    """The error about a line of a list.

    Example:
        >>> str(bad("a.csv:3", "the path is empty", "Name a file"))
        'a.csv:3: the path is empty. Name a file, or take the line out.'
    """
    return ExtractionError(f"{where}: {what}.", fix=f"{fix}, or take the line out.")


def row_found(row: Mapping[str, Any], columns: Mapping[str, str], reading: Reading, folder: Path, where: str) -> Found:
    """The utterance that a row means.

    Args:
        row: its values by column; None and "" are absent.
        columns: the names of the columns that it may have, by those of `FIELDS`.
        reading: how the list is read.
        folder: the folder of the list.
        where: the line, for messages.

    Raises:
        ExtractionError: it names no file, or its times are none.
    """
    path = row.get(columns["path"])
    if not isinstance(path, str) or not path.strip():
        raise bad(where, f"{columns['path']!r} is {path!r}, not the path of a file", "Name a file there")
    start, end, channel = part_of(row, columns, where)
    name = row.get(columns.get("id", ""))
    return found_file(path, None if name in (None, "") else str(name), reading, folder, where, start, end, channel)


def part_of(row: Mapping[str, Any], columns: Mapping[str, str], where: str) -> tuple[float, float | None, int | None]:
    """Start, end and channel of a row.

    Raises:
        ExtractionError: they are no such numbers.
    """
    given = {key: row.get(columns[key]) for key in columns if row.get(columns[key]) not in (None, "")}
    start = seconds(given["start"], columns["start"], where) if "start" in given else 0.0
    end = seconds(given["end"], columns["end"], where) if "end" in given else None
    if end is None and "duration" in given and "start" in given:  # alone it says how long the file is, perhaps rounded
        end = start + seconds(given["duration"], columns["duration"], where)
    check_part(start, end, where)
    channel = given.get("channel")
    if channel is None:
        return start, end, None
    if isinstance(channel, bool) or not str(channel).isdecimal():
        raise bad(where, f"{columns['channel']!r} is {channel!r}, not a channel, counted from 0", "Correct it")
    return start, end, int(channel)


def seconds(value: object, column: str, where: str) -> float:
    """A time in a list.

    Raises:
        ExtractionError: it is none.
    """
    try:
        number = math.nan if isinstance(value, bool) else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        number = math.nan
    if not 0 <= number < 1e9:
        raise bad(where, f"{column!r} is {value!r}, not a time in seconds", "Correct it")
    return number


def check_part(start: float, end: float | None, where: str) -> None:
    """Raises `ExtractionError` unless a part ends after it begins."""
    if end is not None and end <= start:
        raise bad(where, f"the part ends at {end:g} s and begins at {start:g} s", "Correct the times")


def found_file(
    path: str,
    name: str | None,
    reading: Reading,
    folder: Path,
    where: str,
    start: float = 0.0,
    end: float | None = None,
    channel: int | None = None,
) -> Found:
    """The utterance of a file, or of a part of it, that a list in `folder` names.

    Its name is `name` or, if that is None, the path in the list without the ending, and the part: `en/1-0.500-2.250`.
    """
    source = File(reading.locate(path, folder, where))
    if name is not None:
        return Found(name, source, start=start, end=end, channel=channel, where=where)
    part = "" if start == 0 and end is None else f"-{start:.3f}-" + ("" if end is None else f"{end:.3f}")
    part += "" if channel is None else f"-{channel}"
    given = os.path.normpath(text_path(path))
    if os.path.isabs(given) or given.startswith(".."):
        given = os.path.basename(given)
    stem, ending = os.path.splitext(path_text(given).replace(os.sep, "/"))
    place = path_text(full_name(source.path)).removesuffix(path_text(given))
    return Found(stem + part, source, ending, place, start, end, channel, where)
