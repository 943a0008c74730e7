"""The bytes of one checkpoint file: a single descriptor, sized once, read by position and never mapped.

Everything that reads a checkpoint goes through `CheckpointBytes`, so that what was checked is what is read even when the
path is replaced meanwhile, and so that a file cut short under our feet is an error instead of a dead process.
"""

from __future__ import annotations

import abc
import io
import os
import stat
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar, cast

import torch

from hubcore.checkpoints.formats.tensor_ref import StorageRef, TensorRef, damaged, unsafe
from hubcore.errors import CheckpointError, UnsafeCheckpointError
from hubcore.files import open_at_once

# A chunk still sits in the processor's cache when its checksum is taken.
_CHUNK = 1 << 18


@dataclass(frozen=True, slots=True)
class Span:
    """A storage's place in a file: where its bytes start, how many there are, and their checksum if the file has one."""

    name: str
    offset: int
    nbytes: int
    crc: int | None = None


Opened = TypeVar("Opened", bound="OpenFile")


class OpenFile(abc.ABC):
    """A file that is closed at the end of a `with` block."""

    @abc.abstractmethod
    def close(self) -> None:
        """Gives the file back; reading afterwards is an error."""

    def __enter__(self: Opened) -> Opened:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class CheckpointBytes(OpenFile):
    """A regular file open for reading by position.

    Raises:
        CheckpointError: The path is missing, unreadable or not a regular file.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        self._lock = threading.Lock()
        try:
            self._file = io.FileIO(self.path, "rb", opener=open_at_once)
        except (OSError, ValueError) as error:
            reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
            raise CheckpointError(
                f"{self.path!r} cannot be opened: {reason}. "
                "A checkpoint is a regular file that this user may read. Check the path and its permissions."
            ) from error
        status = os.fstat(self._file.fileno())
        if not stat.S_ISREG(status.st_mode):
            self._file.close()
            raise CheckpointError(
                f"{self.path!r} is not a regular file. A checkpoint is read by position, which needs one. "
                "Give the path of the file itself."
            )
        self.size = status.st_size

    def read_at(self, offset: int, count: int) -> bytes:
        """The `count` bytes that start at `offset`; fewer is an error."""
        buffer = bytearray(count)
        self.read_into(memoryview(buffer), offset)
        return bytes(buffer)

    def read_into(self, target: memoryview, offset: int) -> None:
        """Fills `target` with the bytes that start at `offset`.

        Raises:
            CheckpointError: The file ends first, cannot be read, or was closed.
        """
        if offset < 0 or offset + len(target) > self.size:
            raise damaged(f"it ends after {self.size} bytes, but bytes up to {offset + len(target)} are needed")
        done = 0
        with self._lock:
            try:
                self._file.seek(offset)
                while done < len(target):
                    count = self._file.readinto(target[done:])
                    if not count:
                        raise damaged(f"it was cut short while it was being read, at byte {offset + done}")
                    done += count
            except (OSError, ValueError) as error:
                raise CheckpointError(
                    f"reading stopped at byte {offset + done}: {error}. "
                    "The tensors of a checkpoint are read on demand. Keep the file open, and check the disk."
                ) from error

    def read_elements(
        self, span: Span, dtype: torch.dtype, first: int, last: int, into: torch.dtype | None = None
    ) -> torch.Tensor:
        """The elements `first` to `last` (exclusive) of a storage as a new 1-D tensor, its checksum compared.

        Elements outside that range are only read where the checksum needs them, and are not kept. They are converted to
        `into` piece by piece, so that the storage is never in memory twice.
        """
        into = into or dtype
        try:
            tensor = torch.empty(last - first, dtype=into, device="cpu")
        except (RuntimeError, MemoryError) as error:
            raise CheckpointError(
                f"{span.name} does not fit in memory. It takes {(last - first) * into.itemsize} bytes. "
                "Free some memory, or ask for fewer tensors."
            ) from error
        start, stop = span.offset + first * dtype.itemsize, span.offset + last * dtype.itemsize
        crc = 0 if span.crc is None else self._checksum(span.offset, start - span.offset, 0)
        step = _CHUNK // dtype.itemsize
        piece = None if into == dtype else torch.empty(step, dtype=dtype, device="cpu")
        for at in range(0, last - first, step):
            part = tensor[at : at + step]
            source = part if piece is None else piece[: len(part)]
            chunk = memoryview(cast("bytearray", source.view(torch.uint8).numpy()))
            self.read_into(chunk, start + at * dtype.itemsize)
            if span.crc is not None:
                crc = zlib.crc32(chunk, crc)
            if source is not part:
                part.copy_(source)
        if span.crc is not None and self._checksum(stop, span.offset + span.nbytes - stop, crc) != span.crc:
            raise damaged(f"the bytes of {span.name} are not those that were written (their CRC-32 differs)")
        if dtype is torch.bool and tensor.numel() and int(tensor.view(torch.uint8).max()) > 1:
            raise damaged(f"{span.name} holds booleans that are neither 0 nor 1")
        return tensor

    def _checksum(self, offset: int, count: int, crc: int) -> int:
        scratch = memoryview(bytearray(min(count, _CHUNK)))
        for at in range(0, count, _CHUNK):
            chunk = scratch[: min(_CHUNK, count - at)]
            self.read_into(chunk, offset + at)
            crc = zlib.crc32(chunk, crc)
        return crc

    def close(self) -> None:
        """Gives the descriptor back; reading afterwards is an error."""
        self._file.close()


class TensorFile(OpenFile):
    """A file of tensors, open for reading: what safetensors files and those of `torch.save` have in common.

    Opening it reads its structure only, which the subclass does in `_open`; tensors are read into memory of their own.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._bytes = CheckpointBytes(path)
        self.path = self._bytes.path
        try:
            with naming(self.path):
                self._open()
        except BaseException:
            self._bytes.close()
            raise

    @abc.abstractmethod
    def _open(self) -> None:
        """Reads the structure."""

    @abc.abstractmethod
    def _span(self, storage: StorageRef) -> Span | None:
        """Place of a storage; None if it is of another file."""

    def read(self, ref: TensorRef, *, dtype: torch.dtype | None = None) -> torch.Tensor:
        """The tensor behind a reference of this file, with its strides. See `read_many`."""
        return self.read_many({"": ref}, dtype=dtype)[""]

    def read_many(self, refs: Mapping[str, TensorRef], *, dtype: torch.dtype | None = None) -> dict[str, torch.Tensor]:
        """The tensors behind references of this file, by the names given here; each storage is read once.

        References into one storage give tensors that share memory. The memory at the peak is that of the result, and of
        one storage more where `dtype` converts.

        Args:
            refs: A reference per name.
            dtype: If given, every floating-point tensor is converted to it; other tensors keep their type.

        Raises:
            CheckpointError: The bytes are not those that were written, or a reference is of another file.
        """

        def locate(storage: StorageRef) -> Span:
            span = self._span(storage)
            if span is None:
                raise CheckpointError(
                    f"storage {storage.key!r} is not one of this file's. A reference can be read from the file it came from. "
                    "Take the reference from this file."
                )
            return span

        with naming(self.path):
            return read_tensors(self._bytes, refs, locate, dtype)

    def close(self) -> None:
        """Gives the file back; references stay, their tensors can no longer be read."""
        self._bytes.close()


