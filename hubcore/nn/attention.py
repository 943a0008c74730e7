"""Self-attention within each utterance of packed frames.

Shapes: `F` frames of one utterance, `N` packed frames of all, `D` dim, `H` heads.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    counts: Sequence[int],
    num_heads: int,
    bias: Tensor | Iterable[Tensor] | None = None,
    gate: Tensor | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """Multi-head attention in which frames see the frames of their own utterance, `(N, D)`.

    Args:
        q: `(N, D)` queries.
        k: `(N, D)` keys.
        v: `(N, D)` values.
        counts: frames of each utterance.
        num_heads: heads `H`.
        bias: added to the scaled scores: one `(H, F, F)` for each utterance, or one for the longest, of which each takes
            the corner (a bias that depends on the distance of two frames only). A generator makes them one at a time.
        gate: `(N, H)`, what a frame's bias is multiplied by.
        dropout: of the attention weights.

    Example:
        >>> x = torch.randn(5, 8)
        >>> mixed = attend(x, x, x, counts=[2, 3], num_heads=4)
        >>> torch.allclose(mixed[:2], attend(x[:2], x[:2], x[:2], counts=[2], num_heads=4))
        True
    """
    mixed = []
    gates = [None] * len(counts) if gate is None else gate.split(list(counts))
    biases = iter(() if bias is None or isinstance(bias, Tensor) else bias)
    for *qkv, gate_i in zip(q.split(list(counts)), k.split(list(counts)), v.split(list(counts)), gates, strict=True):
        q_i, k_i, v_i = (x.unflatten(1, (num_heads, -1)).transpose(0, 1)[None] for x in qkv)  # (1, H, F, D / H)
        if bias is None:
            out = scaled_dot_product_attention(q_i, k_i, v_i, dropout_p=dropout)
        else:
            frames = q_i.shape[2]
            bias_i = bias[:, :frames, :frames] if isinstance(bias, Tensor) else next(biases)  # (H, F, F)
            out = _attend_with_bias(q_i, k_i, v_i, bias_i, gate_i, dropout)
        mixed.append(out[0].transpose(0, 1).flatten(1))  # (F, D)
    return mixed[0] if len(mixed) == 1 else torch.cat(mixed)


_AT_ONCE = 1 << 23
"""Numbers of a gated bias in memory at once; above 32 MB, every call waits for new pages of the system."""


def _attend_with_bias(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, gate: Tensor | None, dropout: float) -> Tensor:
    """Attention of one utterance, `(1, H, F, D / H)`; a gated bias is made for a few heads at a time."""
    # The bias gets a batch axis: with three axes, torch's fast kernel on the CPU would not take it.
    if gate is None:
        return scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype)[None], dropout_p=dropout)
    heads = max(1, _AT_ONCE // bias[0].numel())
    parts = zip(q.split(heads, 1), k.split(heads, 1), v.split(heads, 1), bias.split(heads), gate.t().split(heads), strict=True)
    mixed = [
        scaled_dot_product_attention(
            q_h, k_h, v_h, attn_mask=(bias_h * gate_h[:, :, None]).to(q.dtype)[None], dropout_p=dropout
        )
        for q_h, k_h, v_h, bias_h, gate_h in parts
    ]
    return torch.cat(mixed, 1)


class MultiHeadAttention(nn.Module):
    """The weights of multi-head attention, `(N, D)` to `(N, D)`; a subclass says in `forward` from what queries and keys are.

    Example:
        >>> class CrossAttention(MultiHeadAttention):
        ...     def forward(self, x, other, counts):
        ...         return self.mix(self.q_proj(x), self.k_proj(other), self.v_proj(other), counts)
        >>> CrossAttention(8, num_heads=2)(torch.zeros(5, 8), torch.ones(5, 8), [2, 3]).shape
        torch.Size([5, 8])
    """

    def __init__(self, dim: int, num_heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.num_heads, self.dropout = num_heads, dropout
        self.q_proj = nn.Linear(dim, dim)
        self.k_proj = nn.Linear(dim, dim)
        self.v_proj = nn.Linear(dim, dim)
        self.out_proj = nn.Linear(dim, dim)

    def mix(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        counts: Sequence[int],
        bias: Tensor | Iterable[Tensor] | None = None,
        gate: Tensor | None = None,
    ) -> Tensor:
        """`attend` with this module's heads and dropout, then the output projection; all `(N, D)`."""
        dropout = self.dropout if self.training else 0.0
        out: Tensor = self.out_proj(attend(q, k, v, counts, self.num_heads, bias, gate, dropout))
        return out


