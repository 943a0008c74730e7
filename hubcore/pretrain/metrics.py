"""`metrics.jsonl`, the truth about a run: one row for each `log_every` updates, with nothing in it that a clock decides.

Wall-clock figures are in `timing.jsonl` beside it. After a crash, both are cut back to where the checkpoint was.
"""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hubcore.files import open_at_once, parse_json, read_regular, sync
from hubcore.pretrain.objective import Figure
from hubcore.pretrain.tensorboard import EventWriter

METRICS = "metrics.jsonl"
TIMING = "timing.jsonl"


@dataclass(frozen=True)
class MicroBatch:
    """The contribution of one micro-batch, as plain numbers."""

    place: int
    """Its place in the update, over all processes."""
    total: float
    sample_size: int
    samples: int
    """Samples of audio."""
    terms: Mapping[str, float] = field(default_factory=dict)
    """Loss terms for one target each, before weighting."""
    weights: Mapping[str, float] = field(default_factory=dict)
    """Of each term."""
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
            size = batch.sample_size
            terms = {"loss": batch.total / max(size, 1), **batch.terms}
            own = {name: (value, float(size)) for name, value in terms.items()}
            for name, (value, weight) in {**own, **batch.figures, **own}.items():
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


def run_figures(figures: Mapping[str, Figure]) -> dict[str, Figure]:
    """Figures of a row and how they are shown: those of every run, and those of its objective between them.

    Example:
        >>> list(run_figures({"accuracy": Figure()}))
        ['loss', 'weighted/*', 'accuracy', 'grad_norm', 'lr']
    """
    return {
        "loss": Figure("loss of a target (nats)", "loss {:.3f}"),
        "weighted/*": Figure("weighted loss terms"),
        **figures,
        "grad_norm": Figure("norm of the gradient", "gradient {:.2f}"),
        "lr": Figure("learning rate", "lr {:.2e}"),
    }


def describe_row(row: Mapping[str, Any], figures: Mapping[str, Figure]) -> list[str]:
    """The figures of a row in words.

    Example:
        >>> describe_row({"loss": 6.5, "hours": 1.0}, run_figures({}))
        ['loss 6.500']
    """
    return [figure.live.format(row[name]) for name, figure in figures.items() if figure.live and row.get(name) is not None]


class RowFile:
    """A JSON Lines file that a run appends to, and cuts back where it resumes.

    Args:
        path: the file.
        size: what to keep of it, in bytes.
    """

    def __init__(self, path: Path, size: int = 0) -> None:
        self._file = open(path, "ab", opener=open_at_once)  # noqa: SIM115 - open as long as the run
        if self._file.tell() < size:
            self._file.close()
            raise OSError(f"{path} has fewer than the {size} bytes that the checkpoint records")
        self._file.truncate(size)
        self._file.seek(size)

    def write(self, row: Mapping[str, Any]) -> None:
        """Appends a row."""
        self._file.write(json.dumps(row, allow_nan=False).encode("ascii") + b"\n")
        self._file.flush()

    def sync(self) -> int:
        """The size in bytes, once all of it is on the disk."""
        self._file.flush()
        sync(self._file.fileno())
        return self._file.tell()

    def close(self) -> None:
        """Closes the file; rows that did not fit on a full disk are lost, as `write` has said."""
        with contextlib.suppress(OSError):
            self._file.close()


class Journal:
    """Files for the rows of a run: metrics.jsonl, timing.jsonl, and event files.

    Args:
        run: the run's folder.
        update: updates done.
        state: the checkpoint's, which knows how long both files were; empty for a new run.
        events: write event files too, where tensorboard is installed.

    Raises:
        OSError: the files cannot be opened, or are shorter than the checkpoint knows.
    """

    def __init__(self, run: Path, update: int, state: Mapping[str, Any], *, events: bool) -> None:
        self._began = time.monotonic()
        self._metrics = RowFile(run / METRICS, state.get("metrics_bytes", 0))
        self._timing = RowFile(run / TIMING, state.get("timing_bytes", 0))
        self._events = EventWriter.open(run / "tensorboard", update) if events else None

    def write(self, row: Mapping[str, Any]) -> None:
        """Appends a row to each."""
        self._metrics.write(row)
        seconds = round(time.monotonic() - self._began, 3)
        self._timing.write({"update": row["update"], "time": round(time.time(), 3), "seconds": seconds})
        if self._events is not None:
            self._events.write(row)

    def sync(self) -> dict[str, int]:
        """The sizes for a checkpoint, once all rows are on the disk."""
        if self._events is not None:
            self._events.flush()
        return {"metrics_bytes": self._metrics.sync(), "timing_bytes": self._timing.sync()}

    def close(self) -> None:
        """Closes the files."""
        for file in (self._metrics, self._timing, self._events):
            if file is not None:
                file.close()


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
    for line in read_regular(path).split(b"\n")[:-1]:
        try:
            rows.append(parse_json(line))
        except ValueError:
            continue
    return [row for row in rows if isinstance(row, dict)]
