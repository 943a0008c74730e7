"""Blocks and encoder against torch's own transformer over padded frames."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from hubcore.nn import Block, Encoder, FeedForward, PositionalConv, SelfAttention

COUNTS = [5, 1, 3]
DIM, HEADS, DEPTH = 8, 2, 3


def blocks(pre_norm: bool) -> list[Block]:
    torch.manual_seed(0)
    made = [Block(SelfAttention(DIM, HEADS), FeedForward(DIM, 32), DIM, pre_norm=pre_norm) for _ in range(DEPTH)]
    for block in made:
        for weight in block.parameters():
            nn.init.normal_(weight, std=0.3)
    return made


def torchs_layer(block: Block) -> nn.TransformerEncoderLayer:
    pre_norm = block.pre_norm
    layer = nn.TransformerEncoderLayer(DIM, HEADS, 32, 0.0, "gelu", batch_first=True, norm_first=pre_norm, dtype=torch.float64)
    own, projections = block.state_dict(), ("q_proj", "k_proj", "v_proj")
    weights = {
        f"self_attn.in_proj_{kind}": torch.cat([own[f"attention.{name}.{kind}"] for name in projections])
        for kind in ("weight", "bias")
    }
    names = {
        "self_attn.out_proj": "attention.out_proj",
        "linear1": "feed_forward.fc1",
        "linear2": "feed_forward.fc2",
        "norm1": "attention_norm",
        "norm2": "feed_forward_norm",
    }
    weights |= {f"{theirs}.{kind}": own[f"{ours}.{kind}"] for theirs, ours in names.items() for kind in ("weight", "bias")}
    layer.load_state_dict(weights)
    return layer


def padded_states(encoder: Encoder, x: Tensor) -> list[Tensor]:
    """All hidden states by torch's layers, `(N, D)` each."""
    rows = x + encoder.pos_conv(x, COUNTS)
    rows = rows if encoder.pre_norm else encoder.norm(rows)
    padded = pad_sequence(rows.split(COUNTS), batch_first=True)
    hidden = torch.arange(padded.shape[1])[None] >= torch.tensor(COUNTS)[:, None]
    states = [padded]
    for block in encoder.blocks:
        states.append(torchs_layer(block)(states[-1], src_key_padding_mask=hidden))
    if encoder.pre_norm:
        states[-1] = encoder.norm(states[-1])
    return [torch.cat([row[:count] for row, count in zip(state, COUNTS, strict=True)]) for state in states]


@pytest.mark.parametrize("pre_norm", [False, True])
def test_hidden_states_are_those_of_torchs_transformer_in_a_ragged_batch(pre_norm: bool) -> None:
    encoder = Encoder(PositionalConv(DIM, 4, 2), blocks(pre_norm), nn.LayerNorm(DIM), pre_norm=pre_norm).double()
    nn.init.normal_(encoder.norm.weight)
    x = torch.randn(sum(COUNTS), DIM, dtype=torch.float64)
    got, wanted = encoder(x, COUNTS, layers=range(DEPTH + 1)), padded_states(encoder, x)
    assert all(torch.allclose(ours, theirs) for ours, theirs in zip(got, wanted, strict=True))
    (first,) = encoder(x[:5], [5], layers=[DEPTH])
    assert torch.allclose(first, wanted[-1][:5])
    assert [torch.equal(a, got[k]) for a, k in zip(encoder(x, COUNTS, [2, 0, 2]), [2, 0, 2], strict=True)] == [True] * 3


def test_no_block_above_the_highest_layer_runs() -> None:
    encoder = Encoder(None, blocks(pre_norm=True), nn.LayerNorm(DIM), pre_norm=True)
    ran: list[int] = []
    for index, block in enumerate(encoder.blocks):
        block.register_forward_hook(lambda *_, index=index: ran.append(index))
    encoder(torch.zeros(9, DIM), COUNTS, layers=[0])
    assert ran == []
    encoder(torch.zeros(9, DIM), COUNTS, layers=[2, 0])
    assert ran == [0, 1]


def test_what_blocks_share_is_made_once_and_reaches_every_attention() -> None:
    class Distances(nn.Module):
        calls = 0

        def forward(self, x: Tensor, counts: list[int]) -> Tensor:
            Distances.calls += 1
            index = torch.arange(max(counts))
            return -(index[None] - index[:, None]).abs().to(x.dtype).expand(HEADS, -1, -1)

    norm, x = nn.LayerNorm(DIM), torch.randn(9, DIM)
    plain = Encoder(None, blocks(pre_norm=False), norm, pre_norm=False)
    biased = Encoder(None, plain.blocks, norm, pre_norm=False, context=Distances())
    assert not torch.allclose(plain(x, COUNTS, [DEPTH])[0], biased(x, COUNTS, [DEPTH])[0], atol=1e-4)
    assert Distances.calls == 1
    torch.testing.assert_close(biased(x, COUNTS, [DEPTH])[0][5:6], biased(x[5:6], [1], [DEPTH])[0])


def test_layer_drop_gives_back_the_input() -> None:
    encoder = Encoder(None, blocks(pre_norm=False), nn.LayerNorm(DIM), pre_norm=False)
    x = torch.randn(9, DIM)
    first, last = encoder(x, COUNTS, [0, DEPTH], layerdrop=1.0)
    assert torch.equal(first, last)
