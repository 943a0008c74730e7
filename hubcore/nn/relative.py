"""Self-attention that knows the distance of frames: relative positions, relative keys, rotary positions.

`RelativePositions` and `RotaryPositions` are the `context` of an `Encoder`: they make once what every block's attention uses.
Shapes: `F` frames of one utterance, `N` packed frames of all, `D` dim, `H` heads, `P` distances.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from hubcore.nn.attention import Bias, FrameBias, MultiHeadAttention
from hubcore.nn.padded import Padded, distances, from_start, longest
from hubcore.nn.products import run_linear
from hubcore.strategy import Counts, few_calls


class RelativePositions(nn.Module):
    """Sinusoids of every distance in the longest utterance, `(2 F, D)`; there is no longest distance. fairseq: `rel_pos`.

    Row `r` stands for keys `r - F + 1` frames ahead of the query, so that row `F - 1` stands for the query itself. Column 2i
    is the sine and column 2i + 1 the cosine of the distance back, divided by 10000 to the power of 2i / D.

    Example:
        >>> RelativePositions()(torch.zeros(5, 4), [2, 3])[2].tolist()
        [0.0, 1.0, 0.0, 1.0]
    """

    def forward(self, x: Tensor, counts: Sequence[int]) -> Tensor:
        """Sinusoids for packed frames `(N, D)`, in their dtype."""
        dim, frames = x.shape[1], longest(counts)
        wide = torch.promote_types(x.dtype, torch.float32)
        back = torch.arange(frames - 1, -frames - 1, -1, dtype=wide, device=x.device)  # (2 F,)
        rates = torch.exp(torch.arange(0, dim, 2, dtype=wide, device=x.device) * (-math.log(10000.0) / dim))  # (D / 2,)
        angles = back[:, None] * rates
        return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1).to(x.dtype)


def by_distance(scores: Tensor) -> Tensor:
    """`(..., F, F)` scores of query and key from `(..., F, 2 F)` scores of query and distance, the rows of `RelativePositions`.

    This is the "relative shift" of Transformer-XL (Dai et al. 2019, appendix B), without a copy.

    Example:
        >>> ahead = torch.arange(-2, 4).expand(1, 3, 6)  # of 3 frames: 2 back to 3 ahead
        >>> by_distance(ahead)[0].tolist()
        [[0, 1, 2], [-1, 0, 1], [-2, -1, 0]]
    """
    frames = scores.shape[-2]
    # Query i meets key j in column j - i + F - 1: each row starts one column earlier than the row before it.
    rows = scores.flatten(-2)[..., frames - 1 : frames - 1 + frames * (2 * frames - 1)]
    by_query: Tensor = rows.unflatten(-1, (frames, 2 * frames - 1))
    return by_query[..., :frames]


class RelativeAttention(MultiHeadAttention):
    """Attention with relative positions (Dai et al. 2019, section 3.3), `(N, D)` to `(N, D)`; needs `RelativePositions`.

    The score of a query and a key is `(q + content_bias) k + (q + position_bias) p`, where `p` is the projected sinusoid of
    their distance. transformers: `position_embeddings_type="relative"`, `pos_bias_u`, `pos_bias_v`, `linear_pos`.

    Example:
        >>> x = torch.zeros(5, 8)
        >>> RelativeAttention(8, num_heads=2)(x, [2, 3], RelativePositions()(x, [2, 3])).shape
        torch.Size([5, 8])
    """

    def __init__(self, dim: int, num_heads: int, dropout: float = 0.0) -> None:
        super().__init__(dim, num_heads, dropout)
        self.pos_proj = nn.Linear(dim, dim, bias=False)
        self.content_bias = nn.Parameter(torch.empty(num_heads, dim // num_heads))
        self.position_bias = nn.Parameter(torch.empty(num_heads, dim // num_heads))
        nn.init.xavier_uniform_(self.content_bias)
        nn.init.xavier_uniform_(self.position_bias)

    def forward(self, x: Tensor, counts: Sequence[int], sinusoids: Tensor) -> Tensor:
        """Packed frames `(N, D)` in and out; `counts` are the frames of each utterance, `sinusoids` those of the context."""
        heads, frames = (self.num_heads, -1), longest(counts)
        q = run_linear(self.q_proj, x).unflatten(1, heads)  # (N, H, D / H)
        position = (q + self.position_bias) * q.shape[2] ** -0.5
        places = run_linear(self.pos_proj, sinusoids).unflatten(1, heads).permute(1, 2, 0)  # (H, D / H, 2 F of the longest)

        def make(rows: Tensor) -> Tensor:  # (B, F, H, D / H) to (B, H, F, F)
            own = rows.shape[1]
            return by_distance(rows.transpose(1, 2) @ places[:, :, frames - own : frames + own])

        bias: Bias = FrameBias(position, make)
        if isinstance(counts, Padded):  # a graph has no view that depends on how many frames there are
            scores = counts.apart(torch.bmm(position.transpose(0, 1), places).transpose(0, 1)).transpose(1, 2)  # (B, H, F, 2 F)
            bias = scores.gather(-1, (distances(frames, x.device) + frames - 1).expand(*scores.shape[:-1], -1))
        return self.mix(
            (q + self.content_bias).flatten(1), run_linear(self.k_proj, x), run_linear(self.v_proj, x), counts, bias
        )


class RelativeKeyAttention(MultiHeadAttention):
    """Attention with a learnt key for each distance (Shaw et al. 2018, section 3.2), `(N, D)` to `(N, D)`.

    The score of a query and a key is `q k + q d`, where `d` is the row of `distances` for how far the key is ahead, at most
    `right` frames, or at most `left` back. transformers: `position_embeddings_type="relative_key"`, `distance_embedding`,
    `left_max_position_embeddings`, `right_max_position_embeddings`.

    Example:
        >>> RelativeKeyAttention(8, num_heads=2, left=64, right=8)(torch.zeros(5, 8), [2, 3]).shape
        torch.Size([5, 8])
    """

    def __init__(self, dim: int, num_heads: int, left: int, right: int, dropout: float = 0.0) -> None:
        super().__init__(dim, num_heads, dropout)
        self.left, self.right = left, right
        self.distances = nn.Parameter(torch.empty(left + right + 1, dim // num_heads))
        nn.init.normal_(self.distances, std=0.02)

    def forward(self, x: Tensor, counts: Sequence[int]) -> Tensor:
        """Packed frames `(N, D)` in and out; `counts` are the frames of each utterance."""
        q = run_linear(self.q_proj, x)
        index = distances(longest(counts), x.device).clamp(-self.left, self.right) + self.left  # (F, F) of the longest
        scores = functional.linear(q.unflatten(1, (self.num_heads, -1)), self.distances)  # (N, H, P)
        scores = scores * (q.shape[1] // self.num_heads) ** -0.5

        def bias(rows: Tensor) -> Tensor:  # (B, F, H, P) to (B, H, F, F)
            frames = rows.shape[1]
            rows = rows.transpose(1, 2)
            return rows.gather(3, index[:frames, :frames].expand(*rows.shape[:2], -1, -1))

        return self.mix(q, run_linear(self.k_proj, x), run_linear(self.v_proj, x), counts, FrameBias(scores, bias))


class RotaryPositions(nn.Module):
    """Cosines and sines by which `RotaryAttention` turns frames (Su et al. 2021, section 3.2), two times `(N, 1, D / H)`.

    Frame f turns pair i of each head by `f * rates[i]`, and `rates[i]` is `base` to the power of `-2i H / D`. Frames are
    counted from the start of each utterance; there is no last one. fairseq: `rope`.

    Args:
        head_dim: `D / H`.
        base: transformers: `rotary_embedding_base`.
        stored: True if the rates are part of the state dict, as in checkpoints of conformers. fairseq: `rotary_emb.inv_freq`.

    Example:
        >>> cos, sin = RotaryPositions(4)(torch.zeros(5, 8), [2, 3])
        >>> cos[:, 0, 0].tolist() == torch.tensor([0.0, 1.0, 0.0, 1.0, 2.0]).cos().tolist()
        True
    """

    rates: Tensor | None

    def __init__(self, head_dim: int, base: float = 10000.0, *, stored: bool = False) -> None:
        super().__init__()
        self.head_dim, self.base = head_dim, base
        self.register_buffer("rates", self.computed_rates(torch.empty(0)) if stored else None)

    def computed_rates(self, x: Tensor) -> Tensor:
        """The rates `(D / H / 2,)` on the device of `x`, in its dtype or float32 where that is wider."""
        wide = torch.promote_types(x.dtype, torch.float32)
        pairs: Tensor = 1.0 / self.base ** (torch.arange(0, self.head_dim, 2, dtype=wide, device=x.device) / self.head_dim)
        return pairs

    def forward(self, x: Tensor, counts: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Cosines and sines for packed frames `(N, D)`, in their dtype."""
        rates = self.computed_rates(x) if self.rates is None else self.rates.to(torch.promote_types(x.dtype, torch.float32))
        angles = torch.arange(longest(counts), dtype=rates.dtype, device=x.device)[:, None] * rates  # (F, D / H / 2)
        both = torch.cat([angles, angles], dim=1)[:, None]  # (F, 1, D / H)
        if few_calls(x.device) and not isinstance(counts, Padded):
            _, frames = Counts.of(counts).places(x.device)
            cos, sin = (rows.index_select(0, frames) for rows in (both.cos(), both.sin()))
        else:
            cos, sin = (from_start(rows, counts) for rows in (both.cos(), both.sin()))
        return cos.to(x.dtype), sin.to(x.dtype)


class RotaryAttention(MultiHeadAttention):
    """Attention with rotary positions, `(N, D)` to `(N, D)`; needs `RotaryPositions`.

    Frames are turned *before* they are projected to queries and keys, as fairseq and transformers do in conformers; the paper
    turns the queries and keys. Values see the frames as they are. transformers: `position_embeddings_type="rotary"`.

    Example:
        >>> x = torch.zeros(5, 8)
        >>> RotaryAttention(8, num_heads=2)(x, [2, 3], RotaryPositions(4)(x, [2, 3])).shape
        torch.Size([5, 8])
    """

    def forward(self, x: Tensor, counts: Sequence[int], turns: tuple[Tensor, Tensor]) -> Tensor:
        """Packed frames `(N, D)` in and out; `counts` are the frames of each utterance, `turns` those of the context."""
        cos, sin = turns
        parts = x.unflatten(1, (self.num_heads, -1))  # (N, H, D / H)
        first, second = parts.chunk(2, dim=2)
        turned = (parts * cos + torch.cat([-second, first], dim=2) * sin).flatten(1)
        return self.mix(run_linear(self.q_proj, turned), run_linear(self.k_proj, turned), run_linear(self.v_proj, x), counts)
