"""The choice between computing a ragged batch utterance by utterance and in few calls, and the indices the latter needs.

A CPU is fastest with one utterance after the other, whose rows stay in its cache. On a GPU every call is a launch, which costs
as much as thousands of frames, and whoever reads a number back waits for all of them. There, one call serves all utterances;
their lengths stay on the host, and indices made of them are sent without waiting. `few_calls` decides.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Made = TypeVar("Made")
_forced: bool | None = None


def few_calls(device: torch.device) -> bool:
    """True if work on a device should be few large calls: on a GPU of NVIDIA or AMD, unless torch traces the model.

    Example:
        >>> few_calls(torch.device("cpu")), few_calls(torch.device("cuda"))
        (False, True)
    """
    if torch.compiler.is_compiling():  # a graph has one batch shape, whose loops are written out
        return False
    return device.type == "cuda" if _forced is None else _forced


@contextmanager
def force_few_calls(value: bool = True) -> Iterator[None]:
    """A context in which `few_calls` gives `value` on every device, such as to test on a CPU what a GPU would compute.

    Example:
        >>> with force_few_calls():
        ...     few_calls(torch.device("cpu"))
        True
    """
    global _forced
    before, _forced = _forced, value
    try:
        yield
    finally:
        _forced = before


def upload(values: npt.NDArray[Any], device: torch.device) -> Tensor:
    """An array on a device; the host does not wait for the copy, nor for anything before it.

    Example:
        >>> upload(np.arange(3), torch.device("cpu")).tolist()
        [0, 1, 2]
    """
    tensor = torch.from_numpy(values)
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def send(rows: Sequence[Tensor], device: torch.device, dtype: torch.dtype) -> list[Tensor]:
    """1-D tensors of the host on a GPU: one copy through pinned memory, made while the GPU still computes.

    Elsewhere, and where one requires a gradient, each is sent by itself.

    Example:
        >>> send([torch.zeros(2), torch.zeros(1)], torch.device("cpu"), torch.float64)[1]
        tensor([0.], dtype=torch.float64)
    """
    if device.type != "cuda" or any(row.requires_grad for row in rows):
        return [row.to(device, dtype) for row in rows]
    sizes = [len(row) for row in rows]
    host = torch.cat([*rows], out=torch.empty(sum(sizes), dtype=dtype, device="cpu", pin_memory=True))
    copies, computing = _copies(device), torch.cuda.current_stream(device)
    with torch.cuda.stream(copies):
        sent = host.to(device, non_blocking=True)
    computing.wait_stream(copies)
    sent.record_stream(computing)
    return [*sent.split(sizes)]


@cache
def _copies(device: torch.device) -> torch.cuda.Stream:
    """The stream on which a GPU copies."""
    return torch.cuda.Stream(device)


def numbers_on(device: torch.device, numbers: Sequence[int]) -> Tensor:
    """Whole numbers on a device, int64; without waiting where work there is few calls.

    Example:
        >>> numbers_on(torch.device("cpu"), [2, 3])
        tensor([2, 3])
    """
    if few_calls(device):
        return upload(np.array(numbers, np.int64), device)
    return torch.tensor(numbers, dtype=torch.int64, device=device)


class Counts(list[int]):
    """The frames of each utterance, never changed; what is made of them is made once, however many layers use it.

    Example:
        >>> counts = Counts([2, 3])
        >>> counts.rows([0, 4], torch.device("cpu")).tolist()
        [0, 1, 4, 5, 6]
    """

    def __init__(self, counts: Sequence[int]) -> None:
        super().__init__(counts)
        self._kept: dict[Hashable, Any] = {}

    @classmethod
    def of(cls, counts: Sequence[int]) -> Counts:
        """`counts` itself if it is one already."""
        return counts if isinstance(counts, Counts) else cls(counts)

    def keep(self, key: Hashable, make: Callable[[], Made]) -> Made:
        """The result of `make` when it was first called with this `key`."""
        if key not in self._kept:
            self._kept[key] = make()
        made: Made = self._kept[key]
        return made

    def rows(self, begins: Sequence[int], device: torch.device) -> Tensor:
        """`(N,)` int64, the row of each packed frame where utterance i begins at row `begins[i]`."""

        def make() -> Tensor:
            shifts = np.subtract(begins, np.cumsum([0, *self[:-1]]))
            return upload(np.arange(sum(self)) + np.repeat(shifts, self), device)

        return self.keep((tuple(begins), device), make)

    def places(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """`(N,)` int64 each, the utterance and the frame within it of each packed frame."""

        def make() -> tuple[Tensor, Tensor]:
            frames = np.concatenate([np.arange(count) for count in self])
            return upload(np.repeat(np.arange(len(self)), self), device), upload(frames, device)

        return self.keep(("places", device), make)


def counted(counts: list[int], device: torch.device) -> list[int]:
    """Frames of each utterance as `Counts` where work on the device is few calls, else as they are.

    Example:
        >>> counted([2, 3], torch.device("cpu"))
        [2, 3]
    """
    return Counts.of(counts) if few_calls(device) else counts
