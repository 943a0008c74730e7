"""Position embeddings of packed frames are those of each utterance alone, by torch's own modules."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations

from hubcore.nn import BatchNormPositionalConv, PositionalConv, StackedPositionalConv

COUNTS = [1, 30, 7]


@pytest.fixture
def frames() -> Tensor:
    torch.manual_seed(0)
    return torch.randn(sum(COUNTS), 8, dtype=torch.float64)


def same(conv: nn.Module, x: Tensor, kernel: int) -> Tensor:
    """A convolution with padding that keeps the number of frames: an even kernel makes one too many."""
    assert conv.padding == (kernel // 2,)
    return conv(x)[..., : x.shape[-1]]


@pytest.mark.parametrize("kernel", [16, 5])
def test_weight_norm(kernel: int, frames: Tensor) -> None:
    ours = PositionalConv(8, kernel, 2).double()
    nn.init.normal_(ours.weight_g)
    nn.init.normal_(ours.bias)
    theirs = nn.Conv1d(8, 8, kernel, padding=kernel // 2, groups=2).double()
    theirs = parametrizations.weight_norm(theirs, dim=2)
    theirs.load_state_dict(
        {
            "bias": ours.bias,
            "parametrizations.weight.original0": ours.weight_g,
            "parametrizations.weight.original1": ours.weight_v,
        }
    )
    wanted = [functional.gelu(same(theirs, part.t()[None], kernel)[0].t()) for part in frames.split(COUNTS)]
    assert torch.allclose(ours(frames, COUNTS), torch.cat(wanted))


@pytest.mark.parametrize("kernel", [16, 5])
def test_batch_norm(kernel: int, frames: Tensor) -> None:
    ours = BatchNormPositionalConv(8, kernel, 2).double()
    for weight in (ours.norm.weight, ours.norm.bias, ours.norm.running_mean, ours.bias):
        nn.init.normal_(weight)
    nn.init.uniform_(ours.norm.running_var, 0.5, 2)
    conv = nn.Conv1d(8, 8, kernel, padding=kernel // 2, groups=2).double()
    conv.load_state_dict({"weight": ours.weight, "bias": ours.bias})
    ours.eval()
    wanted = [functional.gelu(same(conv, ours.norm(part.t()[None]), kernel)[0].t()) for part in frames.split(COUNTS)]
    assert torch.allclose(ours(frames, COUNTS), torch.cat(wanted))
    before = ours.norm.running_mean.clone()
    ours.train()(frames, COUNTS)
    assert torch.allclose(ours.norm.running_mean, 0.9 * before + 0.1 * frames.mean(0))  # of frames, no padding among them


@pytest.mark.parametrize("kernel", [4, 5])
def test_stacked(kernel: int, frames: Tensor) -> None:
    ours = StackedPositionalConv(8, kernel, 2, depth=3).double()
    wanted = []
    for part in frames.split(COUNTS):
        x = part.t()[None]
        for conv in ours.convs:
            y = functional.conv1d(x, conv.weight, conv.bias, padding=kernel // 2, groups=2)[..., : x.shape[-1]]
            x = functional.gelu(nn.LayerNorm(8, elementwise_affine=False)(y.transpose(1, 2))).transpose(1, 2)
        wanted.append(x[0].t())
    assert torch.allclose(ours(frames, COUNTS), torch.cat(wanted))
