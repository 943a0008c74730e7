"""Operations over packed frames are torch's modules over each utterance alone, with gradients."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from hubcore.nn import conv_same, conv_strided, group_norm, run_recurrent

COUNTS = [1, 30, 7]


@pytest.fixture
def frames() -> Tensor:
    torch.manual_seed(0)
    return torch.randn(sum(COUNTS), 8, dtype=torch.float64, requires_grad=True)


def assert_each_alone(got: Tensor, frames: Tensor, counts: list[int], module: Callable[[Tensor], Tensor]) -> None:
    """`module` maps `(1, D, F)` to `(1, D', F')`."""
    wanted = [module(part.t()[None])[0].t() for part in frames.split(COUNTS)]
    assert [len(rows) for rows in wanted] == counts
    assert torch.allclose(got, torch.cat(wanted))
    ours, theirs = (torch.autograd.grad(rows.square().sum(), frames)[0] for rows in (got, torch.cat(wanted)))
    assert torch.allclose(ours, theirs)


def test_depthwise_convolution(frames: Tensor) -> None:
    conv = nn.Conv1d(8, 8, 31, padding=15, groups=8).double()
    assert_each_alone(conv_same(frames, COUNTS, conv.weight, conv.bias, groups=8), frames, COUNTS, conv)


@pytest.mark.parametrize(("kernel", "stride", "padding", "groups"), [(8, 4, 2, 1), (3, 2, 1, 2), (1, 1, 0, 8), (5, 3, 4, 1)])
def test_strided_padded_convolution(kernel: int, stride: int, padding: int, groups: int, frames: Tensor) -> None:
    conv = nn.Conv1d(8, 16, kernel, stride, padding, groups=groups).double()
    options = {"stride": stride, "padding": (padding, padding), "groups": groups}
    got, counts = conv_strided(frames[1:], COUNTS[1:], conv.weight, conv.bias, **options)
    wanted = [conv(part.t()[None])[0].t() for part in frames.split(COUNTS)[1:]]
    assert torch.allclose(got, torch.cat(wanted)) and counts == [len(rows) for rows in wanted]


def test_causal_convolution_and_an_utterance_that_gives_nothing(frames: Tensor) -> None:
    weight = torch.randn(8, 8, 3, dtype=torch.float64)
    causal, counts = conv_strided(frames, COUNTS, weight, None, padding=(2, 0))
    assert counts == COUNTS
    pad = nn.ZeroPad1d((2, 0))
    assert_each_alone(causal, frames, COUNTS, lambda x: nn.functional.conv1d(pad(x), weight))
    _, counts = conv_strided(frames, COUNTS, weight, None, stride=2)
    assert counts == [0, 14, 3]


@pytest.mark.parametrize("groups", [1, 4])
def test_group_norm(groups: int, frames: Tensor) -> None:
    norm = nn.GroupNorm(groups, 8).double()
    nn.init.normal_(norm.weight)
    assert_each_alone(group_norm(frames, COUNTS, norm), frames, COUNTS, norm)


@pytest.mark.parametrize("net", [nn.LSTM(8, 5, 2, bidirectional=True), nn.GRU(8, 5)], ids=["lstm", "gru"])
def test_recurrent_networks(net: nn.RNNBase, frames: Tensor) -> None:
    net = net.double()
    got = run_recurrent(net, frames, COUNTS)
    assert_each_alone(got, frames, COUNTS, lambda x: net(x[0].t()[:, None])[0].transpose(0, 2).transpose(0, 1))
