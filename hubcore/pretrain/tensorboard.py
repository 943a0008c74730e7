"""`EventWriter`: the rows of metrics.jsonl as TensorBoard event files, where tensorboard is installed."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_log = logging.getLogger("hubcore.pretrain")


class EventWriter:
    """Writes scalars, one for each figure of a row."""

    def __init__(self, writer: Any) -> None:
        self._writer = writer

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
        return cls(SummaryWriter(str(folder), purge_step=update + 1))

    def write(self, row: Mapping[str, Any]) -> None:
        """Writes the numbers of a row."""
        for name, value in row.items():
            if name != "update" and isinstance(value, int | float):
                self._writer.add_scalar(name, value, row["update"])

    def close(self) -> None:
        """Writes out what is pending."""
        self._writer.close()
