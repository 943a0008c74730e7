"""Self-attention within each utterance of packed frames.

Shapes: `F` frames of one utterance, `N` packed frames of all, `D` dim, `H` heads.
"""

from __future__ import annotations

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
        frames, mask = q_i.shape[2], None
        if bias is not None:
            mask = bias[:, :frames, :frames] if isinstance(bias, Tensor) else next(biases)  # (H, F, F)
            mask = mask if gate_i is None else mask * gate_i.t()[:, :, None]
            mask = mask.to(q_i.dtype)
        out = scaled_dot_product_attention(q_i, k_i, v_i, attn_mask=mask, dropout_p=dropout)[0]  # (H, F, D / H)
        mixed.append(out.transpose(0, 1).flatten(1))  # (F, D)
    return mixed[0] if len(mixed) == 1 else torch.cat(mixed)


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
        self, q: Tensor, k: Tensor, v: Tensor, counts: Sequence[int], bias: Tensor | Iterable[Tensor] | None = None
    ) -> Tensor:
        """`attend` with this module's heads and dropout, then the output projection; all `(N, D)`."""
        dropout = self.dropout if self.training else 0.0
        out: Tensor = self.out_proj(attend(q, k, v, counts, self.num_heads, bias, dropout=dropout))
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
