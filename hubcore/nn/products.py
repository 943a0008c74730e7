"""Products of rows with the weights of a linear layer, by the faster of torch's two libraries for them on an x86 CPU.

torch multiplies float32 matrices by Intel's MKL, which uses half of what an AMD processor has. oneDNN, which torch uses for
convolutions, uses all of it, and applies GELU to each block while it is in a cache. Without gradients, products of more than a
few rows go to oneDNN, in the weights' own layout and in blocks of rows. Results differ in the last bits of float32.
`torch.backends.mkldnn.enabled = False` turns it off, as it does torch's own use of oneDNN.
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from functools import cache
from typing import TypeGuard

import torch
from torch import Tensor, nn
from torch.nn import functional

from hubcore.strategy import few_calls

_LEAST = 4096
"""Numbers in the rows below which starting oneDNN costs more than it saves: 6 frames of 768."""
_BLOCK = 256
"""Rows that oneDNN multiplies in one call with each thread: fewer are slower, more leave the cache."""
_ROWS = 1024
"""The same for torch's other library."""
_ONEDNN = (
    platform.machine().lower() in ("x86_64", "amd64")
    and torch.backends.mkldnn.is_available()
    and hasattr(torch.ops.mkldnn, "_linear_pointwise")
)


def by_onednn(rows: Tensor, weight: Tensor) -> bool:
    """True if oneDNN computes `rows @ weight.t()` fast, which it does not for weights that are part of a wider matrix.

    Example:
        >>> by_onednn(torch.zeros(2, 8), torch.zeros(3, 8))
        False
    """
    return (
        _ONEDNN
        and not torch.compiler.is_compiling()  # before the sizes, which a traced graph would be bound to
        and not torch.is_grad_enabled()
        and rows.dtype == weight.dtype == torch.float32
        and rows.device.type == weight.device.type == "cpu"
        and rows.dim() == 2
        and rows.numel() >= _LEAST
        and weight.is_contiguous()
        and not few_calls(rows.device)
        and not torch.is_autocast_enabled("cpu")
        and type(rows) is Tensor
        and type(weight) in (Tensor, nn.Parameter)
        and bool(torch.backends.mkldnn.enabled)
    )


def linear(rows: Tensor, weight: Tensor, bias: Tensor | None = None, *, gelu: bool = False) -> Tensor:
    """`torch.nn.functional.linear`, `(N, D)` to `(N, D')`, then GELU where it is asked for.

    Example:
        >>> rows, weight = torch.randn(20, 512), torch.randn(3, 512)
        >>> expected = torch.nn.functional.gelu(rows @ weight.t())
        >>> torch.allclose(linear(rows, weight, gelu=True), expected, atol=1e-4)
        True
    """
    if by_onednn(rows, weight):
        # Windows that overlap are copied in any case, so all of them at once.
        size = rows_of_a_block() if rows.is_contiguous() else len(rows)
        return in_blocks(lambda block: _product(block, weight, bias, gelu), rows, size)
    out = functional.linear(rows, weight, bias)
    return functional.gelu(out) if gelu else out


def rows_of_a_block() -> int:
    """Rows that oneDNN multiplies in one call.

    Example:
        >>> rows_of_a_block() % 256
        0
    """
    return _BLOCK * torch.get_num_threads()


def in_blocks(run: Callable[[Tensor], Tensor], rows: Tensor, size: int) -> Tensor:
    """`run(rows)`, `(N, D)` to `(N, D')`, without gradients, `size` rows at a time: for a function of each row by itself.

    Example:
        >>> in_blocks(torch.square, torch.ones(5, 1), size=2).flatten().tolist()
        [1.0, 1.0, 1.0, 1.0, 1.0]
    """
    if len(rows) <= size:
        return run(rows)
    first = run(rows[:size])
    out = first.new_empty(len(rows), first.shape[1])
    out[:size] = first
    for begin in range(size, len(rows), size):
        out[begin : begin + size] = run(rows[begin : begin + size])
    return out


def rows_at_once(layer: nn.Module, rows: Tensor) -> int:
    """Rows to take through `layer` and what follows it at a time, for the cache and for memory.

    Example:
        >>> rows_at_once(nn.Linear(8, 3), torch.zeros(5000, 8))
        1024
    """
    return rows_of_a_block() if is_plain(layer) and by_onednn(rows, layer.weight) else _ROWS


@cache
def mkl_is_slow() -> bool:
    """True on a processor of AMD, on which MKL has half the speed of oneDNN; on Intel's own they are equal.

    Example:
        >>> mkl_is_slow() in (True, False)
        True
    """
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return "AuthenticAMD" in file.read(4096)
    except OSError:  # Windows and macOS
        return "AuthenticAMD" in platform.processor()


def _product(rows: Tensor, weight: Tensor, bias: Tensor | None, gelu: bool) -> Tensor:
    count = len(rows)
    rows = padded_to(rows, few_sizes(count)).contiguous()
    gelu_or_none, how = ("gelu", "none") if gelu else ("none", "")
    product: Tensor = torch.ops.mkldnn._linear_pointwise(rows, weight, bias, gelu_or_none, [], how)
    return product[:count]


def few_sizes(count: int) -> int:
    """The next of few numbers of rows: oneDNN makes code of its own for each, and keeps up to a megabyte of it.

    Example:
        >>> few_sizes(5), few_sizes(200), few_sizes(700), few_sizes(1500)
        (16, 208, 704, 1536)
    """
    step = 16 if count <= 256 else 64 if count <= 1024 else 256
    return count + -count % step


def padded_to(rows: Tensor, count: int) -> Tensor:
    """Rows, and zeros up to `count` of them.

    Example:
        >>> padded_to(torch.ones(2, 1), 3).flatten().tolist()
        [1.0, 1.0, 0.0]
    """
    if len(rows) == count:
        return rows
    padded = rows.new_empty(count, rows.shape[1])
    padded[: len(rows)] = rows
    padded[len(rows) :] = 0
    return padded


def run_linear(layer: nn.Module, rows: Tensor, *, gelu: bool = False) -> Tensor:
    """Runs `layer(rows)`, then GELU where it is asked for; a layer that is more than its product is called as it is.

    Example:
        >>> run_linear(nn.Linear(8, 3), torch.zeros(5, 8)).shape
        torch.Size([5, 3])
    """
    if is_plain(layer):
        return linear(rows, layer.weight, layer.bias, gelu=gelu)
    out: Tensor = layer(rows)
    return functional.gelu(out) if gelu else out


def is_plain(layer: nn.Module) -> TypeGuard[nn.Linear]:
    """True if calling a layer is no more than its product: no adapter, no quantised weights, no hooks.

    Example:
        >>> is_plain(nn.Linear(8, 3)), is_plain(nn.Identity())
        (True, False)
    """
    return type(layer) is nn.Linear and not layer._forward_hooks and not layer._forward_pre_hooks
