"""`EventWriter`: the rows of metrics.jsonl as TensorBoard event files, where tensorboard is installed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hubcore.text import logger

_log = logger("pretrain")


class EventWriter:
    """Writes scalars, one for each figure of a row, until that fails once: metrics.jsonl has the same figures.

    Args:
        writer: a `SummaryWriter`.
    """

    def __init__(self, writer: Any) -> None:
        self._writer = writer

    @classmethod
    def open(cls, folder: Path, update: int) -> EventWriter | None:
        """A writer into a folder, None without tensorboard; rows beyond `update` that an earlier process wrote are hidden."""
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
                self._try("add_scalar", name, value, row["update"])

    def flush(self) -> None:
        """Writes out rows that are still in memory, which a killed process would lose."""
        self._try("flush")

    def close(self) -> None:
        """Writes out rows that are still in memory, and ends."""
        self._try("close")

    def _try(self, method: str, *values: Any) -> None:
        try:
            if self._writer is not None:
                getattr(self._writer, method)(*values)
        except OSError as error:
            self._writer = None
            _log.warning("no more event files are written (%s); metrics.jsonl has the same figures", error)
