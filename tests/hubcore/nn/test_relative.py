"""Attention that knows distances equals the papers' formulas, written out for every pair of frames of a padded batch."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from hubcore.nn import (
    MultiHeadAttention,
    RelativeAttention,
    RelativeKeyAttention,
    RelativePositions,
    RotaryAttention,
    RotaryPositions,
)
from hubcore.nn.relative import by_distance

COUNTS = [5, 1, 3]
HEADS, DIM = 2, 8
FRAMES, HEAD_DIM = max(COUNTS), DIM // HEADS
AHEAD = torch.arange(FRAMES)[None] - torch.arange(FRAMES)[:, None]
"""`(F, F)`: how far the key of a column is ahead of the query of a row."""


def padded(x: Tensor) -> Tensor:
    """`(N, D)` as `(B, H, F, D / H)`."""
    return pad_sequence(x.split(COUNTS), batch_first=True).unflatten(2, (HEADS, -1)).transpose(1, 2)


def plain(module: MultiHeadAttention, scores: Tensor, v: Tensor) -> Tensor:
    """`(N, D)` from unscaled scores `(B, H, F, F)`: mask, softmax, values, output projection."""
    hidden = torch.arange(FRAMES)[None, None, None] >= torch.tensor(COUNTS)[:, None, None, None]
    weights = (scores / HEAD_DIM**0.5).masked_fill(hidden, -torch.inf).softmax(-1)
    rows: Tensor = module.out_proj((weights @ padded(v)).transpose(1, 2).flatten(2))
    return torch.cat([row[:count] for row, count in zip(rows, COUNTS, strict=True)])


def relative(module: RelativeAttention, x: Tensor) -> Tensor:
    """Dai et al. 2019, section 3.3, terms (a) to (d)."""
    angles = -AHEAD[..., None] / 10000 ** (torch.arange(0, DIM, 2, dtype=x.dtype) / DIM)  # (F, F, D / 2)
    sinusoids = torch.stack([angles.sin(), angles.cos()], -1).flatten(2)  # (F, F, D)
    p = module.pos_proj(sinusoids).unflatten(2, (HEADS, -1))  # (F, F, H, D / H)
    q, k = padded(module.q_proj(x)), padded(module.k_proj(x))
    u, v = module.content_bias[:, None], module.position_bias[:, None]
    scores = (q + u) @ k.transpose(2, 3) + torch.einsum("bhid,ijhd->bhij", q + v, p)
    return plain(module, scores, module.v_proj(x))


def relative_key(module: RelativeKeyAttention, x: Tensor) -> Tensor:
    """Shaw et al. 2018, section 3.2: a learnt vector for every pair, shared by the pairs of one clipped distance."""
    keys = module.distances[AHEAD.clamp(-module.left, module.right) + module.left]  # (F, F, D / H)
    q, k = padded(module.q_proj(x)), padded(module.k_proj(x))
    return plain(module, q @ k.transpose(2, 3) + torch.einsum("bhid,ijd->bhij", q, keys), module.v_proj(x))


def rotary(module: RotaryAttention, x: Tensor) -> Tensor:
    """Each pair (i, i + D / 2H) of a head as a complex number, turned, before the projections."""
    parts = padded(x)
    pairs = torch.complex(parts[..., : HEAD_DIM // 2], parts[..., HEAD_DIM // 2 :])
    angles = torch.arange(FRAMES)[:, None] * 100.0 ** -(torch.arange(0, HEAD_DIM, 2, dtype=x.dtype) / HEAD_DIM)
    pairs = pairs * torch.polar(torch.ones_like(angles), angles)
    rows = torch.cat([pairs.real, pairs.imag], -1).transpose(1, 2).flatten(2)  # (B, F, D)
    q, k = (m(rows).unflatten(2, (HEADS, -1)).transpose(1, 2) for m in (module.q_proj, module.k_proj))
    return plain(module, q @ k.transpose(2, 3), module.v_proj(x))


KINDS: dict[str, tuple[Callable[[], MultiHeadAttention], Callable[[], nn.Module] | None, Callable[..., Tensor]]] = {
    "relative": (lambda: RelativeAttention(DIM, HEADS), RelativePositions, relative),
    "relative key": (lambda: RelativeKeyAttention(DIM, HEADS, left=2, right=1), None, relative_key),
    "relative key beyond the longest": (lambda: RelativeKeyAttention(DIM, HEADS, left=64, right=8), None, relative_key),
    "rotary": (lambda: RotaryAttention(DIM, HEADS), lambda: RotaryPositions(HEAD_DIM, base=100.0), rotary),
}


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_the_papers_formula_with_the_same_gradients(kind: str) -> None:
    make, context, reference = KINDS[kind]
    torch.manual_seed(0)
    module = make().double()
    for weight in module.parameters():
        nn.init.normal_(weight, std=0.5)
    x = torch.randn(sum(COUNTS), DIM, dtype=torch.float64, requires_grad=True)
    given = () if context is None else (context().double()(x, COUNTS),)
    ours, theirs = module(x, COUNTS, *given), reference(module, x)
    assert torch.allclose(ours, theirs)
    weights = [x, *(weight for name, weight in module.named_parameters() if name != "k_proj.bias")]
    pairs = zip(*(torch.autograd.grad(rows.square().sum(), weights) for rows in (ours, theirs)), strict=True)
    assert all(torch.allclose(a, b) and a.abs().max() > 1e-4 for a, b in pairs)


@pytest.mark.parametrize("kind", KINDS)
def test_an_utterance_alone_has_the_same_rows(kind: str) -> None:
    make, context, _ = KINDS[kind]
    torch.manual_seed(0)
    module, x = make(), torch.randn(sum(COUNTS), DIM)

    def run(rows: Tensor, counts: list[int]) -> Tensor:
        return module(rows, counts, *(() if context is None else (context()(rows, counts),)))

    alone = torch.cat([run(rows, [len(rows)]) for rows in x.split(COUNTS)])
    torch.testing.assert_close(run(x, COUNTS), alone)


@pytest.mark.parametrize("frames", [1, 2, 7])
def test_by_distance_shows_each_pair_its_distance(frames: int) -> None:
    ahead = torch.arange(1 - frames, frames + 1).expand(3, frames, -1)
    at = torch.arange(frames)
    assert torch.equal(by_distance(ahead), (at[None] - at[:, None]).expand(3, -1, -1))


def test_the_rates_of_rotary_positions_are_part_of_the_state_only_where_checkpoints_hold_them() -> None:
    assert [list(RotaryPositions(4, stored=stored).state_dict()) for stored in (True, False)] == [["rates"], []]
    narrow = RotaryPositions(4)(torch.zeros(3, 8, dtype=torch.bfloat16), [3])
    wide = RotaryPositions(4)(torch.zeros(3, 8), [3])
    assert all(torch.equal(a, b.bfloat16()) for a, b in zip(narrow, wide, strict=True))
