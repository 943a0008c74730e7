"""Position embeddings of packed frames by convolution.

Shapes: `F` frames, `N` packed frames of all utterances, `D` dim.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional

from hubcore.ragged import with_gaps, without_gaps


class PositionalConv(nn.Module):
    """The convolutional position embedding: a grouped convolution with weight norm, then GELU, `(N, D)` to `(N, D)`.

    `weight_g` `(1, 1, kernel)` and `weight_v` `(D, D / groups, kernel)` are the two parts of the weight norm, as the
    checkpoints hold them. Each utterance is surrounded by zeros, so that none reaches into its neighbour.
    fairseq: `conv_pos`, `conv_pos_groups`; an even kernel drops the last output (`SamePad`).

    Example:
        >>> PositionalConv(8, kernel=4, groups=2)(torch.zeros(5, 8), [2, 3]).shape
        torch.Size([5, 8])
    """

    def __init__(self, dim: int, kernel: int, groups: int) -> None:
        super().__init__()
        self.kernel, self.groups = kernel, groups
        self.weight_g = nn.Parameter(torch.empty(1, 1, kernel))
        self.weight_v = nn.Parameter(torch.empty(dim, dim // groups, kernel))
        self.bias = nn.Parameter(torch.empty(dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Normal weights of variance 4 / (kernel x dim), zero bias. fairseq: `make_conv_pos`."""
        nn.init.normal_(self.weight_v, std=(4 / (self.kernel * self.weight_v.shape[0])) ** 0.5)
        nn.init.zeros_(self.bias)
        with torch.no_grad():
            self.weight_g.copy_(torch.linalg.vector_norm(self.weight_v, dim=(0, 1), keepdim=True))

    def weight(self) -> Tensor:
        """The convolution's weight, `(D, D / groups, kernel)`: each tap of `weight_v` scaled to the norm in `weight_g`."""
        # A plain sum is ten times as fast as torch's norm over two axes; it needs 32 bits, being one over thousands.
        v = self.weight_v.to(torch.promote_types(self.weight_v.dtype, torch.float32))
        norm = v.square().flatten(0, 1).sum(0).sqrt()  # (kernel,)
        return (v * (self.weight_g / norm)).to(self.weight_v.dtype)

    def forward(self, x: Tensor, counts: Sequence[int]) -> Tensor:
        """Position embedding `(N, D)` of packed frames `(N, D)`; `counts` are the frames of each utterance."""
        return functional.gelu(conv_same(x, counts, self.weight(), self.bias, self.groups))


class BatchNormPositionalConv(nn.Module):
    """`PositionalConv` with a batch norm of its input in place of the weight norm. transformers: `conv_pos_batch_norm`.

    Example:
        >>> BatchNormPositionalConv(8, kernel=4, groups=2)(torch.zeros(5, 8), [2, 3]).shape
        torch.Size([5, 8])
    """

    def __init__(self, dim: int, kernel: int, groups: int) -> None:
        super().__init__()
        self.groups = groups
        self.norm = nn.BatchNorm1d(dim)
        self.weight = nn.Parameter(torch.empty(dim, dim // groups, kernel))
        self.bias = nn.Parameter(torch.zeros(dim))
        nn.init.normal_(self.weight, std=(4 / (kernel * dim)) ** 0.5)

    def forward(self, x: Tensor, counts: Sequence[int]) -> Tensor:
        """Position embedding `(N, D)` of packed frames `(N, D)`; `counts` are the frames of each utterance."""
        return functional.gelu(conv_same(self.norm(x), counts, self.weight, self.bias, self.groups))


class StackedPositionalConv(nn.Module):
    """Several narrow convolutions, each followed by a layer norm without parameters and GELU. fairseq: `pos_conv_depth`.

    Example:
        >>> StackedPositionalConv(8, kernel=3, groups=2, depth=5)(torch.zeros(5, 8), [2, 3]).shape
        torch.Size([5, 8])
    """

    def __init__(self, dim: int, kernel: int, groups: int, depth: int) -> None:
        super().__init__()
        convs = [nn.Conv1d(dim, dim, kernel, groups=groups) for _ in range(depth)]
        self.convs: Sequence[nn.Conv1d] = nn.ModuleList(convs)  # type: ignore[assignment]

    def forward(self, x: Tensor, counts: Sequence[int]) -> Tensor:
        """Position embedding `(N, D)` of packed frames `(N, D)`; `counts` are the frames of each utterance."""
        for conv in self.convs:
            x = conv_same(x, counts, conv.weight, conv.bias, conv.groups)
            x = functional.gelu(functional.layer_norm(x, x.shape[1:]))
        return x


def conv_same(x: Tensor, counts: Sequence[int], weight: Tensor, bias: Tensor | None, groups: int) -> Tensor:
    """Grouped convolution of stride 1 that keeps the number of frames, `(N, D)` to `(N, D)`, each utterance among zeros.

    An even kernel reaches one frame further back than ahead.

    Args:
        x: `(N, D)` packed frames.
        counts: frames of each utterance.
        weight: `(D, D / groups, kernel)`.
        bias: `(D,)`.
        groups: groups of channels; `D` for a depthwise convolution.

    Example:
        >>> conv_same(torch.ones(5, 1), [2, 3], torch.ones(1, 1, 3), None, groups=1)[:, 0].tolist()
        [2.0, 2.0, 2.0, 3.0, 2.0]
    """
    # torch 2.13's grouped convolution in bfloat16 is wrong on CPUs without bfloat16 units (off by 90 % when measured).
    wide = torch.float32 if x.device.type == "cpu" and x.dtype == torch.bfloat16 else x.dtype
    gap = weight.shape[2] // 2
    spaced = with_gaps(x.to(wide), counts, gap).t()[None]  # (1, D, N + gaps)
    with full_precision(spaced), torch.autocast(x.device.type, enabled=False):
        bias = None if bias is None else bias.to(wide)
        out = functional.conv1d(spaced, weight.to(wide), bias, groups=groups)[0].t()
    return without_gaps(out, counts, gap).to(x.dtype)


def full_precision(x: Tensor) -> AbstractContextManager[None]:
    """A context in which convolutions of float32 tensors on an NVIDIA GPU use all their bits, not TensorFloat-32's ten.

    Example:
        >>> with full_precision(torch.zeros(1)):
        ...     pass
    """
    cudnn = torch.backends.cudnn
    if x.device.type != "cuda" or x.dtype != torch.float32:
        return nullcontext()
    given = {"enabled": cudnn.enabled, "benchmark": cudnn.benchmark, "deterministic": cudnn.deterministic}
    return cudnn.flags(**given, allow_tf32=False)
