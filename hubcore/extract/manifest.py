"""What is finished: `manifest.jsonl`, one line per utterance, and `failures.jsonl`, what failed in the last run.

An utterance is done when its line is in the manifest, never merely because a file exists.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hubcore.errors import ExtractionError
from hubcore.extract.plan import Failure
from hubcore.files import hold, sync, write_whole
from hubcore.text import printable

MANIFEST_KEYS = (
    "utterance",
    "source",
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
    "sample_rate",
    "options",
    "config_sha256",
    "source_bytes",
    "source_mtime_ns",
    "format",
)
"""The keys of every row, in this order. Upstreams whose frame rate depends on the input add `frame_times`, `[start, end]` in
seconds for each frame, and what else they tell of an utterance in one number, such as `lambd`."""


@dataclass(frozen=True)
class Settings:
    """What all features of one folder have in common; a folder with other settings is never added to."""

    upstream: str
    """The card's name, or the class's where there is no card."""
    checkpoint_sha256: str | None
    """SHA-256 of the weights; None where there are none, or the file is not known."""
    layers: tuple[int, ...]
    """Indices into the upstream's `layer_names`, in the order they are stacked."""
    stacked: bool
    """True for `(L, F, D)`, False for `(F, D)`."""
    dtype: str
    """`float32` or `float16`."""
    options: Mapping[str, Any]
    """The upstream's own options, such as `lambd`."""
    config_sha256: str | None
    """A short digest of the upstream's config; None where it has none that is plain data."""
    width: int
    """The width `D` of these layers."""
    frame_stride: int | None
    """Samples from one frame to the next; None where that depends on the input."""
    sample_rate: int
    """Samples per second that the upstream is given, in Hz."""
    format: str
    """The name of the file format, such as `npy`."""

    def differences(self, row: Mapping[str, Any]) -> list[str]:
        """How a manifest row was made differently, each as a phrase; empty if it was not."""
        there = {
            "upstream": row["upstream"],
            "checkpoint_sha256": row["checkpoint_sha256"],
            "layers": (tuple(row["layers"]), len(row["shape"]) == 3),
            "dtype": row["dtype"],
            "options": row["options"],
            "config_sha256": row["config_sha256"],
            "width": row["shape"][-1],
            "frame_stride": row["frame_stride"],
            "sample_rate": row["sample_rate"],
            "format": row["format"],
        }
        here = {
            "upstream": self.upstream,
            "checkpoint_sha256": self.checkpoint_sha256,
            "layers": (self.layers, self.stacked),
            "dtype": self.dtype,
            "options": dict(self.options),
            "config_sha256": self.config_sha256,
            "width": self.width,
            "frame_stride": self.frame_stride,
            "sample_rate": self.sample_rate,
            "format": self.format,
        }
        return [f"{key} is {_shown(there[key])} there and {_shown(here[key])} here" for key in here if here[key] != there[key]]


class Manifest:
    """`manifest.jsonl` of one folder.

    Example:
        >>> import tempfile
        >>> manifest = Manifest(Path(tempfile.mkdtemp()))
        >>> manifest.append([dict.fromkeys(MANIFEST_KEYS) | {"utterance": "a"}])
        >>> list(manifest.read())
        ['a']
    """

    def __init__(self, folder: Path) -> None:
        """The manifest of `folder`, which need not have one yet."""
        self.path = folder / "manifest.jsonl"
        self.failures_path = folder / "failures.jsonl"

    def read(self) -> dict[str, dict[str, Any]]:
        """The rows by utterance. A last line that a killed run left unfinished is no row, and is removed.

        Raises:
            ExtractionError: the file is not a manifest.
        """
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise _unwritable(self.path, error) from error
        whole, _, torn = data.rpartition(b"\n")
        rows: dict[str, dict[str, Any]] = {}
        for number, line in enumerate(whole.split(b"\n") if whole else [], start=1):
            try:
                row = json.loads(line)
                rows[row["utterance"]] = {**{key: row[key] for key in MANIFEST_KEYS}, **row}
            except (ValueError, KeyError, TypeError) as error:
                raise ExtractionError(
                    f"{printable(self.path)}, line {number}, is not a row of a manifest ({error!r}). What is finished "
                    "cannot be told without it. Restore the file, or extract into another folder."
                ) from error
        if torn:
            self.replace(rows.values())
        return rows

    def append(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Adds rows and returns when they are on the disk.

        Raises:
            ExtractionError: the file system refuses.
        """
        _append_lines(self.path, rows)

    def replace(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Makes `rows` the whole manifest, in one step.

        Raises:
            ExtractionError: the file system refuses.
        """
        try:
            with write_whole(self.path) as partial:
                partial.write_bytes(_lines(rows))
        except OSError as error:
            raise _unwritable(self.path, error) from error

    def forget_failures(self) -> None:
        """Removes `failures.jsonl`, whose items are about to be tried again."""
        try:
            self.failures_path.unlink(missing_ok=True)
        except OSError as error:
            raise _unwritable(self.failures_path, error) from error

    def append_failures(self, failures: Sequence[Failure]) -> None:
        """Adds to `failures.jsonl`, which exists only if something failed."""
        if failures:
            _append_lines(self.failures_path, map(asdict, failures))


def exclusive(folder: Path) -> contextlib.ExitStack:
    """Holds the folder against another run until the result is closed; creates it first.

    Raises:
        ExtractionError: it cannot be created, or another run holds it.
    """
    try:
        return hold(folder)
    except BlockingIOError as error:
        raise ExtractionError(
            f"{printable(folder)} is being written by another extraction. Two in one folder would undo each other.",
            fix="Wait for it, or choose another folder.",
        ) from error
    except OSError as error:
        raise _unwritable(folder, error) from error


def _append_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    try:
        with open(path, "ab") as stream:
            stream.write(_lines(rows))
            stream.flush()
            sync(stream.fileno())
    except OSError as error:
        raise _unwritable(path, error) from error


def _lines(rows: Iterable[Mapping[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode("ascii")


def _unwritable(path: Path, error: OSError) -> ExtractionError:
    return ExtractionError(
        f"{printable(path)} cannot be used: {error.strerror or error}. The features of a run and the record of what is "
        "finished go there. Choose a folder that can be written, or make room in this one."
    )


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        indices, stacked = value
        return f"{','.join(map(str, indices))} ({'one array' if stacked else 'a single layer'})"
    return repr(value)
