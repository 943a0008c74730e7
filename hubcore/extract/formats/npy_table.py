"""`--format npy` for pooled features: one table, a row per utterance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from hubcore.extract.formats.safetensors import SafetensorsWriter
from hubcore.extract.writers import no_bfloat16

if TYPE_CHECKING:
    from hubcore.extract.settings import Settings


class NpyTableWriter(SafetensorsWriter):
    """`table.npy`, whose rows are those of the manifest, made at the end of a run from the shards of its blocks.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> writer = NpyTableWriter(Path(tempfile.mkdtemp()))
        >>> writer.begin_block(0)
        >>> rows = [{"utterance": name, "file": writer.write(name, np.full(2, len(name), np.float32))} for name in ("a", "bb")]
        >>> writer.end_block()
        >>> writer.index([{**row, "shape": [2], "dtype": "float32"} for row in rows])
        >>> np.load(writer.folder / "table.npy").tolist()
        [[1.0, 1.0], [2.0, 2.0]]
    """

    @classmethod
    def refuses(cls, settings: Settings) -> str:
        """NumPy has no bfloat16."""
        return no_bfloat16(settings)

    def index(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Writes the table."""
        if not rows:
            return
        with self.new_file("table.npy") as partial:
            shape = (len(rows), *rows[0]["shape"])
            table = np.lib.format.open_memmap(partial, mode="w+", dtype=np.dtype(rows[0]["dtype"]), shape=shape)
            for place, row in zip(table, rows, strict=True):
                place[...] = self.read(self.folder, row)
            table.flush()
