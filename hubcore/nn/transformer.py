"""Transformer blocks over packed frames, and the encoder that collects hidden states.

Shapes: `N` packed frames of all utterances, `D` dim, `L` blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from hubcore.layer_sum import KeptStates
from hubcore.nn.padded import Padded
from hubcore.nn.products import in_blocks, rows_at_once, run_linear
from hubcore.strategy import counted, few_calls


class FeedForward(nn.Module):
    """Linear, GELU or another activation, linear: `(N, D)` to `(N, D)`. fairseq: `fc1`, `fc2`.

    Example:
        >>> FeedForward(8, inner_dim=32)(torch.zeros(5, 8)).shape
        torch.Size([5, 8])
    """

    def __init__(
        self, dim: int, inner_dim: int, dropout: float = 0.0, activation: Callable[[Tensor], Tensor] = functional.gelu
    ) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, inner_dim)
        self.fc2 = nn.Linear(inner_dim, dim)
        self.dropout = nn.Dropout(dropout)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """Frames `(N, D)` in and out; some at a time on a CPU without gradients, for its cache and its memory."""
        if torch.is_grad_enabled() or torch.compiler.is_compiling() or few_calls(x.device):
            return self._at_once(x)
        return in_blocks(self._at_once, x, rows_at_once(self.fc1, x))

    def _at_once(self, x: Tensor) -> Tensor:
        if self.activation is functional.gelu:
            inner = run_linear(self.fc1, x, gelu=True)
        else:
            inner = self.activation(run_linear(self.fc1, x))
        return run_linear(self.fc2, self.dropout(inner))


def init_linears(module: nn.Module) -> None:
    """Gives every linear layer in a module fresh weights as BERT's: deviation 0.02, biases 0. fairseq: `init_bert_params`.

    Example:
        >>> block = FeedForward(8, inner_dim=32)
        >>> init_linears(block)
        >>> bool(block.fc1.bias.any()), bool(block.fc1.weight.std() < 0.05)
        (False, True)
    """
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.normal_(part.weight, std=0.02)
            if part.bias is not None:
                nn.init.zeros_(part.bias)


class Block(nn.Module):
    """One transformer block, post-norm (`pre_norm=False`, the original transformer) or pre-norm, `(N, D)` to `(N, D)`.

    Args:
        attention: called as `attention(x, counts, *context)`.
        feed_forward: called as `feed_forward(x)`.
        dim: width `D`.
        pre_norm: fairseq: `layer_norm_first`.
        dropout: after attention and after feed-forward, in train mode.

    Example:
        >>> from hubcore.nn import SelfAttention
        >>> Block(SelfAttention(8, 2), FeedForward(8, 32), 8, pre_norm=True)(torch.zeros(5, 8), [2, 3]).shape
        torch.Size([5, 8])
    """

    def __init__(
        self, attention: nn.Module, feed_forward: nn.Module, dim: int, *, pre_norm: bool, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.pre_norm = pre_norm
        self.attention = attention
        self.attention_norm = nn.LayerNorm(dim)
        self.feed_forward = feed_forward
        self.feed_forward_norm = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, counts: Sequence[int], *context: Any) -> Tensor:
        """Packed frames `(N, D)` in and out; `counts` are the frames of each utterance."""
        if self.pre_norm:
            x = x + self.dropout(self.attention(self.attention_norm(x), counts, *context))
            x = x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))
        else:
            x = self.attention_norm(x + self.dropout(self.attention(x, counts, *context)))
            x = self.feed_forward_norm(x + self.dropout(self.feed_forward(x)))
        return x


class Blocks(nn.ModuleList):
    """The blocks of an encoder, with gradient checkpointing (Chen et al. 2016) where it is asked for.

    Example:
        >>> blocks = Blocks([FeedForward(8, 32), FeedForward(8, 32)])
        >>> blocks.gradient_checkpointing = True
        >>> blocks.run(0, torch.zeros(5, 8)).shape
        torch.Size([5, 8])
    """

    gradient_checkpointing: bool = False
    """True if each block in train mode keeps only its input, and runs a second time in the backward pass. fairseq:
    `checkpoint_activations`."""

    def run(self, index: int, x: Tensor, *args: Any, layerdrop: float = 0.0) -> Tensor:
        """The output `(N, D)` of block `index`, called as `block(x, *args)`; with probability `layerdrop` its input."""
        if layerdrop and torch.rand(()).item() < layerdrop:
            return x
        block = self[index]
        if self.gradient_checkpointing and self.training:
            x = checkpoint(block, x, *args, use_reentrant=False)
        else:
            x = block(x, *args)
        return x


class Encoder(nn.Module):
    """Position embedding and blocks, `(N, D)` to the hidden states asked for.

    Args:
        pos_conv: called as `pos_conv(x, counts)`, its result is added to the input; None for blocks that know positions.
        blocks: called as `block(x, counts, *context)`.
        norm: before the first block (post-norm), or after the last (pre-norm).
        pre_norm: fairseq: `layer_norm_first`.
        dropout: of the input of the first block, in train mode.
        context: called once as `context(x, counts)`, its result passed to every block, such as a bias that all share.

    Example:
        >>> from hubcore.nn import PositionalConv, SelfAttention
        >>> blocks = [Block(SelfAttention(8, 2), FeedForward(8, 32), 8, pre_norm=True) for _ in range(3)]
        >>> encoder = Encoder(PositionalConv(8, 4, 2), blocks, nn.LayerNorm(8), pre_norm=True)
        >>> [tuple(state.shape) for state in encoder(torch.zeros(5, 8), [2, 3], layers=[0, 3])]
        [(5, 8), (5, 8)]
    """

    final_norm = True
    """True if the last hidden state of a pre-norm model includes the final norm."""

    def __init__(
        self,
        pos_conv: nn.Module | None,
        blocks: Sequence[nn.Module],
        norm: nn.Module,
        *,
        pre_norm: bool,
        dropout: float = 0.0,
        context: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.pre_norm = pre_norm
        self.pos_conv = pos_conv
        self.context = context
        self.blocks = Blocks(blocks)
        self.norm = norm
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, counts: Sequence[int], layers: Sequence[int], *, layerdrop: float = 0.0) -> list[Tensor]:
        """The hidden states `layers`, each `(N, D)`; no block above the highest of them runs.

        Hidden state k is the input of block k (0-based); hidden state L is the output of the encoder, which for pre-norm
        models includes the final layer norm. `layerdrop` is the probability that a block gives back its input, for
        pre-training only. fairseq: `encoder_layerdrop`.
        """
        if not isinstance(counts, Padded):
            counts = counted(list(counts), x.device)
        if self.pos_conv is not None:
            x = x + self.pos_conv(x, counts)
        if not self.pre_norm:
            x = self.norm(x)
        x = self.dropout(x)
        context = () if self.context is None else (self.context(x, counts),)
        return self.run_blocks(x, counts, layers, lambda _: context, layerdrop)

    def run_blocks(
        self,
        x: Tensor,
        counts: Sequence[int],
        layers: Sequence[int],
        context: Callable[[int], tuple[Any, ...]],
        layerdrop: float = 0.0,
    ) -> list[Tensor]:
        """The hidden states `layers`, each `(N, D)`, from the input `x` of block 0; block k is also given `context(k)`."""
        kept = KeptStates(layers)
        kept.add(0, x)
        blocks = self.blocks if isinstance(self.blocks, Blocks) else Blocks(self.blocks)  # recipes put plain lists there
        for index in range(max(layers)):
            x = blocks.run(index, x, counts, *context(index), layerdrop=layerdrop)
            if index + 1 in layers:
                last = self.pre_norm and self.final_norm and index + 1 == len(self.blocks)
                kept.add(index + 1, self.norm(x) if last else x)
        return kept.states()