class SelfAttention(MultiHeadAttention):
    """Multi-head self-attention within each utterance, `(N, D)` to `(N, D)`.

    Example:
        >>> SelfAttention(8, num_heads=2)(torch.zeros(5, 8), [2, 3]).shape
        torch.Size([5, 8])
    """

    def forward(self, x: Tensor, counts: Sequence[int], bias: Tensor | Iterable[Tensor] | None = None) -> Tensor:
        """Packed frames `(N, D)` in and out; `counts` are the frames of each utterance, `bias` as in `attend`."""
        return self.mix(self.q_proj(x), self.k_proj(x), self.v_proj(x), counts, bias)


class GatedSelfAttention(MultiHeadAttention):
    """Self-attention with a position bias that every frame scales by a gate of its own, `(N, D)` to `(N, D)`.

    Each head has one gate, computed from its part of the frame (Chen et al. 2022, WavLM, section III-B). `gate_scale`
    `(1, H, 1, 1)` has the shape that checkpoints give it. fairseq: `gru_rel_pos`, `grep_linear`, `grep_a`.

    Example:
        >>> attention, bias = GatedSelfAttention(8, num_heads=2), RelativePositionBias(2, num_buckets=8, max_distance=10)
        >>> x = torch.zeros(5, 8)
        >>> attention(x, [2, 3], bias(x, [2, 3])).shape
        torch.Size([5, 8])
    """

    def __init__(self, dim: int, num_heads: int, dropout: float = 0.0) -> None:
        super().__init__(dim, num_heads, dropout)
        self.gate_proj = nn.Linear(dim // num_heads, 8)
        self.gate_scale = nn.Parameter(torch.ones(1, num_heads, 1, 1))

    def gate(self, x: Tensor) -> Tensor:
        """The gates `(N, H)` of frames `(N, D)`: `update * (reset * scale - 1) + 2`, between 1 and 2 while `scale` is 1."""
        parts = self.gate_proj(x.unflatten(1, (self.num_heads, -1)))  # (N, H, 8)
        update, reset = parts.unflatten(2, (2, 4)).sum(3).sigmoid().unbind(2)  # (N, H) each
        gates: Tensor = update * (reset * self.gate_scale.flatten() - 1) + 2
        return gates

    def forward(self, x: Tensor, counts: Sequence[int], bias: Tensor | Iterable[Tensor]) -> Tensor:
        """Packed frames `(N, D)` in and out; `counts` are the frames of each utterance, `bias` as in `attend`."""
        return self.mix(self.q_proj(x), self.k_proj(x), self.v_proj(x), counts, bias, self.gate(x))


class RelativePositionBias(nn.Module):
    """A bias of attention for each head and each distance of two frames: the `context` of an `Encoder`.

    Distances share the rows of one table (Raffel et al. 2020, T5, section 2.1). The first half of the rows is for frames
    before, the second for frames after. Half of each half has one distance a row. In the rest, rows hold more and more
    distances, up to `max_distance`, and the last row all beyond.
    fairseq: `relative_attention_bias`, `num_buckets`, `max_distance`.

    Example:
        >>> bias = RelativePositionBias(num_heads=4, num_buckets=32, max_distance=80)
        >>> bias(torch.zeros(5, 16), [2, 3]).shape
        torch.Size([4, 3, 3])
        >>> bias.rows(torch.tensor([-90, -9, -1, 0, 1, 9, 90])).tolist()
        [15, 8, 1, 0, 17, 24, 31]
    """

    def __init__(self, num_heads: int, num_buckets: int, max_distance: int) -> None:
        super().__init__()
        self.max_distance = max_distance
        self.weight = nn.Parameter(torch.empty(num_buckets, num_heads))
        nn.init.normal_(self.weight, std=0.02)

    def rows(self, distances: Tensor) -> Tensor:
        """The row of the table for each distance in frames, negative for a frame before; any shape."""
        half = len(self.weight) // 2
        exact = half // 2
        near = distances.abs()
        far = torch.log(near.clamp(min=1).float() / exact) / math.log(self.max_distance / exact) * (half - exact)
        far = (exact + far).long().clamp(max=half - 1)
        return torch.where(near < exact, near, far) + half * (distances > 0)

    def forward(self, x: Tensor, counts: Sequence[int]) -> Tensor:  # noqa: ARG002
        """The bias `(H, F, F)` for `F` frames, those of the longest utterance; `attend` takes the corner for shorter ones."""
        frames = max(counts)
        rows = self.rows(torch.arange(1 - frames, frames, device=self.weight.device))
        values = self.weight.t()[:, rows]  # (H, 2 F - 1)
        return values.unfold(1, frames, 1).flip(1)  # row i holds the distances -i to F - 1 - i
