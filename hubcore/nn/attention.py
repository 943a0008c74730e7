"""Self-attention within each utterance of packed frames.

Shapes: `F` frames of one utterance, `N` packed frames of all, `D` dim, `H` heads.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate
from typing import NamedTuple, TypeAlias, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.functional import scaled_dot_product_attention

from hubcore.nn.padded import Padded, attend_padded, distances, longest
from hubcore.nn.products import by_onednn, few_sizes, is_plain, linear, mkl_is_slow, rows_of_a_block, run_linear
from hubcore.strategy import Counts, few_calls, upload


class FrameBias(NamedTuple):
    """A bias of attention that depends on the frames: `make` gives it for several utterances padded to `F` frames.

    Example:
        >>> bias = FrameBias(torch.zeros(5, 4), lambda rows: rows.transpose(1, 2)[:, :, None] + rows.transpose(1, 2)[..., None])
        >>> attend(torch.zeros(5, 8), torch.zeros(5, 8), torch.zeros(5, 8), [2, 3], num_heads=4, bias=bias).shape
        torch.Size([5, 8])
    """

    rows: Tensor
    """`(N, ...)`, what `make` needs of every frame."""
    make: Callable[[Tensor], Tensor]
    """Gives `(B, H, F, F)` for rows `(B, F, ...)`; what it gives for frames beyond an utterance's own is not used."""


