"""Featurizer: selection, weights, lengths, errors. What it does over every upstream is in the conformance kit."""

from __future__ import annotations

import types
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn import functional

from hubcore import Featurizer, Upstream, hub
from hubcore.errors import OptionError
from hubcore_data2vec2.config import Data2Vec2Config
from hubcore_data2vec2.upstream import Data2Vec2Upstream
from hubcore_whisper.config import WhisperConfig
from hubcore_whisper.upstream import WhisperUpstream
from tests.gold import gold_wavs
from tests.toys import ToyUpstream, WrappedEnergies

WAVS = [gold_wavs()[1], gold_wavs()[0]]


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    return hub.load("wav2vec2_tiny_prompts")


@torch.no_grad()
def test_it_starts_as_the_mean_of_the_layers(model: torch.nn.Module) -> None:
    out = model(WAVS)
    features = Featurizer(model)(WAVS, out)
    assert [len(f) for f in features] == [94, 34]
    mean = torch.stack(out.hidden_states).mean(0)
    for row, feature in enumerate(features):
        assert torch.allclose(feature, mean[row, : len(feature)], atol=1e-6)


@torch.no_grad()
def test_the_weights_are_a_softmax(model: torch.nn.Module) -> None:
    featurizer = Featurizer(model, layer_selection=[1, 3], normalize=True)
    featurizer.weights.copy_(torch.tensor([0.4, -0.6]))
    out = model(WAVS)
    a, b = (functional.layer_norm(out.hidden_states[k], (96,)) for k in (1, 3))
    wa, wb = torch.softmax(torch.tensor([0.4, -0.6]), 0)
    padded, lengths = featurizer.padded(out)
    assert torch.allclose(padded, wa * a + wb * b, atol=1e-6)
    assert lengths.tolist() == [94, 34]
    assert (padded[1, 34:] == 0).all()


@torch.no_grad()
@pytest.mark.parametrize(
    ("options", "index"),
    [
        ({"feature_selection": "last_hidden_state"}, 4),
        ({"feature_selection": "hidden_state_2"}, 2),
        ({"layer_selection": 3}, 3),
        ({"layer_selection": -1}, 4),
        ({"layer_selection": [-2]}, 3),
    ],
)
def test_one_layer(model: torch.nn.Module, options: dict[str, object], index: int) -> None:
    featurizer = Featurizer(model, **options)
    assert featurizer.layers == (index,)
    out = model(WAVS, layers=featurizer.layers)
    assert torch.equal(featurizer.padded(out)[0], model(WAVS).hidden_states[index])


@pytest.mark.parametrize(
    "options",
    [
        {"feature_selection": "hidden_state_5"},
        {"feature_selection": "hidden_state_x"},
        {"feature_selection": "PR"},
        {"layer_selection": 5},
        {"layer_selection": []},
        {"layer_selection": [0, 0]},
        {"layer_selection": [0, -5]},
        {"layer_selection": [True]},
        {"feature_selection": "last_hidden_state", "layer_selection": 1},
    ],
)
def test_impossible_selections_are_errors(model: torch.nn.Module, options: dict[str, object]) -> None:
    with pytest.raises(OptionError):
        Featurizer(model, **options)


def test_layers_of_different_widths_are_an_error() -> None:
    odd = types.SimpleNamespace(layer_names=("a", "b"), hidden_sizes=(8, 6), frame_stride=320)
    with pytest.raises(OptionError, match="a: 8, b: 6"):
        Featurizer(odd)
    assert Featurizer(odd, layer_selection=1).output_dim == 6


def test_an_output_without_the_layer_or_of_another_batch_is_an_error(model: torch.nn.Module) -> None:
    out = model(WAVS, layers=[0])
    with pytest.raises(OptionError, match="lacks layer 1"):
        Featurizer(model)(WAVS, out)
    with pytest.raises(OptionError, match="3 waveforms"):
        Featurizer(model)([*WAVS, WAVS[0]], model(WAVS))


def test_an_output_of_another_upstream_is_an_error(model: torch.nn.Module) -> None:
    fbank = hub.load("fbank")
    with pytest.raises(OptionError, match="must belong to one upstream"):
        Featurizer(model, layer_selection=0)(WAVS, fbank(WAVS))
    with pytest.raises(OptionError, match="must belong to one upstream"):
        Featurizer(fbank)(WAVS, model(WAVS))


