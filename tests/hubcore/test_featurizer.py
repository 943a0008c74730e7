"""Featurizer: selection, weights, lengths, errors. What it does over every upstream is in the conformance kit."""

from __future__ import annotations

import types

import pytest
import torch
from torch.nn import functional

from hubcore import Featurizer, hub
from hubcore.errors import OptionError
from tests.gold import gold_wavs

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