Bias: TypeAlias = Tensor | Iterable[Tensor] | FrameBias
"""See `attend`."""


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    counts: Sequence[int],
    num_heads: int,
    bias: Bias | None = None,
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
            the corner (a bias that depends on the distance of two frames only). A generator makes them one at a time;
            `FrameBias` makes those of several at a time, which is what a GPU wants.
        gate: `(N, H)`, what a frame's bias is multiplied by.
        dropout: of the attention weights.

    Example:
        >>> x = torch.randn(5, 8)
        >>> mixed = attend(x, x, x, counts=[2, 3], num_heads=4)
        >>> torch.allclose(mixed[:2], attend(x[:2], x[:2], x[:2], counts=[2], num_heads=4))
        True
    """
    if isinstance(counts, Padded):
        given = bias.make(counts.apart(bias.rows)) if isinstance(bias, FrameBias) else bias
        return attend_padded(q, k, v, counts, num_heads, given if isinstance(given, Tensor) else None, gate)
    if few_calls(q.device) and (bias is None or isinstance(bias, Tensor | FrameBias)):
        return _attend_at_once(torch.cat([q, k, v], dim=1), Counts.of(counts), num_heads, bias, gate, dropout)
    if isinstance(bias, FrameBias):
        make = bias.make
        bias = (make(rows[None])[0] for rows in bias.rows.split(list(counts)))
    mixed = []
    gates = [None] * len(counts) if gate is None else gate.split(list(counts))
    biases = iter(() if bias is None or isinstance(bias, Tensor) else bias)
    for *qkv, gate_i in zip(q.split(list(counts)), k.split(list(counts)), v.split(list(counts)), gates, strict=True):
        q_i, k_i, v_i = (x.unflatten(1, (num_heads, -1)).transpose(0, 1)[None] for x in qkv)  # (1, H, F, D / H)
        frames = q_i.shape[2]
        bias_i = None if bias is None else bias[:, :frames, :frames] if isinstance(bias, Tensor) else next(biases)  # (H, F, F)
        if frames >= _PRODUCTS_FROM and not dropout and by_onednn(*qkv[:2]) and mkl_is_slow():
            mixed.append(_attend_by_products(q_i[0], k_i[0], v_i[0], bias_i, gate_i))
            continue
        if bias_i is None:
            out = scaled_dot_product_attention(q_i, k_i, v_i, dropout_p=dropout)
        else:
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


_PRODUCTS_FROM = 256
"""Frames from which torch's own attention is slower than products where those are twice as fast as MKL's, which it uses."""


def _attend_by_products(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, gate: Tensor | None) -> Tensor:
    """Attention of one utterance, `(H, F, D / H)` each, to `(F, D)`: for each head, products of a few queries with all keys."""
    heads, frames, width = q.shape
    padded = few_sizes(frames)
    queries = (q * width**-0.5).contiguous()
    keys, values = k.new_zeros(heads, padded, width), v.new_zeros(heads, width, padded)
    keys[:, :frames], values[:, :, :frames] = k, v.transpose(1, 2)
    beyond = q.new_zeros(padded)
    beyond[frames:] = -math.inf
    out = q.new_empty(frames, heads, width)
    size = few_sizes(-(-frames // -(-frames // rows_of_a_block())))
    for head in range(heads):
        for begin in range(0, frames, size):
            rows = slice(begin, begin + size)
            scores = linear(queries[head, rows], keys[head], beyond)
            if bias is not None:
                bias_h = bias[head, rows]
                scores[:, :frames] += bias_h if gate is None else bias_h * gate[rows, head, None]
            out[rows, head] = linear(torch.softmax(scores, 1, out=scores), values[head])
    return out.flatten(1)


def _attend_at_once(
    qkv: Tensor, counts: Counts, num_heads: int, bias: Tensor | FrameBias | None, gate: Tensor | None, dropout: float
) -> Tensor:
    """`attend` in few calls; `qkv` `(N, 3 D)` holds queries, keys and values side by side."""
    shape = (3, num_heads, qkv.shape[1] // (3 * num_heads))
    if bias is None and not dropout and _flash_takes(qkv, shape[2]):  # no padding at all
        from torch.nn.attention.varlen import varlen_attn  # imports torch._dynamo, 1.5 s that only this call pays

        ends = counts.keep("ends", lambda: _ends(counts, qkv.device))
        q, k, v = qkv.unflatten(1, shape).unbind(1)  # (N, H, D / H)
        return cast(Tensor, varlen_attn(q, k, v, ends, ends, max(counts), max(counts))).flatten(1)
    limit = None if bias is None else _SCORES_AT_ONCE // num_heads
    buckets, order = counts.keep((limit, qkv.device), lambda: _buckets(counts, limit, qkv.device))
    mixed = []
    for size, rows, mask in buckets:

        def padded(x: Tensor, rows: Tensor | None = rows, size: tuple[int, int] = size) -> Tensor:
            return (x if rows is None else x.index_select(0, rows)).view(*size, *x.shape[1:])  # (B, F, ...)

        q, k, v = padded(qkv).view(*size, *shape).permute(2, 0, 3, 1, 4)  # (B, H, F, D / H) each
        scores = mask
        if bias is not None:
            scores = bias.make(padded(bias.rows)) if isinstance(bias, FrameBias) else bias[:, : size[1], : size[1]]
            if gate is not None:
                scores = scores * padded(gate).transpose(1, 2)[..., None]
            scores = (scores if mask is None else scores + mask).to(qkv.dtype).expand(size[0], -1, -1, -1)
        out = scaled_dot_product_attention(q, k, v, attn_mask=scores, dropout_p=dropout)
        mixed.append(out.transpose(1, 2).reshape(size[0] * size[1], -1))
    places = mixed[0] if len(mixed) == 1 else torch.cat(mixed)
    return places if order is None else places.index_select(0, order)


def _flash_takes(qkv: Tensor, width: int) -> bool:
    """True if torch has a kernel for utterances of different lengths, for heads of this width."""
    fits = qkv.is_cuda and qkv.dtype in (torch.float16, torch.bfloat16) and width % 8 == 0 and width <= 256
    return (
        fits and torch.backends.cuda.is_flash_attention_available() and torch.cuda.get_device_capability(qkv.device) >= (8, 0)
    )


def _ends(counts: Sequence[int], device: torch.device) -> Tensor:
    """`(B + 1,)` int32, where each utterance ends, after a 0."""
    return upload(np.array([0, *accumulate(counts)], np.int32), device)


_SCORES_AT_ONCE = 1 << 29
"""Numbers of a bias in memory at once on a GPU: 2 GB in float32."""
_PAIRS_WORTH_SORTING = 1 << 26
"""Pairs of frames, of 64 utterances of 20 s, from which padding to the longest costs more than more calls do."""


class _Bucket(NamedTuple):
    """Utterances that are padded to one length, and what they are computed together with."""

    size: tuple[int, int]
    """Utterances `B` and padded frames `F`."""
    rows: Tensor | None
    """`(B F,)` the packed row of each place, beyond the end of an utterance its last; None if places are rows."""
    mask: Tensor | None
    """`(B, 1, 1, F)` 0 for frames, minus infinity beyond the end; None if all utterances fill it."""


def _buckets(counts: Counts, limit: int | None, device: torch.device) -> tuple[list[_Bucket], Tensor | None]:
    """Utterances in buckets of at most `limit` pairs of frames, and the place of each packed frame, all buckets end to end.

    Where it pays, no utterance is shorter than a quarter of the longest in its bucket. The place is None if it is the row.
    """
    longest, begins = max(counts), list(accumulate(counts[:-1], initial=0))
    sort = len(counts) * longest**2 > _PAIRS_WORTH_SORTING
    if min(counts) == longest and not (limit and sort):
        return [_Bucket((len(counts), longest), None, None)], None
    buckets: list[_Bucket] = []
    places, at = [0] * len(counts), 0
    left = sorted(range(len(counts)), key=lambda i: -counts[i])
    while left:
        frames = min(-(-counts[left[0]] // 8) * 8, longest)  # a kernel copies a mask whose rows are not aligned
        size = 1
        while size < len(left) and not (
            (sort and 4 * counts[left[size]] < counts[left[0]]) or (limit and (size + 1) * frames**2 > limit)
        ):
            size += 1
        own, left = left[:size], left[size:]
        places_of_own = range(at, at + size * frames, frames)
        for i, place in zip(own, places_of_own, strict=True):
            places[i] = place
        at += size * frames
        lengths = np.array([counts[i] for i in own])[:, None]
        rows = np.array([begins[i] for i in own])[:, None] + np.minimum(np.arange(frames), lengths - 1)
        mask = np.where(np.arange(frames) < lengths, np.float32(0), np.float32(-np.inf))[:, None, None]
        sent = None if lengths.min() == frames else upload(mask, device)
        buckets.append(_Bucket((size, frames), upload(rows.flatten(), device), sent))
    return buckets, counts.rows(places, device)


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
        bias: Bias | None = None,
        gate: Tensor | None = None,
    ) -> Tensor:
        """`attend` with this module's heads and dropout, then the output projection; all `(N, D)`."""
        dropout = self.dropout if self.training else 0.0
        return run_linear(self.out_proj, attend(q, k, v, counts, self.num_heads, bias, gate, dropout))

    def mix_own(self, x: Tensor, counts: Sequence[int], bias: Bias | None = None, gate: Tensor | None = None) -> Tensor:
        """`mix` of queries, keys and values from the same frames `(N, D)`; on a GPU one product makes the three."""
        parts = (self.q_proj, self.k_proj, self.v_proj)
        at_once = few_calls(x.device) and all(is_plain(part) for part in parts)
        if not at_once or not (bias is None or isinstance(bias, Tensor | FrameBias)):
            q, k, v = (run_linear(part, x) for part in parts)
            return self.mix(q, k, v, counts, bias, gate)
        weight = torch.cat([*(part.weight for part in parts)])
        biases: list[Tensor] = [part.weight.new_zeros(len(part.weight)) if part.bias is None else part.bias for part in parts]
        qkv = functional.linear(x, weight, torch.cat(biases))  # (N, 3 D)
        dropout = self.dropout if self.training else 0.0
        return run_linear(self.out_proj, _attend_at_once(qkv, Counts.of(counts), self.num_heads, bias, gate, dropout))


class SelfAttention(MultiHeadAttention):
    """Multi-head self-attention within each utterance, `(N, D)` to `(N, D)`.

    Example:
        >>> SelfAttention(8, num_heads=2)(torch.zeros(5, 8), [2, 3]).shape
        torch.Size([5, 8])
    """

    def forward(self, x: Tensor, counts: Sequence[int], bias: Bias | None = None) -> Tensor:
        """Packed frames `(N, D)` in and out; `counts` are the frames of each utterance, `bias` as in `attend`."""
        return self.mix_own(x, counts, bias)


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

    def forward(self, x: Tensor, counts: Sequence[int], bias: Bias) -> Tensor:
        """Packed frames `(N, D)` in and out; `counts` are the frames of each utterance, `bias` as in `attend`."""
        return self.mix_own(x, counts, bias, self.gate(x))


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
        frames = longest(counts)
        values = self.weight.t()[:, self.rows(torch.arange(1 - frames, frames, device=self.weight.device))]  # (H, 2 F - 1)
        if isinstance(counts, Padded):  # a graph has no view with as many axes as there are frames
            return values[:, distances(frames, values.device) + frames - 1]
        return values.unfold(1, frames, 1).flip(1)  # row i holds the distances -i to F - 1 - i
