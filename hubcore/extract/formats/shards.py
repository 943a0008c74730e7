"""`ShardWriter`: formats that keep the utterances of a block in one file, and map each array into memory when it is read.

A shard has no time in it and nothing of the machine, so the same block gives the same bytes.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hubcore.extract.writers import FileWriter
from hubcore.text import text_path

UNREADABLE = (OSError, ValueError, KeyError, EOFError)
"""Exceptions of reading a file that is damaged or of another kind."""


class Place(NamedTuple):
    """The bytes of a shard that an array lies in."""

    dtype: str
    """`float32`, `float16` or `bfloat16`, little-endian."""
    shape: tuple[int, ...]
    """Its shape."""
    offset: int
    """The first of its bytes."""

    @property
    def end(self) -> int:
        """The byte after its last one."""
        return self.offset + _stored(self.dtype).itemsize * int(np.prod(self.shape))


class ShardWriter(FileWriter):
    """A format of shards, `shards/00000.<suffix>` and so on; a subclass says how one is written and what is where in it."""

    place = "shards"
    suffix: ClassVar[str]
    """The ending of the files."""

    def __init__(self, folder: Path) -> None:
        """A writer into `folder`; see `FileWriter`."""
        super().__init__(folder)
        self._found: dict[str, set[tuple[str, tuple[int, ...]]]] = {}

    def begin_block(self, number: int) -> None:
        """Begins the shard of a block."""
        self._file = f"{self.place}/{number:05}{self.suffix}"
        self._written = 0
        with self.refusals(self._file):
            self._shard = self.partial()
            self.start(self._shard)

    def write(self, utterance: str, features: NDArray[Any]) -> str:
        """Adds an array to the shard, whose path it returns.

        Raises:
            AudioError: the format cannot hold this name.
            ExtractionError: the file system refuses.
        """
        with self.refusals(self._file):
            self.add(utterance, np.ascontiguousarray(features))
        self._written += 1
        return self._file

    def end_block(self) -> None:
        """Gives the shard its name, in place of an earlier one; a shard of nothing is removed."""
        with self.refusals(self._file):
            self.finish()
            if self._written:
                self.put(self._shard, self._file)
            else:
                (self.folder / self._file).unlink(missing_ok=True)

    def holds(self, file: str, shape: tuple[int, ...], dtype: str) -> bool:
        """True if a shard exists, is whole, and has an array of this shape and type."""
        if file not in self._found:
            try:
                self._found[file] = self.kinds(self.folder / text_path(file))
            except UNREADABLE:
                self._found[file] = set()
        return (dtype, shape) in self._found[file]

    @classmethod
    def kinds(cls, path: Path) -> set[tuple[str, tuple[int, ...]]]:
        """Type and shape of the arrays of a shard; none if it was cut off."""
        found = cls.look(path).values()
        cut = os.path.getsize(path) < max((place.end for place in found), default=0)
        return set() if cut else {(place.dtype, place.shape) for place in found}

    @classmethod
    def read(cls, folder: Path, row: Mapping[str, Any]) -> NDArray[Any]:
        """The array, mapped into memory; bfloat16 as float32."""
        path = folder / text_path(row["file"])
        found = cls.look(path)[row["utterance"]]
        array = np.memmap(path, _stored(found.dtype), mode="r", offset=found.offset, shape=found.shape)
        return (array.astype(np.uint32) << 16).view(np.float32) if found.dtype == "bfloat16" else array

    @classmethod
    def look(cls, path: Path) -> Mapping[str, Place]:
        """The place of every array of a shard by utterance, kept until the file changes."""
        status = os.stat(path)
        return _look(cls.places, path, status.st_size, status.st_mtime_ns)

    def start(self, path: Path) -> None:
        """Opens a new shard."""
        raise NotImplementedError

    def add(self, utterance: str, features: NDArray[Any]) -> None:
        """Adds an array to it."""
        raise NotImplementedError

    def finish(self) -> None:
        """Writes what is left, and closes it."""
        raise NotImplementedError

    @classmethod
    def places(cls, path: Path) -> Mapping[str, Place]:
        """The place of every array of a shard.

        Raises:
            OSError, ValueError, KeyError, EOFError: it is damaged or of another kind.
        """
        raise NotImplementedError


@functools.lru_cache(maxsize=1024)
def _look(
    places: Callable[[Path], Mapping[str, Place]],
    path: Path,
    size: int,  # noqa: ARG001 - with the time, it tells whether the file is still the same
    mtime_ns: int,  # noqa: ARG001
) -> Mapping[str, Place]:
    return places(path)


def _stored(dtype: str) -> np.dtype[Any]:
    return np.dtype("<u2" if dtype == "bfloat16" else dtype).newbyteorder("<")
