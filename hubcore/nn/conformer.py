"""Conformer blocks over packed frames: attention and a depthwise convolution between two halves of a feed-forward part.

Shapes: `F` frames of one utterance, `N` packed frames of all, `D` dim, `L` blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from hubcore.nn.attention import SelfAttention
from hubcore.nn.conformer_config import ConformerConfig
from hubcore.nn.packed import conv_strided
from hubcore.nn.products import run_linear
from hubcore.nn.relative import RelativeAttention, RelativeKeyAttention, RelativePositions, RotaryAttention, RotaryPositions
from hubcore.nn.transformer import Encoder, FeedForward, init_linears

_ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = MappingProxyType(
    {"swish": functional.silu, "gelu": functional.gelu, "relu": functional.relu}
)


class ConformerConv(nn.Module):
    """The convolution of a conformer block, `(N, D)` to `(N, D)` (Gulati et al. 2020, section 2.2).

    Linear with a gate, depthwise convolution, norm, activation, linear. Each utterance stands among zeros, as it does alone.

    Args:
        dim: width `D`.
        kernel: of the depthwise convolution, in frames.
        norm: of the frames after it: `nn.BatchNorm1d` or `nn.LayerNorm`.
        causal: True if a frame sees the `kernel - 1` before it, False if it sees as many on both sides.
        activation: after the norm.
        dropout: of the output, in train mode.

    Example:
        >>> import torch
        >>> ConformerConv(8, kernel=3, norm=nn.BatchNorm1d(8))(torch.zeros(5, 8), [2, 3]).shape
        torch.Size([5, 8])
    """

    def __init__(
        self,
        dim: int,
        kernel: int,
        norm: nn.Module,
        *,
        causal: bool = False,
        activation: Callable[[Tensor], Tensor] = functional.silu,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.padding = (kernel - 1, 0) if causal else (kernel // 2, kernel // 2)
        self.gated = nn.Linear(dim, 2 * dim, bias=False)
        self.depthwise = nn.Conv1d(dim, dim, kernel, groups=dim, bias=False)
        self.norm = norm
        self.activation = activation
        self.out = nn.Linear(dim, dim, bias=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, counts: Sequence[int]) -> Tensor:
        """Packed frames `(N, D)` in and out; `counts` are the frames of each utterance."""
        x = functional.glu(run_linear(self.gated, x), dim=1)
        x, _ = conv_strided(x, counts, self.depthwise.weight, None, padding=self.padding, groups=x.shape[1])
        out: Tensor = self.dropout(run_linear(self.out, self.activation(self.norm(x))))
        return out


class ConformerBlock(nn.Module):
    """One conformer block, `(N, D)` to `(N, D)` (Gulati et al. 2020, section 2.4).

    Args:
        attention: called as `attention(x, counts, *context)`.
        conv: called as `conv(x, counts)`.
        feed_forward: makes a feed-forward part, called as `feed_forward(x)`; called twice, before attention and after `conv`.
        dim: width `D`.
        dropout: after each feed-forward part, in train mode.
        attention_dropout: after attention, in train mode.

    Example:
        >>> import torch
        >>> block = ConformerBlock(
        ...     SelfAttention(8, 2), ConformerConv(8, 3, nn.BatchNorm1d(8)), lambda: FeedForward(8, 32), 8
        ... )
        >>> block(torch.zeros(5, 8), [2, 3]).shape
        torch.Size([5, 8])
    """

    def __init__(
        self,
        attention: nn.Module,
        conv: nn.Module,
        feed_forward: Callable[[], nn.Module],
        dim: int,
        *,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.first_norm = nn.LayerNorm(dim)
        self.first_feed_forward = feed_forward()
        self.attention_norm = nn.LayerNorm(dim)
        self.attention = attention
        self.conv_norm = nn.LayerNorm(dim)
        self.conv = conv
        self.second_norm = nn.LayerNorm(dim)
        self.second_feed_forward = feed_forward()
        self.norm = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)
        self.attention_dropout = nn.Dropout(attention_dropout)

    def forward(self, x: Tensor, counts: Sequence[int], *context: Any) -> Tensor:
        """Packed frames `(N, D)` in and out; `counts` are the frames of each utterance."""
        x = x + 0.5 * self.dropout(self.first_feed_forward(self.first_norm(x)))
        x = x + self.attention_dropout(self.attention(self.attention_norm(x), counts, *context))
        x = x + self.conv(self.conv_norm(x), counts)
        x = x + 0.5 * self.dropout(self.second_feed_forward(self.second_norm(x)))
        out: Tensor = self.norm(x)
        return out


def build_conformer(
    config: ConformerConfig,
    *,
    norm: nn.Module,
    pre_norm: bool = True,
    conv_norm: Callable[[int], nn.Module] = nn.BatchNorm1d,
    causal: bool = False,
    rates_stored: bool = False,
) -> Encoder:
    """The encoder of conformer blocks that a config describes, with fresh weights.

    Args:
        config: the shape.
        norm: after the last block, or before the first if not `pre_norm`; see `Encoder`.
        pre_norm: fairseq: `layer_norm_first`.
        conv_norm: makes the norm after the depthwise convolution, of a width.
        causal: True if the depthwise convolution sees no frame ahead.
        rates_stored: see `RotaryPositions.stored`.

    Example:
        >>> import torch
        >>> encoder = build_conformer(ConformerConfig(dim=96, num_layers=2), norm=nn.LayerNorm(96))
        >>> [tuple(state.shape) for state in encoder(torch.zeros(5, 96), [2, 3], layers=[0, 2])]
        [(5, 96), (5, 96)]
    """
    dim, activation = config.dim, _ACTIVATIONS[config.activation]

    def attention() -> nn.Module:
        sizes = (dim, config.num_heads)
        if config.positions == "relative_key":
            return RelativeKeyAttention(*sizes, config.left_distance, config.right_distance, config.attention_dropout)
        kinds = {"relative": RelativeAttention, "rotary": RotaryAttention, "none": SelfAttention}
        return kinds[config.positions](*sizes, config.attention_dropout)

    def conv() -> nn.Module:
        kernel, norm_after = config.depthwise_kernel, conv_norm(dim)
        return ConformerConv(dim, kernel, norm_after, causal=causal, activation=activation, dropout=config.conv_dropout)

    def feed_forward() -> nn.Module:
        return FeedForward(dim, config.ffn_dim, config.activation_dropout, activation)

    dropouts = {"dropout": config.dropout, "attention_dropout": config.attention_dropout}
    blocks = [ConformerBlock(attention(), conv(), feed_forward, dim, **dropouts) for _ in range(config.num_layers)]
    for block in blocks:
        init_linears(block)
    context: nn.Module | None = None
    if config.positions == "relative":
        context = RelativePositions()
    elif config.positions == "rotary":
        context = RotaryPositions(dim // config.num_heads, config.rotary_base, stored=rates_stored)
    return Encoder(None, blocks, norm, pre_norm=pre_norm, dropout=config.dropout, context=context)
