"""Configurations as JSON-like values: the records that a pickle leaves of Namespaces, OmegaConf nodes, enums and paths."""

from __future__ import annotations

from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np

from hubcore.checkpoints.formats.numpy_array import numpy_dtype
from hubcore.checkpoints.formats.records import GlobalName, Opaque
from hubcore.checkpoints.formats.tensor_ref import StorageRef, TensorRef, unsafe

MAX_DEPTH = 60
MAX_NODES = 1_000_000
_CHARACTERS_PER_NODE = 256
_RECORD_COST = 5

_SCALARS = frozenset((type(None), bool, int, float))
_NAMESPACES = frozenset(("argparse.Namespace", "types.SimpleNamespace"))
_SETS = frozenset(f"{module}.{name}" for module in ("builtins", "__builtin__") for name in ("set", "frozenset"))
_GETATTR = frozenset(("builtins.getattr", "__builtin__.getattr"))
_NUMPY_SCALARS = frozenset(("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar"))


def plain(node: object) -> Any:
    """The JSON-like value of a node of `TorchFile.tree`: dicts with text keys, lists, text, numbers, booleans and None.

    Namespaces and OmegaConf containers become dicts and lists; OmegaConf leaves, enums, paths and numpy scalars become
    their values (an enum that was written by name, that name); tuples and sets become lists; names of classes become text.
    An object of any other class becomes a dict of its attributes with its class under `__class__`; a tensor becomes its shape
    under `__tensor__`.

    Raises:
        UnsafeCheckpointError: The node contains itself, or is too deep or too large for a configuration.

    Example:
        >>> plain(Opaque("argparse", "Namespace", state={"lr": (0.1,), "criterion": Opaque("my", "Loss", ("ctc",))}))
        {'lr': [0.1], 'criterion': 'ctc'}
    """
    return _Plainer().value(node, 0)


class _Plainer:
    """One conversion: what it may still spend, and the nodes it is inside of."""

    def __init__(self) -> None:
        self._left = MAX_NODES
        self._inside: set[int] = set()

    def value(self, node: Any, depth: int) -> Any:
        self._spend(1)
        kind = type(node)
        if kind in _SCALARS:
            return node
        if kind is str:
            self._spend(len(node) // _CHARACTERS_PER_NODE)
            return node
        if kind is bytes:
            return {"__bytes__": len(node)}
        if kind is TensorRef:
            return {"__tensor__": list(node.shape), "dtype": str(node.dtype).removeprefix("torch.")}
        if kind is StorageRef:
            return {"__storage__": node.numel, "dtype": str(node.dtype).removeprefix("torch.")}
        if kind is GlobalName:
            return node.dotted
        if depth >= MAX_DEPTH:
            raise unsafe(f"a configuration in it is nested more than {MAX_DEPTH} deep")
        if id(node) in self._inside:
            raise unsafe("a configuration in it contains itself")
        self._inside.add(id(node))
        made = self._composite(node, depth + 1)
        self._inside.discard(id(node))
        return made

    def _spend(self, count: int) -> None:
        self._left -= count
        if self._left < 0:
            raise unsafe(f"a configuration in it has more than {MAX_NODES} values")

    def _composite(self, node: Any, depth: int) -> Any:
        if type(node) is dict:
            return self._dict(node.items(), depth)
        if type(node) in (list, tuple):
            return [self.value(item, depth) for item in node]
        if type(node) is Opaque:
            self._spend(_RECORD_COST)
            return self._record(node, depth)
        raise TypeError(f"{type(node).__name__} is not a node of a checkpoint's tree; give a part of `TorchFile.tree`")

    def _dict(self, pairs: Any, depth: int) -> dict[str, Any]:
        made: dict[str, Any] = {}
        for key, item in pairs:
            name = key if type(key) is str else self._key(key, depth)
            if name in made:
                raise unsafe(f"a configuration in it has two keys that are both written {name[:80]!r}")
            made[name] = self.value(item, depth)
        return made

    def _key(self, key: Any, depth: int) -> str:
        value = self.value(key, depth)
        if type(value) in (dict, list):
            raise unsafe(f"a configuration in it uses a {type(key).__name__} as a key")
        return str(value)

    def _record(self, record: Opaque, depth: int) -> Any:
        state = record.state if type(record.state) is dict else {}
        dotted = record.dotted
        if dotted in _NAMESPACES:
            return self._dict(state.items(), depth)
        if record.module.startswith("omegaconf."):
            for attribute in ("_content", "_val"):
                if attribute in state:
                    return self.value(state[attribute], depth)
        if dotted in _SETS:
            values: Any = record.elements or (record.args[0] if len(record.args) == 1 else ())
            if type(values) in (list, tuple):
                return [self.value(item, depth) for item in values]
        if record.module.startswith("pathlib") and record.name.endswith("Path"):
            self._spend(sum(1 + len(part) for part in record.args if type(part) is str))
            return _path(record)
        if dotted in _NUMPY_SCALARS:
            number = _numpy_scalar(record)
            if number is not None:
                return number
        if _looks_like_enum(record):
            return self.value(record.args[0], depth)
        if dotted in _GETATTR and [type(argument) for argument in record.args] == [GlobalName, str]:
            return self.value(record.args[1], depth)  # an enum of Python 3.11.0 to 3.11.3, which wrote the member's name
        return self._object(record, state, depth)

    def _object(self, record: Opaque, state: dict[Any, Any], depth: int) -> dict[str, Any]:
        made: dict[str, Any] = {"__class__": record.dotted}
        if record.args:
            made["__args__"] = [self.value(item, depth) for item in record.args]
        if record.items:
            made["__items__"] = [[self.value(key, depth), self.value(item, depth)] for key, item in record.items]
        if record.elements:
            made["__elements__"] = [self.value(item, depth) for item in record.elements]
        if record.state is not None and type(record.state) is not dict:
            made["__state__"] = self.value(record.state, depth)
        attributes = self._dict(state.items(), depth)
        return made | {name: item for name, item in attributes.items() if name not in made}


def _looks_like_enum(record: Opaque) -> bool:
    """Recognises a pickled enum member (or subclass of text or numbers): a class called with its value."""
    bare = record.state is None and not record.items and not record.elements and len(record.args) == 1
    return bare and type(record.args[0]) in (str, int, float, bool) and record.name.rpartition(".")[2][:1].isupper()


def _path(record: Opaque) -> str:
    parts = [part for part in record.args if type(part) is str]
    return str(PureWindowsPath(*parts) if "Windows" in record.name else PurePosixPath(*parts))


def _numpy_scalar(record: Opaque) -> bool | int | float | None:
    """The number of a pickled numpy scalar, or None if it is not of a numeric type."""
    described, raw = record.args if len(record.args) == 2 else (None, None)
    dtype = numpy_dtype(described)
    if dtype is None or not isinstance(raw, bytes) or len(raw) != dtype.itemsize:
        return None
    number: bool | int | float = np.frombuffer(raw, dtype).item()
    return number
