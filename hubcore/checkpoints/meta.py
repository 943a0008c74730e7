"""A model without memory: its names and shapes, before its weights come from a file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode


@contextmanager
def without_memory() -> Iterator[None]:
    """A context in which what is built has names and shapes only: every tensor is made on the meta device.

    Example:
        >>> with without_memory():
        ...     layer = nn.Embedding(1 << 30, 1024)
        >>> layer.weight.shape, layer.weight.is_meta
        (torch.Size([1073741824, 1024]), True)
    """
    with torch.device("meta"), _NoDraws():
        yield


class _NoDraws(TorchFunctionMode):
    """Leaves out normal random numbers: on the meta device, torch imports torch._dynamo for them, which takes over a second."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is nn.init.normal_ or func is Tensor.normal_:
            return args[0] if args else (kwargs or {})["tensor"]
        return func(*args, **(kwargs or {}))
