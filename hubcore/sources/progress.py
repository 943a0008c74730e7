"""How a download is shown: a bar with speed and time left on a terminal, now and then a log line elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from typing import Any

_log = logging.getLogger("hubcore.checkpoints")
_LINE_EVERY = 10.0
"""Seconds between two log lines."""


class ProgressDisplay:
    """The progress of one file; called with the bytes that are here and the bytes it will have.

    Example:
        >>> with ProgressDisplay("model.pt") as display:
        ...     display(1 << 20, 4 << 20)
    """

    def __init__(self, label: str) -> None:
        self._label = label
        self._bar: Any = None
        self._start: tuple[float, int] | None = None
        self._said = time.monotonic()

    def __enter__(self) -> ProgressDisplay:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def __call__(self, done: int, total: int | None) -> None:
        """Shows that `done` of `total` bytes are here."""
        if sys.stderr.isatty():
            self._draw(done, total)
            return
        now = time.monotonic()
        if self._start is None:
            self._start = (now, done)
        if now - self._said >= _LINE_EVERY:
            self._said = now
            began, already = self._start
            _log.info("%s", progress_line(self._label, done, total, (done - already) / max(now - began, 1e-9)))

    def _draw(self, done: int, total: int | None) -> None:
        bar = self._bar
        if bar is None:
            from tqdm import tqdm

            bar = tqdm(total=total, initial=done, unit="B", unit_scale=True, unit_divisor=1024, desc=self._label[-40:])
            self._bar = bar
        bar.total = total
        bar.update(done - bar.n)


def progress_line(label: str, done: int, total: int | None, speed: float) -> str:
    """One line about a download; `speed` in bytes a second.

    Example:
        >>> progress_line("model.pt", 30 << 20, 120 << 20, 3 << 20)
        'model.pt: 30.0 of 120.0 MiB, 3.0 MiB/s, 30 s left'
    """
    mebi = 1 << 20
    text = f"{label}: {done / mebi:.1f}" + (f" of {total / mebi:.1f} MiB" if total else " MiB") + f", {speed / mebi:.1f} MiB/s"
    return text + (f", {(total - done) / speed:.0f} s left" if total and speed > 0 else "")
