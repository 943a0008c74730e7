"""Products of rows with the weights of a linear layer, by the faster of torch's two libraries for them on an x86 CPU.

torch multiplies float32 matrices by Intel's MKL, which uses half of what an AMD processor has. oneDNN, which torch uses for
convolutions, uses all of it, and applies GELU to each block while it is in a cache. Without gradients, products of more than a
few rows go to oneDNN, in the weights' own layout. Results differ in the last bits of float32.
`torch.backends.mkldnn.enabled = False` turns it off, as it does torch's own use of oneDNN.
"""

from __future__ import annotations

import platform
from typing import TypeGuard

import torch
from torch import Tensor, nn
from torch.nn import functional

from hubcore.strategy import few_calls

_LEAST = 4096
"""Numbers in the rows below which starting oneDNN costs more than it saves: 6 frames of 768."""
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
        product: Tensor = torch.ops.mkldnn._linear_pointwise(
            _of_few_sizes(rows), weight, bias, "gelu" if gelu else "none", [], "none" if gelu else ""
        )
        return product[: len(rows)]
    out = functional.linear(rows, weight, bias)
    return functional.gelu(out) if gelu else out


def _of_few_sizes(rows: Tensor) -> Tensor:
    """Rows, and zeros up to one of few numbers of rows: oneDNN makes code of its own for each, and keeps a megabyte of it."""
    count = len(rows)
    extra = -count % (16 if count <= 256 else 64 if count <= 1024 else 256)
    if not extra:
        return rows.contiguous()
    padded = rows.new_empty(count + extra, rows.shape[1])
    padded[:count] = rows
    padded[count:] = 0
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
