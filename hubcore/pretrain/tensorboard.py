"""`EventWriter`: the rows of metrics.jsonl as TensorBoard event files, where tensorboard is installed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

_log = logging.getLogger("hubcore.pretrain")


class EventWriter:
    """Writes scalars, one for each figure of a row."""

    def __init__(self, writer: Any) -> None:
        self._writer = writer
        self._broken = False

    @classmethod
    def open(cls, folder: Path, update: int) -> EventWriter | None:
        """A writer into a folder; None without tensorboard.

        Args:
            folder: the folder.
            update: updates done; what an earlier process wrote beyond them is hidden.
        """
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            _log.info("no event files are written: tensorboard is not installed (pip install 'hubcore[train]')")
            return None
        try:
            return cls(SummaryWriter(str(folder), purge_step=update + 1))
        except OSError as error:
            _log.warning("no event files are written (%s); metrics.jsonl has the same figures", error)
            return None

    def write(self, row: Mapping[str, Any]) -> None:
        """Writes the numbers of a row."""
        for name, value in row.items():
            if name != "update" and isinstance(value, int | float):
                self._try(self._writer.add_scalar, name, value, row["update"])

    def flush(self) -> None:
        """Writes out what is pending, which a process that is killed would take with it."""
        self._try(self._writer.flush)

    def close(self) -> None:
        """Writes out what is pending, and ends."""
        self._try(self._writer.close)

    def _try(self, act: Callable[..., Any], *values: Any) -> None:
        """Does something with the writer; once that fails, nothing more, for metrics.jsonl has the same figures."""
        if self._broken:
            return
        try:
            act(*values)
        except OSError as error:
            self._broken = True
            _log.warning("no more event files are written (%s); metrics.jsonl has the same figures", error)
