"""`--format safetensors`: shards of tensors named after the utterances, and an index of which is where."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from hubcore.extract.formats.shards import Place, ShardWriter

_NAMES = {"float32": "F32", "float16": "F16", "uint16": "BF16"}
_DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_MOST_HEADER = 1 << 27


class SafetensorsWriter(ShardWriter):
    """`shards/<block>.safetensors`, and `features.safetensors.index.json` with the shard of each utterance.

    A block is kept in memory until it is whole, since the names stand at the start of the file.

    Example:
        >>> import tempfile, numpy as np
        >>> from safetensors.numpy import load_file
        >>> writer = SafetensorsWriter(Path(tempfile.mkdtemp()))
        >>> writer.begin_block(0)
        >>> file = writer.write("anna/1", np.ones((3, 2), dtype=np.float32))
        >>> writer.end_block()
        >>> file, load_file(writer.folder / file)["anna/1"].shape
        ('shards/00000.safetensors', (3, 2))
    """

    suffix = ".safetensors"

    @classmethod
    def refuses(cls, settings: Any) -> str:  # noqa: ARG003
        """Nothing is refused."""
        return ""

    def start(self, path: Path) -> None:
        """Nothing is written yet."""
        self._path, self._arrays = path, dict[str, NDArray[Any]]()

    def add(self, utterance: str, features: NDArray[Any]) -> None:
        """Keeps the array."""
        self._arrays[utterance] = features

    def finish(self) -> None:
        """Writes the header, then the arrays."""
        header: dict[str, Any] = {}
        end = 0
        for name, array in self._arrays.items():
            start, end = end, end + array.nbytes
            header[name] = {"dtype": _NAMES[array.dtype.name], "shape": array.shape, "data_offsets": (start, end)}
        text = json.dumps(header, separators=(",", ":")).encode("ascii")
        text += b" " * (-len(text) % 8)
        with open(self._path, "wb") as stream:
            stream.write(struct.pack("<Q", len(text)) + text)
            for array in self._arrays.values():
                stream.write(array.astype(array.dtype.newbyteorder("<"), copy=False).data)
        self._arrays = {}

    @classmethod
    def places(cls, path: Path) -> Mapping[str, Place]:
        """Those of the header."""
        with open(path, "rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8).ljust(8, b"\0"))
            if not 0 < length <= _MOST_HEADER:
                raise ValueError("it is no safetensors file")
            header = json.loads(stream.read(length))
        return {
            name: Place(_DTYPES[entry["dtype"]], tuple(entry["shape"]), 8 + length + entry["data_offsets"][0])
            for name, entry in header.items()
        }

    def index(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Writes the index, as Hugging Face's sharded checkpoints have one."""
        found = {"metadata": {"format": "hubcore"}, "weight_map": {row["utterance"]: row["file"] for row in rows}}
        with self.new_file("features.safetensors.index.json") as partial:
            partial.write_text(json.dumps(found, indent=0) + "\n", encoding="ascii")