def test_an_output_without_gradients_to_come_says_so(model: torch.nn.Module) -> None:
    with torch.inference_mode():
        out = model(WAVS)
    with pytest.raises(OptionError, match=r"torch\.no_grad"):
        Featurizer(model)(WAVS, out)
    with torch.inference_mode():
        assert len(Featurizer(model)(WAVS, out)) == 2


@pytest.mark.slow
def test_the_weights_train(model: torch.nn.Module) -> None:
    with torch.no_grad():
        out = model(WAVS)
        target = out.hidden_states[2]
    featurizer = Featurizer(model)
    optimizer = torch.optim.Adam(featurizer.parameters(), lr=0.3)
    for _ in range(60):
        optimizer.zero_grad()
        (featurizer.padded(out)[0] - target).square().mean().backward()
        optimizer.step()
    assert featurizer.weights.argmax() == 2
    assert torch.softmax(featurizer.weights, 0)[2] > 0.9


def test_no_forward_pass_at_construction(model: torch.nn.Module) -> None:
    def forbidden(*_: object) -> None:
        raise RuntimeError("forward was called")

    handle = model.register_forward_pre_hook(forbidden)
    try:
        Featurizer(model)
    finally:
        handle.remove()


# Summed as they come --------------------------------------------------------------------------------------------------


UPSTREAMS: dict[str, Callable[[], Upstream]] = {
    "bundled": lambda: hub.load("wav2vec2_tiny_prompts"),
    "one layer": lambda: hub.load("fbank"),
    "extra tokens": lambda: Data2Vec2Upstream.from_config(Data2Vec2Config(dim=96, num_layers=1, extra_tokens=3)).eval(),
    "windows": lambda: WhisperUpstream.from_config(
        WhisperConfig(dim=8, num_layers=2, num_heads=2, ffn_dim=16, positions=50), long="chunk"
    ).eval(),
    "sums nothing itself": lambda: ToyUpstream().eval(),
    "no UpstreamBase": WrappedEnergies,
}


@pytest.mark.parametrize("name", UPSTREAMS)
@pytest.mark.parametrize("options", [{}, {"layer_selection": [-1, 0], "normalize": True}], ids=["all", "some"])
def test_layers_summed_as_they_come_are_the_same_sum_with_the_same_gradients(name: str, options: dict[str, Any]) -> None:
    upstream = UPSTREAMS[name]()
    if len(upstream.layer_names) == 1:
        options = {"normalize": True} if options else {}
    featurizer, wavs = Featurizer(upstream, **options), [wav[:6000] for wav in WAVS]
    torch.nn.init.uniform_(featurizer.weights)
    gradients = []
    for features in (featurizer(wavs, upstream(wavs)), featurizer.extract(upstream, wavs)):
        probe = sum((rows * torch.linspace(-1, 1, rows.numel()).view_as(rows)).sum() for rows in features)
        gradients.append(torch.autograd.grad(probe, featurizer.weights)[0])
        if len(gradients) == 1:
            wanted = features
    for ours, theirs in zip(features, wanted, strict=True):
        assert ours.shape == theirs.shape and torch.allclose(ours, theirs, rtol=1e-5, atol=1e-5)
    assert torch.allclose(*gradients, rtol=1e-4, atol=1e-3)


@torch.no_grad()
def test_only_one_layer_is_in_memory_and_no_block_above_the_highest_runs(model: torch.nn.Module) -> None:
    alive: list[weakref.ref[torch.Tensor]] = []
    counts: list[int] = []

    def note(module: torch.nn.Module, inputs: object, output: torch.Tensor) -> None:
        counts.append(sum(state() is not None for state in alive))
        alive.append(weakref.ref(output))

    featurizer = Featurizer(model, layer_selection=[0, 1, 2, 3])
    hooks = [block.register_forward_hook(note) for block in model.blocks]
    try:
        featurizer.extract(model, WAVS)
        summed, counts = counts, []
        alive.clear()
        model(WAVS, layers=[1, 3])
    finally:
        for hook in hooks:
            hook.remove()
    assert summed == [0, 1, 1]  # a block's input, and nothing before it
    assert counts == [0, 1, 2]  # layer 1 is kept, and layer 2 is the third block's input


