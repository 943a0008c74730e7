"""`FrameConv` and `ConvExtractor` against torch's own convolutions."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from hubcore.nn import FrameConv, SpeechEncoderConfig, build_extractor, plain_features
from hubcore.ragged import pack_on_grid

LENGTHS = (997, 46, 300)


@pytest.mark.parametrize(("kernel", "stride"), [(3, 2), (2, 2), (10, 5), (1, 1), (5, 1), (2, 3), (7, 3)])
def test_frame_conv_is_a_convolution_with_gradients(kernel: int, stride: int) -> None:
    torch.manual_seed(0)
    conv = FrameConv(6, 5, kernel=kernel, stride=stride, bias=True).double()
    rows = torch.randn(41, 6, dtype=torch.float64, requires_grad=True)
    wanted = functional.conv1d(rows.t()[None], conv.weight.transpose(1, 2), conv.bias, stride=stride)[0].t()
    assert_same(conv(rows), wanted, [rows, *conv.parameters()])


@pytest.mark.parametrize("conv_norm", ["group", "layer"])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_the_extractor_is_its_plain_version_alone_and_in_a_ragged_batch(conv_norm: Any, bias: bool, chunk: int) -> None:
    torch.manual_seed(0)
    layers = ((8, 10, 5), (8, 3, 2), (8, 2, 2))
    extractor = build_extractor(SpeechEncoderConfig(conv_layers=layers, conv_norm=conv_norm, conv_bias=bias)).double()
    extractor.chunk = chunk
    weights = list(extractor.parameters())
    for weight in weights:
        torch.nn.init.normal_(weight, std=0.5)
    wavs = [torch.randn(n, dtype=torch.float64, requires_grad=True) for n in LENGTHS]
    for batch in (wavs, wavs[:1]):
        signal, starts = pack_on_grid(batch, extractor.stride)
        got = extractor(signal, starts, [len(wav) for wav in batch])
        assert_same(got, torch.cat([plain_features(extractor, wav) for wav in batch]), [*batch, *weights])


def assert_same(got: Tensor, wanted: Tensor, inputs: list[Tensor]) -> None:
    """Values and gradients."""
    assert got.shape == wanted.shape
    assert torch.allclose(got, wanted, atol=1e-9)
    ours = torch.autograd.grad(got.square().sum(), inputs, materialize_grads=True)
    theirs = torch.autograd.grad(wanted.square().sum(), inputs, materialize_grads=True)
    assert all(torch.allclose(a, b, atol=1e-9) for a, b in zip(ours, theirs, strict=True))


def test_thousands_of_short_utterances_cost_no_more_than_their_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    extractor = build_extractor(SpeechEncoderConfig(conv_layers=((4, 10, 5), (4, 8, 8), (4, 8, 8))))
    first, linear, calls = extractor._first, functional.linear, []

    def counted(*arguments: Any) -> Tensor:
        before = len(calls)
        result = first(*arguments)
        assert len(calls) - before <= extractor.chunk + 3  # matrix products: the utterances of this chunk, no others
        return result

    def counting(*arguments: Any) -> Tensor:
        calls.append(1)
        return linear(*arguments)

    monkeypatch.setattr(extractor, "_first", counted)
    monkeypatch.setattr("hubcore.nn.conv.functional.linear", counting)
    with torch.inference_mode():
        extractor(torch.randn(320 * 2 * 1000), list(range(0, 2000, 2)), [400] * 1000)
