"""The hidden states of every fairseq and s3prl layout are those that fairseq and s3prl computed."""

from __future__ import annotations

import pytest
import torch

from hubcore import hub
from hubcore_wav2vec2 import Wav2Vec2Upstream
from tests.gold import WAV2VEC2_FILES, gold_arrays, gold_file, gold_wavs, relative_error

TOLERANCE = 2e-5  # fp32 against fp64 was measured as 8.5e-6 on values of 1 to 10


@pytest.fixture(params=WAV2VEC2_FILES, ids=lambda name: name.removesuffix(".pt"))
def file(request: pytest.FixtureRequest) -> str:
    return request.param


@torch.no_grad()
def test_alone_equals_the_original(file: str) -> None:
    model = hub.load("wav2vec2", checkpoint=gold_file(file))
    reference = gold_arrays(WAV2VEC2_FILES[file])
    for index, wav in enumerate(gold_wavs()):
        out = model([wav])
        assert len(out.hidden_states) == 4
        for k, state in enumerate(out.hidden_states):
            wanted = reference[f"alone/u{index}/hidden_{k}"]
            assert state.shape == (1, *wanted.shape)
            assert (state[0] - wanted).abs().max() <= TOLERANCE, f"u{index}, hidden state {k}"


@torch.no_grad()
def test_a_ragged_batch_gives_the_same_numbers(file: str) -> None:
    model = Wav2Vec2Upstream.from_checkpoint(gold_file(file))
    reference = gold_arrays(WAV2VEC2_FILES[file])
    order = (2, 0, 1)
    out = model([gold_wavs()[i] for i in order])
    assert out.lengths.tolist() == [159, 34, 94]
    for row, index in enumerate(order):
        for k, state in enumerate(out.hidden_states):
            wanted = reference[f"alone/u{index}/hidden_{k}"]
            assert relative_error(state[row, : len(wanted)], wanted) <= TOLERANCE, f"u{index}, hidden state {k}"
            assert (state[row, len(wanted) :] == 0).all()


@torch.no_grad()
@pytest.mark.parametrize("name", ["groupnorm", "layernorm"])
def test_every_stage_of_the_extractor_equals_the_original(name: str) -> None:
    model = Wav2Vec2Upstream.from_checkpoint(gold_file(f"fairseq_tiny_w2v2_{name}.pt")).model
    reference = gold_arrays(f"fairseq_tiny_w2v2_{name}.ref.npz")
    for index, wav in enumerate(gold_wavs()):
        features, counts = model.extract([wav])
        assert counts == [len(reference[f"alone/u{index}/conv"])]
        assert (features - reference[f"alone/u{index}/conv_ln"]).abs().max() <= TOLERANCE
        assert (model.projection(features) - reference[f"alone/u{index}/proj"]).abs().max() <= TOLERANCE


@torch.no_grad()
def test_stopping_early_equals_fairseqs_layer_option() -> None:
    # fairseq's extract_features(layer=1) is the output of the second block, without any final norm.
    for name in ("groupnorm", "layernorm"):
        model = Wav2Vec2Upstream.from_checkpoint(gold_file(f"fairseq_tiny_w2v2_{name}.pt"))
        reference = gold_arrays(f"fairseq_tiny_w2v2_{name}.ref.npz")
        for index, wav in enumerate(gold_wavs()):
            (state,) = model([wav], layers=[2]).hidden_states
            assert (state[0] - reference[f"fairseq_layer1/u{index}/x"]).abs().max() <= TOLERANCE
