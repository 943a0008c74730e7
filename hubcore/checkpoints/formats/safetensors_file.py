"""Safetensors files, their header checked more strictly than the format's own reader does, and read without mapping."""

from __future__ import annotations

import json
from typing import Any, NoReturn

import torch

from hubcore.checkpoints.formats.file_bytes import Span, TensorFile
from hubcore.checkpoints.formats.tensor_ref import MAX_DIMENSIONS, StorageRef, TensorRef, damaged, not_the_file, unsafe
from hubcore.errors import CheckpointError

MAX_HEADER = 8 << 20  # the format allows 100 MB; a parsed header takes many times its size
MAX_NAME = 1024

_DTYPES: dict[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "C64": torch.complex64,
}


class SafetensorsFile(TensorFile):
    """A safetensors file whose header has been checked: `refs` by name, and the free-text `metadata`.

    Raises:
        UnsafeCheckpointError: The header contradicts itself or the file.
        CheckpointError: The file is missing, damaged or of another kind.

    Example:
        >>> import tempfile
        >>> from safetensors.torch import save_file
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_file({"weight": torch.ones(2, 3)}, f"{folder}/tiny.safetensors", {"made_by": "me"})
        ...     with SafetensorsFile(f"{folder}/tiny.safetensors") as file:
        ...         file.names, file.metadata, file.read(file.refs["weight"]).sum()
        (('weight',), {'made_by': 'me'}, tensor(6.))
    """

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the tensors, in the order of their bytes."""
        return tuple(self.refs)

    def _span(self, storage: StorageRef) -> Span | None:
        own = self.refs.get(storage.key)
        return Span(storage.key, self._offsets[storage.key], storage.nbytes) if own and own.storage == storage else None

    def _open(self) -> None:
        self.refs: dict[str, TensorRef] = {}
        self._offsets: dict[str, int] = {}
        file = self._bytes
        if file.size < 10:
            raise damaged(f"it has {file.size} bytes, too few for a safetensors file")
        length = int.from_bytes(file.read_at(0, 8), "little")
        if length > MAX_HEADER:
            what = f"it announces a header of {length} bytes, more than {MAX_HEADER}, or is no safetensors file"
            raise not_the_file(file.read_at(0, min(file.size, 64))) or damaged(what)
        header = _parse(file.read_at(8, length))
        metadata = header.pop("__metadata__", {})
        if type(metadata) is not dict or not all(type(value) is str for value in metadata.values()):
            raise damaged("its metadata is not text by name")
        self.metadata: dict[str, str] = metadata
        at = 0
        for name, (start, stop, dtype, shape) in sorted(
            ((name, _entry(name, entry)) for name, entry in header.items()), key=lambda item: item[1][:2]
        ):
            if start != at:
                raise unsafe(f"the bytes of tensor {name!r} do not start where those before it end")
            storage = StorageRef(name, dtype, (stop - start) // dtype.itemsize)
            ref = TensorRef(storage, 0, shape, _row_major(shape), dtype)
            if ref.numel * dtype.itemsize != stop - start:
                raise unsafe(f"tensor {name!r} of shape {list(shape)} does not fill its {stop - start} bytes")
            self.refs[name] = ref
            self._offsets[name] = 8 + length + start
            at = stop
        if 8 + length + at != file.size:
            raise damaged(f"its header describes {8 + length + at} bytes, but it has {file.size}")


def _parse(raw: bytes) -> dict[str, Any]:
    try:
        header = json.loads(raw.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError, MemoryError) as error:
        raise damaged(f"its header is no plain JSON ({error})") from error
    if type(header) is not dict or not raw.startswith(b"{"):
        raise damaged("its header is not a JSON object")
    return header


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise unsafe("its header has the same name twice")
    return made


def _no_constant(text: str) -> NoReturn:
    raise damaged(f"its header has {text} where a number should be")


def _entry(name: str, entry: Any) -> tuple[int, int, torch.dtype, tuple[int, ...]]:
    """One tensor's first byte, the byte after its last one, its type and its shape."""
    parts = name.replace("\\", "/").split("/")
    if not 0 < len(name) <= MAX_NAME or not name.isprintable() or ".." in parts or name[:1] in "/\\" or name[1:2] == ":":
        raise unsafe(f"it has a tensor with the odd name {name[:80]!r}")
    if type(entry) is not dict or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise damaged(f"the header entry of tensor {name!r} is not one of type, shape and offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if type(dtype) is not str or dtype not in _DTYPES:
        raise CheckpointError(
            f"tensor {name!r} has a type that is not read here ({str(dtype)[:20]}). "
            f"Types are {', '.join(_DTYPES)}. Convert the file to one of them."
        )
    lists = type(shape) is list and type(offsets) is list and len(offsets) == 2
    if (
        not lists
        or len(shape) > MAX_DIMENSIONS
        or not all(type(number) is int and 0 <= number < 1 << 48 for number in (*shape, *offsets))
    ):
        raise unsafe(f"tensor {name!r} has a shape or offsets that are no counts")
    start, stop = offsets
    if stop < start or (stop - start) % _DTYPES[dtype].itemsize:
        raise unsafe(f"the bytes of tensor {name!r} end before they start, or inside an element")
    return start, stop, _DTYPES[dtype], tuple(shape)


def _row_major(shape: tuple[int, ...]) -> tuple[int, ...]:
    strides: list[int] = []
    step = 1
    for size in reversed(shape):
        strides.append(step)
        step *= max(size, 1)
    return tuple(reversed(strides))