@torch.no_grad()
def test_a_sum_as_it_comes_takes_the_options_of_a_call_and_padded_waveforms(model: torch.nn.Module) -> None:
    ofa = hub.load("ofa_wav2vec2_tiny_prompts")
    featurizer = Featurizer(ofa)
    batch = torch.nn.utils.rnn.pad_sequence(WAVS, batch_first=True)
    features = featurizer.extract(ofa, batch, [len(wav) for wav in WAVS], lambd=0.0)
    for ours, theirs in zip(features, featurizer(WAVS, ofa(WAVS, lambd=0.0)), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5)
    with pytest.raises(OptionError, match="lamda"):
        featurizer.extract(ofa, WAVS, lamda=0.0)
    with pytest.raises(OptionError, match="made for"):
        Featurizer(hub.load("fbank")).extract(model, WAVS)
    both = Featurizer([model, ofa])
    joined = both.extract([model, ofa], WAVS)
    for ours, theirs in zip(joined, both(WAVS, [model(WAVS), ofa(WAVS)]), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5)
    with pytest.raises(OptionError, match="Pass one of each"):
        both.extract(model, WAVS)


# Several upstreams ----------------------------------------------------------------------------------------------------


def test_several_upstreams_stand_side_by_side_with_their_frames_lined_up() -> None:
    models = [hub.load("wav2vec2_tiny_prompts"), hub.load("fbank"), hub.load("ofa_wav2vec2_tiny_prompts")]
    wavs = [torch.randn(16000), torch.randn(7000)]
    featurizer = Featurizer(models)
    with torch.no_grad():
        outs = [model(wavs) for model in models]
    both = featurizer(wavs, outs)
    assert featurizer.output_dim == 96 + 240 + 96 and featurizer.downsample_rate == 320
    assert [tuple(rows.shape) for rows in both] == [(49, 432), (21, 432)]
    for item, rows in enumerate(both):
        start = 0
        for model, out in zip(models, outs, strict=True):
            alone = Featurizer(model)(wavs, out)[item]
            centres, wanted = (o.frame_times()[item, : int(o.lengths[item])].mean(-1) for o in (out, outs[0]))
            nearest = (centres[None] - wanted[:, None]).abs()
            taken = rows[:, start : start + alone.shape[1]]
            at = (taken[:, None] - alone[None]).abs().amax(-1).argmin(1)
            assert torch.equal(taken, alone[at])
            assert torch.allclose(nearest.gather(1, at[:, None])[:, 0], nearest.amin(1), atol=1e-9)
            start += alone.shape[1]
    sum(rows.sum() for rows in both).backward()
    assert all(part.weights.grad is not None for part in featurizer.parts)
    together, lengths = featurizer.padded(outs)
    assert lengths.tolist() == [49, 21] and not together[1, 21:].any()


def test_several_upstreams_give_what_each_gives_alone_in_any_batch() -> None:
    models = [hub.load("fbank"), hub.load("wav2vec2_tiny_prompts")]
    wavs = [torch.randn(16000), torch.randn(7000)]
    featurizer = Featurizer(models)
    batch = featurizer(wavs, [model(wavs) for model in models])[1]
    torch.testing.assert_close(batch, featurizer(wavs[1:], [model(wavs[1:]) for model in models])[0], atol=1e-4, rtol=1e-4)


def test_outputs_that_do_not_belong_to_the_upstreams_are_refused() -> None:
    models = [hub.load("fbank"), hub.load("wav2vec2_tiny_prompts")]
    wavs = [torch.randn(16000)]
    fbank, wav2vec2 = (model(wavs) for model in models)
    featurizer = Featurizer(models)
    for outs, said in (
        (fbank, "1 output given for 2 upstreams"),
        ([fbank], "1 output given for 2 upstreams"),
        ([wav2vec2, fbank], "must belong to one upstream"),
        ([fbank, models[1](wavs * 2)], "1 waveform given, but the output is of 2 utterances"),
    ):
        with pytest.raises(OptionError, match=said):
            featurizer(wavs, outs)
    with pytest.raises(OptionError, match="no upstream"):
        Featurizer([])
