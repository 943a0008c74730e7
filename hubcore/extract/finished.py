"""Finished work: `manifest.jsonl`, one row per utterance, and `failures.jsonl`, the failures of the last run.

An utterance is finished when its row is in the manifest, never merely because a file exists.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hubcore.corpus.manifest import why_not_below
from hubcore.errors import ExtractionError
from hubcore.extract.batches import Failure
from hubcore.files import IF_DEAD, hold, parse_json, read_regular, sync
from hubcore.text import printable

ROW_KEYS = (
    "utterance",
    "source",
    "start",
    "end",
    "channel",
    "seconds",
    "frames",
    "layers",
    "shape",
    "dtype",
    "file",
    "upstream",
    "checkpoint_sha256",
    "hubcore_version",
    "frame_stride",
    "first_sample",
    "receptive_field",
    "sample_rate",
    "options",
    "config_sha256",
    "source_bytes",
    "source_mtime_ns",
    "format",
    "mix",
    "pool",
)
"""The keys of every row, in this order. An utterance is the part of `source` from `start` to `end` in seconds, None being those
of the file, and its `channel`, None being the mean of all. Frame f covers `receptive_field` samples, at `sample_rate`, from
`first_sample + f * frame_stride` on, as far as the utterance has them. Upstreams whose frame rate depends on the input add
`frame_times`, `[start, end]` in seconds for each frame, and each of their `extras` that is one number for an utterance."""
_TYPES = {
    **dict.fromkeys(("utterance", "source", "dtype", "file"), str),
    **dict.fromkeys(("source_bytes", "source_mtime_ns"), int),
    "shape": list,
}
"""Types of the values that a resumed run uses."""
PARTIAL = ".partial"
"""The folder, inside the output folder, of what is being written."""
_NEWER = ("first_sample", "receptive_field", "mix", "pool", "start", "end", "channel")
"""Keys that rows of the first version lack."""


class Finished:
    """The rows and the failures of one folder.

    Example:
        >>> import tempfile
        >>> finished = Finished(Path(tempfile.mkdtemp()))
        >>> texts = dict.fromkeys(("utterance", "source", "dtype", "file"), "a")
        >>> finished.append([{**dict.fromkeys(ROW_KEYS, 0), **texts, "shape": [3, 2]}])
        >>> list(finished.read())
        ['a']
    """

    def __init__(self, folder: Path) -> None:
        """Those of `folder`, which need not have any yet."""
        self.path = folder / "manifest.jsonl"
        self.failures_path = folder / "failures.jsonl"

    def read(self) -> dict[str, dict[str, Any]]:
        """The rows by utterance. A last line that a killed run left unfinished is removed, and all but the last row of one.

        Raises:
            ExtractionError: the file is not a manifest.
        """
        rows, clean = self.look()
        if not clean:
            self.replace(rows.values())
        return rows

    def look(self) -> tuple[dict[str, dict[str, Any]], bool]:
        """The rows by utterance, the last one of each, and whether there was nothing else; changes nothing.

        Raises:
            ExtractionError: the file is not a manifest.
        """
        with _usable(self.path):
            whole, _, torn = read_regular(self.path).rpartition(b"\n") if self.path.exists() else (b"", b"", b"")
        rows: dict[str, dict[str, Any]] = {}
        for number, line in enumerate(whole.split(b"\n") if whole else [], start=1):
            try:
                row = parse_json(line)
                _check_types(row)
                rows[row["utterance"]] = {**{key: row.get(key) if key in _NEWER else row[key] for key in ROW_KEYS}, **row}
            except (ValueError, KeyError, TypeError) as error:
                raise _malformed(self.path, number, error) from error
        return rows, not torn and len(rows) == whole.count(b"\n") + bool(whole)  # two runs may have written at once

    def append(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Adds rows and returns when they are on the disk.

        Raises:
            ExtractionError: the file system refuses.
        """
        _append(self.path, rows)

    def replace(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Makes `rows` all there are, in one step.

        Raises:
            ExtractionError: the file system refuses.
        """
        with write_held(self.path) as temporary:
            temporary.write_bytes(_lines(rows))

    def failures(self) -> dict[str, Failure]:
        """The failures by utterance, without a last line that a killed run left unfinished.

        Raises:
            ExtractionError: the file is not one of failures.
        """
        with _usable(self.failures_path):
            whole = read_regular(self.failures_path).rpartition(b"\n")[0] if self.failures_path.exists() else b""
        found: dict[str, Failure] = {}
        for number, line in enumerate(whole.split(b"\n") if whole else [], start=1):
            try:
                failure = Failure(**parse_json(line))
                found[failure.utterance] = failure
            except (ValueError, TypeError) as error:
                raise _malformed(self.failures_path, number, error) from error
        return found

    def replace_failures(self, failures: Sequence[Failure]) -> None:
        """Makes `failures` all there are, in one step; without any there is no file.

        Raises:
            ExtractionError: the file system refuses.
        """
        if failures:
            with write_held(self.failures_path) as temporary:
                temporary.write_bytes(_lines(map(asdict, failures)))
        else:
            with _usable(self.failures_path):
                self.failures_path.unlink(missing_ok=True)

    def append_failures(self, failures: Sequence[Failure]) -> None:
        """Adds to `failures.jsonl`, which exists only if something failed."""
        if failures:
            _append(self.failures_path, map(asdict, failures))


def exclusive(folder: Path, *, force: bool = False, brief: bool = False) -> contextlib.ExitStack:
    """Holds the folder against another run until the result is closed; creates it first; see `hubcore.files.hold`.

    Raises:
        ExtractionError: it cannot be created, or another run holds it.
    """
    try:
        return hold(folder, force=force, brief=brief)
    except BlockingIOError as error:
        what = f"{printable(folder)} is being written by another extraction ({error.strerror})."
        raise ExtractionError(what, fix=f"Wait for it, or choose another folder. {IF_DEAD}") from error
    except OSError as error:
        raise _unusable(folder, error) from error


@contextlib.contextmanager
def write_held(path: Path) -> Iterator[Path]:
    """As `write_whole`, for a file of a folder that is held: what a killed run leaves of it, the next one removes.

    Raises:
        ExtractionError: the file system refuses, or the folder of partial files is a link.
    """
    temporary = path.parent / PARTIAL / path.name
    check_no_link(temporary.parent)
    with _usable(path):
        temporary.parent.mkdir(exist_ok=True)
        yield temporary
        sync(temporary)
        os.replace(temporary, path)
        sync(path.parent)


def check_no_link(path: Path) -> None:
    """Raises `ExtractionError` if a folder inside the output folder is a link."""
    if path.is_symlink():
        what = f"{printable(path)} is a link, through which files would be written elsewhere."
        raise ExtractionError(what, fix="Remove it, or link the whole output folder instead.")


def _append(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    with _usable(path), open(path, "ab") as stream:
        stream.write(_lines(rows))
        stream.flush()
        sync(stream.fileno())


def _check_types(row: Mapping[str, Any]) -> None:
    """Raises `ValueError` unless what is used of a row is of its type, and its file lies in this folder."""
    wrong = [key for key, kind in _TYPES.items() if type(row[key]) is not kind]
    if wrong or not all(type(size) is int for size in row["shape"]):
        raise ValueError(f"{', '.join(wrong) or 'shape'} is of another type")
    problem = why_not_below(row["file"])
    if problem:
        raise ValueError(f"its file {problem}")


def _lines(rows: Iterable[Mapping[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode("ascii")


@contextlib.contextmanager
def _usable(path: Path) -> Iterator[None]:
    """Turns an answer of the file system into an `ExtractionError` that names `path`."""
    try:
        yield
    except OSError as error:
        raise _unusable(path, error) from error


def _unusable(path: Path, error: OSError) -> ExtractionError:
    return ExtractionError(
        f"{printable(path)} cannot be used: {error.strerror or error}. The features of a run are kept there.",
        fix="Choose a folder that can be written, or make room in this one.",
    )


def _malformed(path: Path, line: int, error: Exception) -> ExtractionError:
    return ExtractionError(
        f"{printable(path)}, line {line}, is not a row of a manifest ({error!r}). Without it, nothing tells what is finished.",
        fix="Restore the file, or extract into another folder.",
    )
