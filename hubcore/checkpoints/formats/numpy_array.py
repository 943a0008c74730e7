"""Arrays of numpy that a pickle describes, built from their bytes: plain numbers only, no larger than the file."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hubcore.checkpoints.formats.records import Opaque
from hubcore.checkpoints.formats.tensor_ref import MAX_DIMENSIONS, damaged, unsafe

_NUMBERS = frozenset(("f2", "f4", "f8", "b1", *(f"{sign}{size}" for sign in "iu" for size in (1, 2, 4, 8))))
_MODULES = ("numpy.core", "numpy._core")
_MADE_BY_STATE = frozenset(f"{module}.multiarray._reconstruct" for module in _MODULES)
_MADE_BY_CALL = frozenset(f"{module}.numeric._frombuffer" for module in _MODULES)


def numpy_dtype(record: object) -> np.dtype[Any] | None:
    """The type that a pickle describes, if it is one of plain numbers; None for any other.

    Example:
        >>> numpy_dtype(Opaque("numpy", "dtype", ("f4", False, True), (3, ">", None, None, None, -1, -1, 0)))
        dtype('>f4')
    """
    name = record.args[0] if isinstance(record, Opaque) and record.args else None
    if not isinstance(record, Opaque) or type(name) is not str or name not in _NUMBERS:
        return None
    order = record.state[1] if type(record.state) is tuple and len(record.state) > 1 else "<"
    if type(order) is not str or order not in ("<", ">", "|", "="):
        return None
    return np.dtype((">" if order == ">" else "<") + name)


def numpy_array(record: Opaque) -> NDArray[Any] | None:
    """The array that a record of a pickle stands for; None if it is no array.

    Raises:
        UnsafeCheckpointError: it is one of other things than plain numbers.
        CheckpointError: its bytes are not as many as its shape needs.

    Example:
        >>> dtype = Opaque("numpy", "dtype", ("i2",))
        >>> numpy_array(Opaque("numpy._core.numeric", "_frombuffer", (b"1020", dtype, (2, 1), "C"))).tolist()
        [[12337], [12338]]
    """
    if record.dotted in _MADE_BY_CALL and len(record.args) == 4:
        raw, dtype, shape, order = record.args
        return array_of(raw, dtype, shape, order)
    if record.dotted in _MADE_BY_STATE and type(record.state) is tuple and len(record.state) == 5:
        _, shape, dtype, fortran, raw = record.state
        return array_of(raw, dtype, shape, "F" if fortran is True else "C")
    return None


def array_of(raw: object, dtype: object, shape: object, order: object) -> NDArray[Any]:
    """The array with these bytes, which it shares; see `numpy_array`."""
    numbers = numpy_dtype(dtype)
    if numbers is None:
        raise unsafe("it holds an array of other things than plain numbers")
    count = count_of(shape)
    if not isinstance(raw, bytes | memoryview) or len(raw) != count * numbers.itemsize:
        raise damaged("it holds an array whose bytes are not as many as its shape needs")
    sizes = shape if isinstance(shape, tuple) else ()
    return np.ndarray(sizes, numbers, raw, order="F" if order == "F" else "C")


def count_of(shape: object) -> int:
    """The number of elements of a shape.

    Raises:
        UnsafeCheckpointError: it is no shape.
    """
    sizes = shape if type(shape) is tuple and len(shape) <= MAX_DIMENSIONS else (None,)
    if not all(type(size) is int and 0 <= size < 1 << 48 for size in sizes):
        raise unsafe("it holds an array whose shape is none")
    return math.prod(size for size in sizes if type(size) is int)
