"""Attention over packed frames equals torch's attention over padded ones with a mask."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from torch.nn.utils.rnn import pad_sequence

from hubcore.nn import GatedSelfAttention, RelativePositionBias, SelfAttention, attend

COUNTS = [5, 1, 3]
HEADS, DIM = 2, 8


def padded_attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
    """`(N, D)` by way of `(B, F, D)` and a mask; `bias` is `(B, H, F, F)`."""
    rows = [pad_sequence(x.split(COUNTS), batch_first=True).unflatten(2, (HEADS, -1)).transpose(1, 2) for x in (q, k, v)]
    hidden = torch.arange(max(COUNTS))[None, None, None] >= torch.tensor(COUNTS)[:, None, None, None]
    mask = torch.zeros(len(COUNTS), HEADS, max(COUNTS), max(COUNTS), dtype=q.dtype).masked_fill(hidden, -torch.inf)
    out = scaled_dot_product_attention(*rows, attn_mask=mask if bias is None else mask + bias)
    out = out.transpose(1, 2).flatten(2)
    return torch.cat([row[:count] for row, count in zip(out, COUNTS, strict=True)])


@pytest.fixture
def qkv() -> list[Tensor]:
    torch.manual_seed(0)
    return [torch.randn(sum(COUNTS), DIM, dtype=torch.float64, requires_grad=True) for _ in range(3)]


def test_plain(qkv: list[Tensor]) -> None:
    got, wanted = attend(*qkv, COUNTS, HEADS), padded_attention(*qkv)
    assert torch.allclose(got, wanted)
    ours, theirs = (torch.autograd.grad(out.square().sum(), qkv) for out in (got, wanted))
    assert all(torch.allclose(a, b) for a, b in zip(ours, theirs, strict=True))


def test_a_shared_bias(qkv: list[Tensor]) -> None:
    distances = torch.randn(HEADS, 9, dtype=torch.float64)
    index = torch.arange(5)[None] - torch.arange(5)[:, None] + 4
    bias = distances[:, index]  # (H, F, F) of the longest
    assert torch.allclose(attend(*qkv, COUNTS, HEADS, bias), padded_attention(*qkv, bias.expand(3, -1, -1, -1)))


@pytest.mark.parametrize("at_once", [1, 30, 1000])  # one head at a time, one for long utterances, all
def test_a_gated_bias(at_once: int, qkv: list[Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hubcore.nn.attention._AT_ONCE", at_once)
    bias = torch.randn(HEADS, 5, 5, dtype=torch.float64)
    gate = torch.randn(sum(COUNTS), HEADS, dtype=torch.float64)
    gates = pad_sequence(gate.split(COUNTS), batch_first=True).transpose(1, 2)[..., None]  # (B, H, F, 1)
    assert torch.allclose(attend(*qkv, COUNTS, HEADS, bias, gate), padded_attention(*qkv, bias * gates))


def test_a_bias_for_each_utterance(qkv: list[Tensor]) -> None:
    biases = [torch.randn(HEADS, n, n, dtype=torch.float64) for n in COUNTS]
    padded = torch.stack([nn.functional.pad(bias, (0, 5 - len(bias[0]), 0, 5 - len(bias[0]))) for bias in biases])
    assert torch.allclose(attend(*qkv, COUNTS, HEADS, biases), padded_attention(*qkv, padded))


@pytest.mark.slow
def test_dropout_is_of_the_attention_weights(qkv: list[Tensor]) -> None:
    ones = torch.ones_like(qkv[2])
    torch.manual_seed(0)
    got = attend(qkv[0], qkv[1], ones, COUNTS, HEADS, dropout=0.5)
    assert not torch.allclose(got, ones)
    mean = torch.stack([attend(qkv[0], qkv[1], ones, COUNTS, HEADS, dropout=0.5) for _ in range(4000)]).mean(0)
    assert torch.allclose(mean, ones, atol=0.1)


def test_self_attention_is_torchs_multi_head_attention() -> None:
    torch.manual_seed(0)
    ours, theirs = SelfAttention(DIM, HEADS).double(), nn.MultiheadAttention(DIM, HEADS, batch_first=True).double()
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([ours.q_proj.weight, ours.k_proj.weight, ours.v_proj.weight]))
        theirs.in_proj_bias.copy_(torch.cat([ours.q_proj.bias, ours.k_proj.bias, ours.v_proj.bias]))
        theirs.out_proj.load_state_dict(ours.out_proj.state_dict())
    x = torch.randn(sum(COUNTS), DIM, dtype=torch.float64)
    wanted = torch.cat([theirs(part[None], part[None], part[None])[0][0] for part in x.split(COUNTS)])
    assert torch.allclose(ours(x, COUNTS), wanted)


def plain_bias(table: Tensor, frames: int, max_distance: int) -> Tensor:
    """`(H, F, F)`, one pair of frames at a time."""
    half = len(table) // 2
    exact = half // 2
    bias = torch.empty(table.shape[1], frames, frames, dtype=table.dtype)
    for i in range(frames):
        for j in range(frames):
            row = abs(j - i)
            if row >= exact:
                row = min(half - 1, exact + int(math.log(row / exact) / math.log(max_distance / exact) * (half - exact)))
            bias[:, i, j] = table[row + half * (j > i)]
    return bias


@pytest.mark.parametrize(("num_buckets", "max_distance"), [(32, 80), (8, 11), (4, 2), (13, 90)])
def test_a_relative_bias_is_the_tables_row_of_each_distance(num_buckets: int, max_distance: int) -> None:
    bias = RelativePositionBias(HEADS, num_buckets, max_distance)
    for frames in (1, 2, 41):
        assert torch.equal(bias(torch.zeros(frames, DIM), [1, frames]), plain_bias(bias.weight, frames, max_distance))
    assert bias(torch.zeros(5, DIM), [5]).is_contiguous()  # or attention would take up to three times as long
    (bias(torch.zeros(5, DIM), [5]) * torch.arange(5)).sum().backward()
    assert (bias.weight.grad[bias.rows(torch.arange(-4, 5))] != 0).any(1).sum() >= 8


def test_gated_self_attention_is_the_papers_formula() -> None:
    torch.manual_seed(0)
    attention, bias = GatedSelfAttention(DIM, HEADS).double(), RelativePositionBias(HEADS, 8, 4).double()
    nn.init.normal_(attention.gate_scale)
    x = torch.randn(sum(COUNTS), DIM, dtype=torch.float64)
    heads = x.unflatten(1, (HEADS, -1))
    u, w = (attention.gate_proj.weight[part].sum(0) for part in (slice(4), slice(4, 8)))  # (D / H,) each
    b_u, b_w = (attention.gate_proj.bias[part].sum() for part in (slice(4), slice(4, 8)))
    update, reset = 1 - torch.sigmoid(heads @ u + b_u), torch.sigmoid(heads @ w + b_w)  # (N, H) each
    biases = []
    for update_i, reset_i in zip(update.split(COUNTS), reset.split(COUNTS), strict=True):
        d = plain_bias(bias.weight, 5, 4)[:, : len(update_i), : len(update_i)]
        candidate = attention.gate_scale[0] * reset_i.t()[..., None] * d
        biases.append(d + update_i.t()[..., None] * d + (1 - update_i.t()[..., None]) * candidate)
    mixed = attend(attention.q_proj(x), attention.k_proj(x), attention.v_proj(x), COUNTS, HEADS, biases)
    assert torch.allclose(attention(x, COUNTS, bias(x, COUNTS)), attention.out_proj(mixed))
