"""`metrics.jsonl`, the truth about a run: one row for each `log_every` updates, with nothing in it that a clock decides.

Wall-clock figures are in `timing.jsonl` beside it. After a crash, both are cut back to where the checkpoint was.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

METRICS = "metrics.jsonl"
TIMING = "timing.jsonl"


@dataclass(frozen=True)
class MicroBatch:
    """What one micro-batch contributed, as plain numbers."""

    place: int
    """Its place in the update, over all processes."""
    total: float
    sample_size: int
    samples: int
    """Samples of audio."""
    terms: Mapping[str, float] = field(default_factory=dict)
    """Loss terms for one target each, before weighting."""
    figures: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """Name -> (value, weight)."""
    unreadable: Mapping[str, str] = field(default_factory=dict)


class Window:
    """Sums over the updates since the last row; it is part of a checkpoint, so that rows do not depend on where one was made.

    Example:
        >>> window = Window()
        >>> window.add([MicroBatch(0, total=6.0, sample_size=3, samples=16000, figures={"accuracy": (0.5, 3)})])
        >>> window.row()
        {'loss': 2.0, 'accuracy': 0.5, 'sample_size': 3}
    """

    def __init__(self, sums: Mapping[str, Iterable[float]] | None = None) -> None:
        self._sums = {name: [float(value) for value in pair] for name, pair in (sums or {}).items()}

    def state(self) -> dict[str, list[float]]:
        """The sums, for a checkpoint."""
        return {name: list(pair) for name, pair in self._sums.items()}

    def put(self, name: str, value: float, weight: float = 1.0) -> None:
        """Adds a value to the mean that is called `name`; one that is not finite, or weighs nothing, does not count."""
        if weight > 0 and math.isfinite(value):
            pair = self._sums.setdefault(name, [0.0, 0.0])
            pair[0] += value * weight
            pair[1] += weight

    def count(self, name: str, number: float = 1.0) -> None:
        """Adds to the sum that is called `name`."""
        self._sums.setdefault(f"+{name}", [0.0, 0.0])[0] += number

    def add(self, batches: Iterable[MicroBatch]) -> None:
        """Adds the micro-batches of an update, in their order, whichever process they come from."""
        for batch in sorted(batches, key=lambda one: one.place):
            self.put("loss", batch.total / max(batch.sample_size, 1), batch.sample_size)
            for name, value in batch.terms.items():
                self.put(name, value, batch.sample_size)
            for name, (value, weight) in batch.figures.items():
                if name != "loss" and name not in batch.terms:
                    self.put(name, value, weight)
            self.count("sample_size", batch.sample_size)

    def row(self) -> dict[str, Any]:
        """Means and sums, to seven digits."""
        found: dict[str, Any] = {}
        for name, (total, weight) in self._sums.items():
            if name.startswith("+"):
                found[name[1:]] = int(total)
            else:
                found[name] = rounded(total / weight)
        return found


def rounded(value: float) -> float | None:
    """A number to seven digits; None for what JSON has no number for.

    Example:
        >>> rounded(1 / 3), rounded(float("nan"))
        (0.3333333, None)
    """
    return float(f"{value:.7g}") if math.isfinite(value) else None


class RowFile:
    """A JSON Lines file that a run appends to, and cuts back where it resumes.

    Args:
        path: the file.
        size: what to keep of it, in bytes.
    """

    def __init__(self, path: Path, size: int = 0) -> None:
        self._file = open(path, "ab")  # noqa: SIM115 - open as long as the run
        if self._file.tell() < size:
            self._file.close()
            raise OSError(f"{path} has fewer than the {size} bytes that the checkpoint knows of")
        self._file.truncate(size)
        self._file.seek(size)

    def write(self, row: Mapping[str, Any]) -> None:
        """Appends a row."""
        self._file.write(json.dumps(row, allow_nan=False).encode("ascii") + b"\n")
        self._file.flush()

    def sync(self) -> int:
        """The size in bytes, once all of it is on the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())
        return self._file.tell()

    def close(self) -> None:
        """Closes the file; what a full disk had no room for is lost, which `write` has told."""
        with contextlib.suppress(OSError):
            self._file.close()


def read_rows(path: Path) -> list[dict[str, Any]]:
    r"""The rows of a JSON Lines file; a last line that is cut is left out.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "metrics.jsonl"
        >>> _ = path.write_text('{"update": 1}\n{"upd')
        >>> read_rows(path)
        [{'update': 1}]
    """
    rows = []
    for line in path.read_bytes().split(b"\n")[:-1]:
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return [row for row in rows if isinstance(row, dict)]