def read_tensors(
    file: CheckpointBytes,
    wanted: Mapping[str, TensorRef],
    locate: Callable[[StorageRef], Span],
    dtype: torch.dtype | None = None,
) -> dict[str, torch.Tensor]:
    """The tensors behind `wanted`, each storage read once, in file order, and kept only as far as it is used.

    References into one storage stay tied: the tensors share memory. Where they use less than half of the part that
    they span, they are copied out instead, so that a small slice does not keep a large storage alive.

    Args:
        file: The open file.
        wanted: A reference per name.
        locate: Says where a storage lies.
        dtype: If given, every floating-point tensor is converted to it.
    """
    if dtype is not None and not dtype.is_floating_point:
        raise CheckpointError(
            f"tensors cannot be read as {dtype}. Only floating-point tensors are converted while reading. "
            "Ask for torch.float32, torch.float64, torch.float16 or torch.bfloat16."
        )
    users: dict[Span, list[str]] = {}
    for name, ref in wanted.items():
        users.setdefault(locate(ref.storage), []).append(name)
    found: dict[str, torch.Tensor] = {}
    for span in sorted(users, key=lambda span: span.offset):
        group = {name: wanted[name] for name in users[span]}
        found.update(_read_group(file, span, group, dtype))
    return {name: found[name] for name in wanted}


def _read_group(
    file: CheckpointBytes, span: Span, group: Mapping[str, TensorRef], dtype: torch.dtype | None
) -> dict[str, torch.Tensor]:
    dtypes = {ref.dtype for ref in group.values()}
    if len(dtypes) > 1:
        raise unsafe(f"{span.name} is used as {' and as '.join(sorted(map(str, dtypes)))} at once")
    filled = [ref for ref in group.values() if ref.numel]
    first = min((ref.offset for ref in filled), default=0)
    last = max((ref.end for ref in filled), default=0)
    written = dtypes.pop()
    elements = file.read_elements(span, written, first, last, dtype if written.is_floating_point else None)
    distinct = {(ref.offset, ref.shape, ref.stride): ref for ref in filled}
    scattered = 2 * sum(ref.numel for ref in distinct.values()) < last - first
    views: dict[tuple[int, tuple[int, ...], tuple[int, ...]], torch.Tensor] = {}
    tensors = {}
    for name, ref in group.items():
        place = (ref.offset, ref.shape, ref.stride)
        if place not in views:
            view = elements.as_strided(ref.shape, ref.stride, ref.offset - first if ref.numel else 0)
            views[place] = view.clone() if scattered else view
        # A fresh view each, so that resizing or retyping one name's tensor leaves the tied one alone.
        tensors[name] = views[place].view_as(views[place])
    return tensors


@contextmanager
def naming(path: str) -> Iterator[None]:
    """Puts the file's name in front of the message of a checkpoint error raised inside."""
    try:
        yield
    except UnsafeCheckpointError as error:
        raise UnsafeCheckpointError(f"{path!r} is refused: {error}") from error
    except CheckpointError as error:
        raise CheckpointError(f"{path!r} cannot be read: {error}") from error
