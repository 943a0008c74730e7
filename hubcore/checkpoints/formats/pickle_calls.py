"""The few calls that a checkpoint may ask for, each done by building the plain value that the call would have made."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch

from hubcore.checkpoints.formats.records import GlobalName, Opaque
from hubcore.checkpoints.formats.tensor_ref import PLAIN_DTYPES, StorageRef, TensorRef, damaged, unsafe

MAX_COPIED = 16 << 20  # bytes that calls may duplicate
MAX_TENSORS = 50_000  # ten times what the largest speech model and its optimizer state have
MAX_KEY = 4096  # characters; equal keys are compared character by character, over and over
# Keys that are neither text nor bytes: Python hashes them predictably, so that they can be made to collide. Tuples can
# even share a whole hash, which makes each meeting of two of them dearer.
MAX_ODD_KEYS = 20_000
_TUPLE_KEY_COST = 10
_ELEMENT_COST = 16


class Calls:
    """Calls of one pickle, counted against its limits."""

    def __init__(self) -> None:
        self._copies_left = MAX_COPIED
        self._odd_keys_left = MAX_ODD_KEYS
        self._tensors_left = MAX_TENSORS
        self._used_as: dict[str, torch.dtype] = {}

    def result(self, function: GlobalName, args: tuple[Any, ...]) -> object:
        """Value that `function(*args)` stands for: plain data for a known name, an inert record for every other one."""
        dotted = function.dotted
        if dotted in _BUILDERS:
            try:
                return _BUILDERS[dotted](self, *args)
            except TypeError as error:
                raise damaged(f"its pickle calls {dotted} with arguments that do not fit") from error
        if function.module in _TENSOR_MODULES and function.name.startswith("_rebuild"):
            raise unsafe(f"it holds a tensor made by {dotted}; only plain dense tensors are read")
        return Opaque(function.module, function.name, args)

    def _ordered_dict(self, pairs: Any = ()) -> dict[Any, Any]:
        if type(pairs) not in (list, tuple, dict):
            raise damaged("its pickle makes a dict from something that is no list of pairs")
        self._copied(_ELEMENT_COST * len(pairs))
        if type(pairs) is dict:
            return dict(pairs)
        if not all(type(pair) in (list, tuple) and len(pair) == 2 for pair in pairs):
            raise damaged("its pickle makes a dict from something that is no list of pairs")
        made: dict[Any, Any] = {}
        self.fill(made, pairs)
        return made

    def _default_dict(self, factory: object = None, pairs: Any = ()) -> dict[Any, Any]:
        if factory is not None and type(factory) is not GlobalName:
            raise unsafe("its pickle makes a default dict whose factory is not a name")
        return self._ordered_dict(pairs)

    def _make_list(self, values: Any = ()) -> list[Any]:
        if type(values) not in (list, tuple):
            raise damaged("its pickle makes a list from something that is no list")
        self._copied(_ELEMENT_COST * len(values))
        return [*values]

    def _encode(self, text: object, encoding: object = "latin1") -> bytes:
        if type(text) is not str or encoding not in ("latin1", "latin-1"):
            raise damaged("its pickle spells bytes in an unknown way")
        self._copied(len(text) + 33)
        return text.encode("latin-1")

    def _empty_bytes(self) -> bytes:
        return b""

    def _size(self, values: Any = ()) -> tuple[Any, ...]:
        return tuple(self._make_list(values))

    def _tensor(
        self,
        storage: object,
        offset: int,
        shape: object,
        stride: object,
        _requires_grad: object = False,
        _hooks: object = None,
        metadata: object = None,
    ) -> TensorRef:
        if type(storage) is not StorageRef:
            raise damaged("its pickle makes a tensor from something that is no storage")
        return self._window(storage, offset, shape, stride, storage.dtype, metadata)

    def _tensor_v3(
        self,
        storage: object,
        offset: int,
        shape: object,
        stride: object,
        _requires_grad: object,
        _hooks: object,
        kind: object,
        metadata: object = None,
    ) -> TensorRef:
        dtype = PLAIN_DTYPES.get(kind.name) if type(kind) is GlobalName and kind.module == "torch" else None
        if type(storage) is not StorageRef or dtype is None:
            raise unsafe(f"it holds a tensor of type {_spell(kind)}; only plain dense tensors are read")
        return self._window(storage, offset, shape, stride, dtype, metadata)

    def _window(
        self, storage: StorageRef, offset: int, shape: object, stride: object, dtype: torch.dtype, metadata: object
    ) -> TensorRef:
        lazy = metadata is not None and (
            type(metadata) is not dict or len(metadata) > 8 or any(value is not False for value in metadata.values())
        )
        if lazy:
            raise unsafe("it holds a conjugated, negated or otherwise lazy tensor; only plain dense tensors are read")
        self._tensors_left -= 1
        if self._tensors_left < 0:
            raise unsafe(f"it names more than {MAX_TENSORS} tensors")
        if type(shape) is not tuple or type(stride) is not tuple:
            raise damaged("its pickle gives a tensor a shape that is no tuple")
        if self._used_as.setdefault(storage.key, dtype) is not dtype:
            raise unsafe(f"storage {storage.key!r} is used as {self._used_as[storage.key]} and as {dtype}")
        return TensorRef(storage, offset, shape, stride, dtype)

    def _parameter(
        self, tensor: object, _requires_grad: object = True, _hooks: object = None, _state: object = None
    ) -> TensorRef:
        if type(tensor) is not TensorRef:
            raise damaged("its pickle makes a parameter from something that is no tensor")
        return tensor

    def _typed_tensor(self, function: Any, kind: Any, args: Any, _state: object = None) -> object:
        plain = type(kind) is GlobalName and kind.dotted in _TENSOR_CLASSES
        known = type(function) is GlobalName and function.dotted in _TENSOR_FUNCTIONS
        if not plain or not known or type(args) is not tuple:
            raise unsafe(f"it holds a tensor of class {_spell(kind)}, made by {_spell(function)}; only plain ones are read")
        return self.result(function, args)

    def fill(self, target: dict[Any, Any], pairs: Iterable[tuple[Any, Any]]) -> None:
        """Puts pairs into a dict.

        Raises:
            UnsafeCheckpointError: A key is not plain, or there are too many that are not text.
        """
        for key, value in pairs:
            if type(key) is not str or len(key) > MAX_KEY:
                self._check_key(key)
            target[key] = value

    def _check_key(self, key: Any) -> None:
        parts = key if type(key) is tuple else (key,)
        if any(type(part) in (str, bytes) and len(part) > MAX_KEY for part in parts[:8]):
            raise unsafe(f"its pickle uses a text of more than {MAX_KEY} characters as a dict key")
        if type(key) is bytes:
            return
        self._odd_keys_left -= _TUPLE_KEY_COST if type(key) is tuple else 1
        if self._odd_keys_left < 0:
            raise unsafe("its pickle uses too many dict keys that are not text")
        if len(parts) > 8 or not all(type(part) in _KEY_TYPES for part in parts):
            raise unsafe(f"its pickle uses a {type(key).__name__} as a dict key")
        if any(type(part) is int and part.bit_length() > 64 for part in parts):
            raise unsafe("its pickle uses a huge number as a dict key")

    def _copied(self, count: int) -> None:
        self._copies_left -= count
        if self._copies_left < 0:
            raise unsafe("its pickle multiplies a value to a size out of proportion to its own")


def _spell(name: object) -> str:
    # The repr of anything else could be made to take for ever.
    return name.dotted if isinstance(name, GlobalName) else type(name).__name__


_KEY_TYPES = frozenset((str, int, float, bool, type(None), GlobalName))

_TENSOR_MODULES = ("torch._utils", "torch._tensor", "torch")
_TENSOR_CLASSES = ("torch.Tensor", "torch._tensor.Tensor", "torch.nn.parameter.Parameter", "torch.nn.parameter.Buffer")
_BUILDERS: dict[str, Callable[..., object]] = {
    "collections.OrderedDict": Calls._ordered_dict,
    "collections.defaultdict": Calls._default_dict,
    "_codecs.encode": Calls._encode,
    "torch.Size": Calls._size,
    "torch._utils._rebuild_tensor": Calls._tensor,
    "torch._utils._rebuild_tensor_v2": Calls._tensor,
    "torch._utils._rebuild_tensor_v3": Calls._tensor_v3,
    "torch._utils._rebuild_parameter": Calls._parameter,
    "torch._utils._rebuild_parameter_with_state": Calls._parameter,
    "torch._tensor._rebuild_from_type_v2": Calls._typed_tensor,
}
for _module in ("builtins", "__builtin__"):
    _BUILDERS[f"{_module}.dict"] = Calls._ordered_dict
    _BUILDERS[f"{_module}.list"] = Calls._make_list
    _BUILDERS[f"{_module}.bytes"] = Calls._empty_bytes  # how protocol 2 spells b""; others go through _codecs.encode
    _BUILDERS[f"{_module}.tuple"] = Calls._size
_TENSOR_FUNCTIONS = frozenset(name for name in _BUILDERS if name.startswith("torch._utils._rebuild"))
