r"""Files of `joblib.dump` and `pickle.dump`, read as data: objects are inert records, arrays of numbers are themselves.

In a file of joblib the bytes of each array follow the record of it, in the middle of the pickle.
"""

from __future__ import annotations

import os
import zlib
from typing import Any

from hubcore.checkpoints.formats.file_bytes import CheckpointBytes, naming
from hubcore.checkpoints.formats.numpy_array import array_of, count_of, numpy_dtype
from hubcore.checkpoints.formats.pickle_reader import read_pickle_prefix
from hubcore.checkpoints.formats.records import Opaque
from hubcore.checkpoints.formats.tensor_ref import damaged, not_the_file, unsafe
from hubcore.errors import CheckpointError

MAX_BYTES = 512 << 20
MAX_UNFOLDED = 50  # times the compressed size; numbers that were measured hardly shrink
_ZLIB, _GZIP = b"\x78", b"\x1f\x8b"
COMPRESSED = (_ZLIB, _GZIP)
"""First bytes of the compressed files that are read."""
_OTHERS = {b"BZh": "bzip2", b"\x5d\x00": "lzma", b"\xfd7zXZ": "xz", b"\x04\x22\x4d\x18": "lz4"}
_MODULE = "joblib.numpy_pickle"  # scikit-learn had a copy of its own: sklearn.externals.joblib


def read_joblib(path: str | os.PathLike[str]) -> Any:
    """The object in a file of joblib or pickle, also compressed by zlib or gzip, without running anything from it.

    An array of plain numbers is a numpy array; an object of a class is an `Opaque` record; see `read_pickle`. Arrays in a file
    of plain pickle are records too, for `numpy_array`.

    Raises:
        UnsafeCheckpointError: the file asks for more than plain data, or for too much of it.
        CheckpointError: it is missing, damaged or of another kind.

    Example:
        >>> import pickle, tempfile
        >>> from pathlib import Path
        >>> path = Path(tempfile.mkdtemp(), "a.pkl")
        >>> _ = path.write_bytes(zlib.compress(pickle.dumps({"n_clusters": 100})))
        >>> read_joblib(path)
        {'n_clusters': 100}
    """
    with CheckpointBytes(path) as file, naming(file.path):
        if file.size > MAX_BYTES:
            raise unsafe(f"it has {file.size} bytes, more than {MAX_BYTES}")
        data = file.read_at(0, file.size)
        if data.startswith(COMPRESSED):
            data = _unfold(data)
        if not data.startswith(b"\x80"):
            raise _foreign(data[:512])
        value, end = read_pickle_prefix(data, persistent_load=_no_persistent_ids, inline_load=_array_after)
        if end != len(data):
            raise unsafe(f"{len(data) - end} bytes follow the end of its pickle")
        return value


def _unfold(data: bytes) -> bytes:
    most = min(MAX_BYTES, MAX_UNFOLDED * len(data) + (1 << 16))
    machine = zlib.decompressobj(zlib.MAX_WBITS | 32)  # zlib or gzip, by the header
    try:
        unfolded = machine.decompress(data, most)
    except zlib.error as error:
        raise damaged(f"it is not compressed as it begins ({error})") from error
    if not machine.eof:
        if len(unfolded) >= most:
            raise unsafe(f"it unfolds from {len(data)} bytes into more than {most}")
        raise damaged("it ends within what it compresses")
    if machine.unused_data:
        raise unsafe(f"{len(machine.unused_data)} bytes follow what it compresses")
    return unfolded


def _foreign(head: bytes) -> CheckpointError:
    known = not_the_file(head)
    if known:
        return known
    kind = next((kind for magic, kind in _OTHERS.items() if head.startswith(magic)), None)
    if kind:
        return CheckpointError(f"it is compressed by {kind}. Only zlib and gzip are read here. Decompress it first.")
    return damaged("it is no file of joblib or pickle")


def _no_persistent_ids(_: object) -> object:
    raise damaged("its pickle refers to something outside of it")


def _array_after(record: Opaque, data: bytes, at: int) -> tuple[object, int] | None:
    """The array whose bytes follow its record at `at`, and the position after them; None for a record of another class."""
    if not record.module.endswith(_MODULE):
        return None
    if record.name != "NumpyArrayWrapper" or type(record.state) is not dict:
        raise CheckpointError(
            "it was written by joblib before 0.10, with its arrays in files beside it. Save it again with a newer one."
        )
    wrapper = record.state
    dtype, shape = wrapper.get("dtype"), wrapper.get("shape")
    numbers = numpy_dtype(dtype)
    if numbers is None:
        raise unsafe("it holds an array of other things than plain numbers")
    if wrapper.get("numpy_array_alignment_bytes") is not None:
        at += 1 + (data[at] if at < len(data) else 0)
    end = at + count_of(shape) * numbers.itemsize
    if end > len(data):
        raise damaged("it ends inside an array")
    return array_of(memoryview(data)[at:end], dtype, shape, wrapper.get("order")), end
