"""An upstream is traced whole by `torch.compile(fullgraph=True)` and `torch.export`, and gives the same numbers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hubcore.errors import AudioError
from hubcore.nn import SpeechEncoderConfig
from hubcore.nn.encoder_upstream import EncoderUpstream, SpeechEncoderUpstream
from hubcore_cpc import CpcConfig, CpcUpstream
from hubcore_fbank import FbankUpstream
from hubcore_wavlm import WavLMConfig, WavLMUpstream
from tests.gold import relative_error

SMALL: dict[str, Any] = {"dim": 32, "num_layers": 1, "num_heads": 2, "ffn_dim": 32, "pos_conv_kernel": 8}
KINDS = {
    "group": SpeechEncoderConfig(**SMALL, conv_layers=((8, 10, 5), (8, 3, 2), (8, 2, 2))),
    "layer": SpeechEncoderConfig(
        **SMALL, conv_layers=((8, 10, 5), (8, 3, 2)), conv_norm="layer", conv_bias=True, pre_norm=True, normalize=True
    ),
}


class SmallUpstream(SpeechEncoderUpstream):
    config_class = SpeechEncoderConfig


class LastState(nn.Module):
    """`torch.export` takes modules that give tensors."""

    def __init__(self, upstream: nn.Module) -> None:
        super().__init__()
        self.upstream = upstream

    def forward(self, wavs: Tensor) -> Tensor:
        state: Tensor = self.upstream(wavs).last_hidden_state
        return state


@pytest.fixture(autouse=True)
def _nothing_compiled() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def make(kind: str) -> EncoderUpstream:
    torch.manual_seed(0)
    if kind == "gated bias":
        return WavLMUpstream(WavLMConfig(**vars(KINDS["group"]), num_buckets=32, max_distance=80)).eval()
    upstream = SmallUpstream(KINDS[kind]) if kind in KINDS else FbankUpstream.from_config(kind)
    return upstream.eval()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["group", "layer", "gated bias", "fbank", "mel"])
def test_a_ragged_batch_is_one_graph_with_the_same_numbers_and_gradients(kind: str) -> None:
    upstream = make(kind)
    wavs = torch.randn(3, 6000, requires_grad=True)
    traced = torch.compile(upstream, fullgraph=True, backend="aot_eager")
    lengths = [6000, 2000, 4321]
    got, wanted = traced(wavs, lengths), upstream(wavs, lengths)
    assert got.lengths.tolist() == wanted.lengths.tolist() and torch.equal(got.times, wanted.times)
    for ours, theirs in zip(got.hidden_states, wanted.hidden_states, strict=True):
        assert relative_error(ours.detach(), theirs.detach()) <= 1e-5
    gradients = [torch.autograd.grad(out.last_hidden_state.square().sum(), wavs)[0] for out in (got, wanted)]
    assert relative_error(*gradients) <= 1e-4


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize(("kind", "strict"), [("group", False), ("fbank", True)])
def test_an_upstream_is_exported_with_a_batch(kind: str, strict: bool) -> None:
    upstream, wavs = make(kind), torch.randn(2, 4000)
    program = torch.export.export(LastState(upstream), (torch.randn(2, 4000),), strict=strict)
    assert relative_error(program.module()(wavs), upstream(wavs).last_hidden_state) <= 1e-5


@torch.no_grad()
@pytest.mark.slow
def test_the_model_of_an_upstream_is_exported_alone() -> None:
    model, wav = make("group").model, torch.randn(4000)
    program = torch.export.export(model, ([torch.randn(4000)], [1]))
    got, counts = program.module()([wav], [1])
    wanted, frames = model([wav], [1])
    assert relative_error(got[0], wanted[0]) <= 1e-5 and counts == frames


@pytest.mark.slow
@torch.no_grad()
def test_a_recurrent_network_is_compiled_in_parts() -> None:
    upstream, wavs = CpcUpstream(CpcConfig(encoder_dim=8, context_dim=4)).eval(), [torch.randn(4000), torch.randn(900)]
    got, wanted = torch.compile(upstream, backend="eager")(wavs), upstream(wavs)
    for ours, theirs in zip(got.hidden_states, wanted.hidden_states, strict=True):
        assert relative_error(ours, theirs) <= 1e-5


@pytest.mark.slow
def test_what_is_traced_leaves_values_to_the_caller() -> None:
    upstream = make("fbank")
    traced = torch.compile(upstream, fullgraph=True, backend="eager")
    bad = torch.zeros(1, 4000)
    bad[0, 7] = torch.nan
    assert not traced(bad).last_hidden_state.isfinite().all()
    with pytest.raises(AudioError, match="at sample 7"):  # nothing that was traced is left behind
        upstream(bad)
    assert upstream(torch.zeros(1, 4000)).last_hidden_state.isfinite().all()
