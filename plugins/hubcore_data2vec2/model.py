"""The data2vec 2.0 audio encoder: prenet blocks, extra tokens, and attention that falls with distance (ALiBi).

Shapes: `F` frames of one utterance, `E` extra tokens, `N` packed frames of all utterances, `D` dim.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hubcore.nn import Alibi, Block, Blocks, Encoder, SpeechEncoder, StackedPositionalConv, build_blocks, build_waveform_encoder
from hubcore.nn.padded import longest, with_first, without_first
from hubcore_data2vec2.config import Data2Vec2Config


class PreNormPositions(StackedPositionalConv):
    """Stacked position convolutions after a layer norm. fairseq: `conv_pos_pre_ln`.

    Example:
        >>> PreNormPositions(8, kernel=3, groups=2, depth=5)(torch.zeros(5, 8), [2, 3]).shape
        torch.Size([5, 8])
    """

    def __init__(self, dim: int, kernel: int, groups: int, depth: int) -> None:
        super().__init__(dim, kernel, groups, depth)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor, counts: Sequence[int]) -> Tensor:
        """Position embedding `(N, D)` of packed frames `(N, D)`; `counts` are the frames of each utterance."""
        return super().forward(self.norm(x), counts)


class Data2Vec2Block(Block):
    """A transformer block whose pre-norm form keeps the feed-forward part alone, as data2vec 2.0 computes it.

    Example:
        >>> from hubcore.nn import FeedForward, SelfAttention
        >>> Data2Vec2Block(SelfAttention(8, 2), FeedForward(8, 32), 8, pre_norm=True)(torch.zeros(5, 8), [2, 3]).shape
        torch.Size([5, 8])
    """

    def forward(self, x: Tensor, counts: Sequence[int], *context: Any) -> Tensor:
        """Packed frames `(N, D)` in and out; `counts` are the frames of each utterance."""
        if not self.pre_norm:
            return super().forward(x, counts, *context)
        x = x + self.dropout(self.attention(self.attention_norm(x), counts, *context))
        inner = self.feed_forward(self.feed_forward_norm(x))
        out: Tensor = inner + self.dropout(inner)  # x is not added
        return out


class Data2Vec2Encoder(Encoder):
    """Positions, extra tokens, prenet and blocks, `(N, D)` to the hidden states asked for.

    Args:
        pos_conv: position embedding, added to the input.
        prenet: blocks before hidden state 0.
        blocks: blocks whose outputs are hidden states.
        norm: before the first block (post-norm); pre-norm models have it after the last, and no hidden state includes it.
        pre_norm: fairseq: `layer_norm_first`.
        dropout: of the input of the first block, in train mode.
        extra_tokens: number `E` of learned frames before each utterance.
        alibi: the bias of attention, or None.

    Example:
        >>> encoder = build_model(Data2Vec2Config(dim=96, num_layers=2, prenet_layers=1, extra_tokens=3)).encoder
        >>> [tuple(state.shape) for state in encoder(torch.zeros(5, 96), [2, 3], layers=[0, 2])]
        [(5, 96), (5, 96)]
    """

    final_norm = False

    def __init__(
        self,
        pos_conv: nn.Module,
        prenet: Sequence[nn.Module],
        blocks: Sequence[nn.Module],
        norm: nn.LayerNorm,
        *,
        pre_norm: bool,
        dropout: float = 0.0,
        extra_tokens: int = 0,
        alibi: Alibi | None = None,
    ) -> None:
        super().__init__(pos_conv, blocks, norm, pre_norm=pre_norm, dropout=dropout)
        self.prenet = Blocks(prenet)
        self.extra_tokens = nn.Parameter(torch.randn(extra_tokens, *norm.normalized_shape)) if extra_tokens else None
        self.alibi = alibi

    def forward(self, x: Tensor, counts: Sequence[int], layers: Sequence[int], *, layerdrop: float = 0.0) -> list[Tensor]:
        """The hidden states `layers`, each `(N, D)` without extra tokens; no block above the highest of them runs.

        Hidden state 0 is the input of the first block after the prenet, hidden state k the output of block k.
        """
        if self.pos_conv is not None:
            x = x + self.pos_conv(x, counts)
        extra, frames = 0, longest(counts)
        if self.extra_tokens is not None:
            extra = len(self.extra_tokens)
            x, counts = with_first(self.extra_tokens, x, counts)
        x = self.dropout(x if self.pre_norm else self.norm(x))
        distances = None if self.alibi is None else self.alibi.distances(frames, extra, x.device)
        one = self.alibi(distances, 0) if self.alibi is not None and len(self.alibi.scale) == 1 else None

        def bias(layer: int) -> tuple[Tensor, ...]:
            return () if self.alibi is None else (self.alibi(distances, layer) if one is None else one,)

        self.prenet.gradient_checkpointing = self.blocks.gradient_checkpointing
        for index in range(len(self.prenet)):
            x = self.prenet.run(index, x, counts, *bias(index), layerdrop=layerdrop)
        states = self.run_blocks(x, counts, layers, lambda index: bias(len(self.prenet) + index), layerdrop)
        return [without_first(state, counts, extra) for state in states]


def build_model(config: Data2Vec2Config) -> SpeechEncoder:
    """The model that a config describes, with fresh weights.

    Example:
        >>> encoder = build_model(Data2Vec2Config(dim=96, num_layers=2, prenet_layers=1)).encoder
        >>> len(encoder.prenet), len(encoder.blocks), encoder.alibi.scale.shape
        (1, 2, torch.Size([1, 12]))
    """
    kind = PreNormPositions if config.pos_conv_pre_norm else StackedPositionalConv
    blocks = build_blocks(config, config.prenet_layers + config.num_layers, kind=Data2Vec2Block)
    encoder = Data2Vec2Encoder(
        kind(config.dim, config.pos_conv_kernel, config.pos_conv_groups, config.pos_conv_depth),
        blocks[: config.prenet_layers],
        blocks[config.prenet_layers :],
        nn.LayerNorm(config.dim, eps=config.norm_eps),
        pre_norm=config.pre_norm,
        dropout=config.dropout,
        extra_tokens=config.extra_tokens,
        alibi=Alibi(config.num_heads, config.alibi_scales) if config.alibi else None,
    )
    for block in blocks:
        block.attention_norm.eps = block.feed_forward_norm.eps = config.norm_eps
    return build_waveform_encoder(config, encoder)
