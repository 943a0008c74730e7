"""A conformer block over packed frames equals torch's modules over one utterance, and over a padded batch with a mask."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import silu
from torch.nn.utils.rnn import pad_sequence

from hubcore.errors import OptionError
from hubcore.nn import ConformerBlock, ConformerConfig, ConformerConv, FeedForward, SelfAttention, build_conformer

COUNTS = [1, 30, 7]
DIM, KERNEL = 8, 5
NORMS: dict[str, Callable[[int], nn.Module]] = {"batch": nn.BatchNorm1d, "layer": nn.LayerNorm}


def randomised(module: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    for weight in (*module.parameters(), *module.buffers()):
        if weight.is_floating_point():
            nn.init.uniform_(weight, 0.2, 1.2)
    return module.double().eval()


def padded_conv(conv: ConformerConv, x: Tensor, causal: bool) -> Tensor:
    """`(N, D)` by way of `(B, D, F)`: two convolutions of kernel 1 around a depthwise one, padding set to zero before it."""
    rows = pad_sequence(x.split(COUNTS), batch_first=True).transpose(1, 2)  # (B, D, F)
    valid = (torch.arange(max(COUNTS))[None] < torch.tensor(COUNTS)[:, None])[:, None]
    rows = nn.functional.glu(nn.functional.conv1d(rows, conv.gated.weight[:, :, None]), dim=1) * valid
    rows = nn.functional.pad(rows, (KERNEL - 1, 0) if causal else (KERNEL // 2, KERNEL // 2))
    rows = nn.functional.conv1d(rows, conv.depthwise.weight, groups=DIM)
    rows = conv.norm(rows) if isinstance(conv.norm, nn.BatchNorm1d) else conv.norm(rows.transpose(1, 2)).transpose(1, 2)
    rows = nn.functional.conv1d(silu(rows), conv.out.weight[:, :, None]).transpose(1, 2)
    return torch.cat([row[:count] for row, count in zip(rows, COUNTS, strict=True)])


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("norm", NORMS)
def test_the_convolution_is_torchs_over_a_padded_batch(norm: str, causal: bool) -> None:
    conv = randomised(ConformerConv(DIM, KERNEL, NORMS[norm](DIM), causal=causal))
    x = torch.randn(sum(COUNTS), DIM, dtype=torch.float64, requires_grad=True)
    ours, theirs = conv(x, COUNTS), padded_conv(conv, x, causal)
    assert torch.allclose(ours, theirs)
    gradients = [torch.autograd.grad(rows.square().sum(), [x, *conv.parameters()]) for rows in (ours, theirs)]
    assert all(torch.allclose(a, b) for a, b in zip(*gradients, strict=True))


def test_batch_norm_in_training_is_over_the_frames_there_are() -> None:
    conv = randomised(ConformerConv(DIM, KERNEL, nn.BatchNorm1d(DIM))).train()
    x = torch.randn(sum(COUNTS), DIM, dtype=torch.float64)
    before, packed = conv.norm.running_mean.clone(), list[Tensor]()
    conv.norm.register_forward_pre_hook(lambda _, args: packed.append(args[0]))
    conv(x, COUNTS)
    assert len(packed[0]) == sum(COUNTS)
    torch.testing.assert_close(conv.norm.running_mean, 0.9 * before + 0.1 * packed[0].mean(0))


def test_the_block_is_the_papers() -> None:
    attention, conv = SelfAttention(DIM, 2), ConformerConv(DIM, KERNEL, nn.BatchNorm1d(DIM))
    block = randomised(ConformerBlock(attention, conv, lambda: FeedForward(DIM, 12, activation=silu), DIM))
    x = torch.randn(sum(COUNTS), DIM, dtype=torch.float64)

    def feed_forward(module: FeedForward, rows: Tensor) -> Tensor:
        return module.fc2(silu(module.fc1(rows)))

    y = x + feed_forward(block.first_feed_forward, block.first_norm(x)) / 2
    y = y + attention(block.attention_norm(y), COUNTS)
    y = y + conv(block.conv_norm(y), COUNTS)
    y = block.norm(y + feed_forward(block.second_feed_forward, block.second_norm(y)) / 2)
    assert torch.allclose(block(x, COUNTS), y)


@pytest.mark.parametrize("positions", ["relative", "relative_key", "rotary", "none"])
def test_an_utterance_has_the_same_states_alone_and_in_a_batch(positions: str) -> None:
    config = ConformerConfig(dim=DIM, num_layers=2, num_heads=2, ffn_dim=12, depthwise_kernel=KERNEL, positions=positions)
    encoder = randomised(build_conformer(config, norm=nn.LayerNorm(DIM)))
    x = torch.randn(sum(COUNTS), DIM, dtype=torch.float64)
    batch = encoder(x, COUNTS, layers=[0, 1, 2])
    alone = [encoder(rows, [len(rows)], layers=[0, 1, 2]) for rows in x.split(COUNTS)]
    for layer, state in enumerate(batch):
        assert torch.allclose(state, torch.cat([states[layer] for states in alone]))


def test_train_mode_has_every_dropout_of_the_config() -> None:
    config = ConformerConfig(dim=DIM, num_layers=1, num_heads=2, ffn_dim=12, depthwise_kernel=KERNEL)
    x = torch.randn(4, DIM)
    for name in ("dropout", "attention_dropout", "activation_dropout", "conv_dropout"):
        encoder = build_conformer(ConformerConfig(**{**vars(config), name: 0.5}), norm=nn.LayerNorm(DIM)).train()
        first, second = (encoder(x, [4], layers=[1])[0] for _ in range(2))
        assert not torch.allclose(first, second, atol=1e-7), name
    encoder = build_conformer(config, norm=nn.LayerNorm(DIM)).train()
    torch.testing.assert_close(*(encoder(x, [4], layers=[1])[0] for _ in range(2)))


def test_impossible_shapes_are_refused() -> None:
    with pytest.raises(OptionError, match="depthwise_kernel must be odd, but is 4 instead"):
        ConformerConfig(depthwise_kernel=4)
    with pytest.raises(OptionError, match="an even number for each of 4 heads with positions 'rotary', but is 12 instead"):
        ConformerConfig(dim=12, num_heads=4, positions="rotary")
    assert ConformerConfig(dim=12, num_heads=4, positions="relative_key").dim == 12
