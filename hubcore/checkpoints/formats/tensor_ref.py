"""References to tensors that are still in their file: what a checkpoint's pickle says about them, checked, unread."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from hubcore.errors import CheckpointError, UnsafeCheckpointError
from hubcore.files import stand_in

MAX_DIMENSIONS = 16

# Names of `torch.<Name>` classes that stand for a storage in a checkpoint. Quantised ones are absent on purpose.
STORAGE_DTYPES: dict[str, torch.dtype] = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexDoubleStorage": torch.complex128,
    "ComplexFloatStorage": torch.complex64,
    "UntypedStorage": torch.uint8,
}
# Names of `torch.<name>` constants that a tensor over an untyped storage may carry.
PLAIN_DTYPES: dict[str, torch.dtype] = {
    str(dtype).removeprefix("torch."): dtype for dtype in (*STORAGE_DTYPES.values(), torch.uint16, torch.uint32, torch.uint64)
}


def damaged(what: str) -> CheckpointError:
    """The error for bytes that are not a whole, intact checkpoint."""
    return CheckpointError(
        f"{what}. The file is damaged, cut short, or no checkpoint. "
        "Fetch it again, and compare its size and sha256 with the published ones."
    )


def not_the_file(head: bytes) -> CheckpointError | None:
    """The error for what stands where a checkpoint should, such as a git-lfs pointer; None if that is not known."""
    found = stand_in(head)
    return found and CheckpointError(f"it is {found[0]}. {found[1]}")


def unsafe(what: str) -> UnsafeCheckpointError:
    """The error for a checkpoint that asks for more than plain data."""
    return UnsafeCheckpointError(
        f"{what}. hubcore reads a checkpoint as plain data, runs nothing from it and bounds what it may cost. "
        "Do not open this file with a general unpickler either; ask its author for a safetensors copy."
    )


@dataclass(frozen=True, slots=True)
class StorageRef:
    """A storage that a checkpoint names: a flat run of `numel` elements, as declared; nothing of it has been read."""

    key: str
    dtype: torch.dtype
    numel: int
    location: str = "cpu"

    @property
    def nbytes(self) -> int:
        """The declared size in bytes."""
        return self.numel * self.dtype.itemsize


_LIMIT = 1 << 48


def _too_many(shape: tuple[int, ...]) -> bool:
    """True if sizes beside a 0 multiply to more than torch can count."""
    return math.prod(size for size in shape if type(size) is int and size) >= 1 << 62


@dataclass(frozen=True, slots=True)
class TensorRef:
    """A tensor that a checkpoint names: a strided window on a storage, not read yet.

    Offset and strides count elements of `dtype`. A window that leaves its storage cannot be constructed.

    Raises:
        UnsafeCheckpointError: The geometry is not one of a plain dense tensor inside its storage.

    Example:
        >>> storage = StorageRef("0", torch.float32, 6)
        >>> TensorRef(storage, 0, (3, 2), (2, 1), torch.float32).numel
        6
    """

    storage: StorageRef
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype

    def __post_init__(self) -> None:
        if len(self.shape) != len(self.stride) or len(self.shape) > MAX_DIMENSIONS:
            raise unsafe(
                f"the tensor in storage {self.storage.key!r} has {len(self.shape)} sizes and {len(self.stride)} strides"
            )
        numbers = (self.offset, *self.shape, *self.stride)
        if any(type(number) is int and number >= _LIMIT for number in numbers) or (0 in self.shape and _too_many(self.shape)):
            raise unsafe(f"the tensor in storage {self.storage.key!r} has a size, stride or offset that is too large to count")
        if any(type(number) is not int or number < 0 for number in numbers):
            raise unsafe(f"the tensor in storage {self.storage.key!r} has a size, stride or offset that is no count")
        if self.dtype is not self.storage.dtype and self.storage.dtype is not torch.uint8:
            raise unsafe(f"storage {self.storage.key!r} holds {self.storage.dtype}, but is used as {self.dtype}")
        room = self.storage.nbytes // self.dtype.itemsize
        # More elements than the storage has would be a small file that fills the memory once it is used.
        if max(self.end, self.numel, self.offset) > room:
            raise unsafe(
                f"a tensor of shape {list(self.shape)}, strides {list(self.stride)} and offset {self.offset} "
                f"leaves its storage {self.storage.key!r} of {room} elements"
            )

    @property
    def numel(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    @property
    def end(self) -> int:
        """The index in the storage after the tensor's last element; the offset if it has none."""
        if 0 in self.shape:
            return self.offset
        return self.offset + 1 + sum((size - 1) * step for size, step in zip(self.shape, self.stride, strict=True))
