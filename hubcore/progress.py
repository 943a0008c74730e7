"""`Progress`: a bar on a terminal, a line now and then elsewhere; `is_terminal`."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

from hubcore.text import printable

LINE_EVERY = 10.0
"""Seconds between two lines where there is no terminal."""
_HOURS = "{l_bar}{bar}| {n:.2f}/{total:.2f} h of audio [{elapsed}<{remaining}{postfix}]"


class Progress:
    """The one display of progress; called with what is done and how much there will be.

    Args:
        unit: what is counted, such as "file"; "B" for bytes, "h" for hours of audio, whose note has the speed.
        label: stands before the bar and at the start of a line.
        say: takes a line where standard error is no terminal; None if nothing is to be said there.
        quiet: show nothing anywhere.
        keep: leave the finished bar on the terminal.

    Example:
        >>> with Progress("B", "model.pt", say=print) as progress:
        ...     progress(1 << 20, 4 << 20)
    """

    def __init__(
        self, unit: str, label: str = "", *, say: Callable[[str], None] | None = None, quiet: bool = False, keep: bool = False
    ) -> None:
        self._unit, self._label, self._say, self._quiet, self._keep = unit, printable(label), say, quiet, keep
        self._bar: Any = None
        self._began: tuple[float, float] | None = None
        self._said = time.monotonic()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def __call__(self, done: float, total: float | None, note: str = "") -> None:
        """Shows that `done` of `total` are done (None: unknown); `note` is added to it."""
        if self._quiet:
            return
        if is_terminal(sys.stderr):
            self._draw(done, total, note)
        elif self._say is not None:
            now = time.monotonic()
            self._began = self._began or (now, done)
            if now - self._said >= LINE_EVERY:
                self._said = now
                speed = (done - self._began[1]) / max(now - self._began[0], 1e-9)
                self._say(progress_line(self._label, done, total, speed, self._unit, note))

    def _draw(self, done: float, total: float | None, note: str) -> None:
        if self._bar is None:
            from tqdm import tqdm

            in_bytes = self._unit == "B"
            self._bar = tqdm(
                total=total,
                initial=done,
                unit=self._unit,
                desc=self._label[-40:] or None,
                file=sys.stderr,
                dynamic_ncols=True,
                leave=self._keep,
                unit_scale=in_bytes,
                unit_divisor=1024 if in_bytes else 1000,
                bar_format=_HOURS if self._unit == "h" else None,
            )
        self._bar.total = total
        if note:
            self._bar.set_postfix_str(printable(note), refresh=False)
        self._bar.update(done - self._bar.n)


def is_terminal(stream: object) -> bool:
    """True if a standard stream is a terminal; it may be None, closed, or any object that a program put there.

    Example:
        >>> is_terminal(None), is_terminal(object())
        (False, False)
    """
    try:
        return bool(stream.isatty())  # type: ignore[attr-defined]
    except (AttributeError, ValueError):  # ValueError: it is closed
        return False


def progress_line(label: str, done: float, total: float | None, speed: float, unit: str = "B", note: str = "") -> str:
    """One line about some work; `speed` in units a second.

    Example:
        >>> progress_line("model.pt", 30 << 20, 120 << 20, 3 << 20)
        'model.pt: 30.0 of 120.0 MiB, 3.0 MiB/s, 30 s left'
        >>> progress_line("", 3, 10, 0.5, "file", "1 failed")
        '3 of 10 file, 0.5 file/s, 14 s left, 1 failed'
        >>> progress_line("", 0.5, 2.0, 0.01, "h", "36 x real time, 1 failed")
        '0.50 of 2.00 h of audio, 150 s left, 36 x real time, 1 failed'
    """
    scale, name, digits = {"B": (1 << 20, "MiB", ".1f"), "h": (1, "h of audio", ".2f")}.get(unit, (1, unit, ".0f"))
    whole = "" if total is None else f" of {total / scale:{digits}}"
    parts = [f"{label}: " * bool(label) + f"{done / scale:{digits}}{whole} {name}"]
    if unit != "h":
        parts.append(f"{speed / scale:.1f} {name}/s")
    if total and speed > 0:
        parts.append(f"{(total - done) / speed:.0f} s left")
    return ", ".join([*parts, *([note] if note else [])])
