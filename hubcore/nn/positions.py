"""Position embeddings of packed frames by convolution.

Shapes: `F` frames, `N` packed frames of all utterances, `D` dim.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from hubcore.nn.packed import conv_same
from hubcore.strategy import few_calls


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
        if not self.weight_v.is_meta:  # on the meta device torch imports torch._dynamo for a norm
            with torch.no_grad():
                self.weight_g.copy_(torch.linalg.vector_norm(self.weight_v, dim=(0, 1), keepdim=True))

    def scale(self) -> Tensor:
        """The factor `(kernel,)` of each tap of `weight_v` that gives it the norm in `weight_g`."""
        # A plain sum is ten times as fast as torch's norm over two axes; it needs 32 bits, being one over thousands.
        wide = torch.promote_types(self.weight_v.dtype, torch.float32)
        parts = 1 if few_calls(self.weight_v.device) else self.groups  # on a CPU, each fits into a cache
        squares = [v.to(wide).square().flatten(0, 1).sum(0) for v in self.weight_v.chunk(parts)]
        return self.weight_g.flatten() / torch.stack(squares).sum(0).sqrt()

    def forward(self, x: Tensor, counts: Sequence[int]) -> Tensor:
        """Position embedding `(N, D)` of packed frames `(N, D)`; `counts` are the frames of each utterance."""
        return functional.gelu(conv_same(x, counts, self.weight_v, self.bias, self.groups, self.scale()))


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
