"""A progress bar for commands that work through many items."""

from __future__ import annotations

import sys
from typing import Any


class Bar:
    """A progress bar on standard error, where that is a terminal; called with how many items are done, and of how many.

    Example:
        >>> with Bar("file", quiet=True) as bar:
        ...     bar(1, 2)
    """

    def __init__(self, unit: str, *, quiet: bool) -> None:
        self._unit = unit
        self._shown = not quiet and sys.stderr.isatty()
        self._bar: Any = None

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def __call__(self, done: int, total: int) -> None:
        """Shows how far the work is."""
        if not self._shown:
            return
        if self._bar is None:
            from tqdm import tqdm

            self._bar = tqdm(total=total, unit=self._unit, file=sys.stderr, dynamic_ncols=True, leave=False)
        self._bar.update(done - self._bar.n)
