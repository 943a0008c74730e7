"""An upstream on a GPU that need not exist: tensors with a shape and a device but no values, and a record of what was called.

`FakeTensorMode` stops at every call whose result depends on values (`.item()`, `nonzero`, a boolean index), as a GPU would
wait there. Three things that it cannot do where torch was built without CUDA stand in `_Calls`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from unittest.mock import MagicMock

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

GPU = torch.device("cuda", 0)


class Recorder(TorchDispatchMode):
    """Counts what is dispatched; `crossings` are copies between host and device that the host waits for."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()
        self.crossings: list[str] = []

    @property
    def number(self) -> int:
        """Operations on tensors, views among them, but not that an array of the host becomes a tensor."""
        free = ("prim.", "aten.promote_types", "aten.lift_fresh")
        return sum(number for name, number in self.calls.items() if not name.startswith(free))

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        self.calls[str(function)] += 1
        kwargs = kwargs or {}
        if function is torch.ops.aten.convolution.default and args[0].device == GPU:
            x, weight, _, (stride,), (padding,), *_ = args
            return x.new_empty(len(x), len(weight), (x.shape[2] + 2 * padding - weight.shape[2]) // stride + 1)
        out = function(*args, **kwargs)
        given = [value.device for value in args if isinstance(value, Tensor) and value.ndim]
        if isinstance(out, Tensor) and given and given[0] != out.device and not kwargs.get("non_blocking"):
            self.crossings.append(f"{function}: {given[0]} to {out.device}")
        return out


class _Calls(TorchFunctionMode):
    """Indexing by slices, and attention, as one call each."""

    def __torch_function__(
        self, function: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if function is torch.Tensor.__getitem__:
            return _indexed(*args)
        if function is nn.functional.scaled_dot_product_attention:
            return args[0] * 1
        return function(*args, **(kwargs or {}))


def _indexed(x: Tensor, index: Any) -> Tensor:
    places = index if isinstance(index, tuple) else (index,)
    if Ellipsis in [place for place in places if not isinstance(place, Tensor)]:
        at = [place is Ellipsis for place in places].index(True)
        named = sum(place is not None for place in places) - 1
        places = (*places[:at], *[slice(None)] * (x.ndim - named), *places[at + 1 :])
    dim = 0
    for place in places:
        if isinstance(place, int):
            x = x.select(dim, place)
            continue
        if place is None:
            x = x.unsqueeze(dim)
        elif isinstance(place, Tensor):
            x = torch.ops.aten.index(x, [None] * dim + [place])
        elif place != slice(None):
            x = torch.ops.aten.slice(x, dim, place.start, place.stop, place.step or 1)
        dim += 1
    return x


@contextmanager
def fake_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, MagicMock]]:
    """A context in which tensors on `GPU` can be made and computed with; gives its two streams."""
    streams = {name: MagicMock() for name in ("Stream", "current_stream")}
    with monkeypatch.context() as patch:
        patch.setattr(torch.Tensor, "pin_memory", lambda self: self)
        patch.setattr(torch.cuda, "get_device_capability", lambda *_: (9, 0))
        patch.setattr(torch.backends.cuda, "is_flash_attention_available", lambda: True)
        for name in ("Stream", "current_stream"):
            patch.setattr(torch.cuda, name, lambda _device, name=name: streams[name])
        patch.setattr(torch.cuda, "stream", lambda stream: stream)
        patch.setattr(torch.Tensor, "record_stream", lambda _, stream: stream.used())
        made = torch.empty
        patch.setattr(torch, "empty", lambda *args, pin_memory=False, **options: made(*args, **options))
        with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
            yield streams


def move_to_gpu(upstream: nn.Module) -> None:
    """Gives an upstream that was made on the meta device weights on the GPU."""
    state = {name: torch.empty_like(weight, device=GPU) for name, weight in upstream.state_dict().items()}
    upstream.load_state_dict(state, assign=True)


def record(
    monkeypatch: pytest.MonkeyPatch, make: Callable[[], Any], dtype: torch.dtype, seconds: Sequence[float], **options: Any
) -> Recorder:
    """What an upstream calls for waveforms on the GPU; their check, which waits once, is left out."""
    with torch.device("meta"):
        upstream = make().eval().to(dtype)
    with fake_gpu(monkeypatch):
        move_to_gpu(upstream)
        wavs = [torch.empty(int(16000 * length), device=GPU) for length in seconds]
        monkeypatch.setattr(upstream, "check_input", lambda rows, _lengths: rows)
        with Recorder() as recorder, _Calls():
            assert upstream(wavs, **options).hidden_states
    return recorder
