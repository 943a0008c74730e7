"""w2v-BERT 2.0 gives what transformers gives, alone and in a batch, from its filter banks on."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from hubcore import hub
from hubcore.errors import AudioError, CheckpointLayoutError, OptionError
from hubcore.nn import Filterbank
from hubcore_w2v_bert import CONFIGS, READER, W2vBertUpstream
from tests.gold import gold_arrays, gold_wavs, relative_error
from tests.paths import DATA
from tests.references import check_references, gold_states

FOLDER = DATA / "gold2/w2v_bert_relative_key"
ARRAYS = "../gold2/w2v_bert_relative_key.ref.npz"


@pytest.mark.parametrize("positions", ["relative", "relative_key", "rotary"])
def test_alone_and_in_every_ragged_batch_the_originals_numbers(positions: str) -> None:
    file = f"gold2/w2v_bert_{positions}"
    check_references("w2v_bert", W2vBertUpstream, DATA / file, gold_states(file))


@torch.no_grad()
def test_filter_banks_are_those_of_transformers_before_and_after_normalisation() -> None:
    model, arrays = W2vBertUpstream.from_checkpoint(FOLDER), gold_arrays(ARRAYS)
    raw = Filterbank(replace(model.config.filterbank, cmvn=False)).features([wav.double() for wav in gold_wavs()[:2]])
    stacked = model.model.features(gold_wavs()[:2])
    for i in range(2):
        assert relative_error(raw[i], arrays[f"alone/u{i}/fbank_raw"]) <= 1e-6
        assert relative_error(stacked[i], arrays[f"alone/u{i}/input_features"]) <= 1e-5


@torch.no_grad()
def test_an_odd_filter_bank_frame_counts_for_normalisation_and_makes_no_frame() -> None:
    model, arrays = W2vBertUpstream.from_checkpoint(FOLDER), gold_arrays(ARRAYS)
    for i, wav in enumerate(gold_wavs()[:2]):
        out = model([wav[:-160]])
        valid = int(arrays[f"alone/u{i}/odd_attention_mask"].sum())
        assert out.lengths.tolist() == [valid] and len(arrays[f"alone/u{i}/odd_h0"]) == valid + 1
        for k, state in enumerate(out.hidden_states):
            assert relative_error(state[0], arrays[f"alone/u{i}/odd_h{k}"][:valid]) <= 2e-5


def test_the_shortest_utterance_has_two_filter_bank_frames() -> None:
    model = W2vBertUpstream.from_checkpoint(FOLDER)
    out = model([torch.randn(560), torch.zeros(879), torch.randn(880)])
    assert out.lengths.tolist() == [1, 1, 2] and all(bool(state.isfinite().all()) for state in out.hidden_states)
    assert (1000 * out.frame_times()[2]).round().tolist() == [[0, 35], [20, 55]]
    with pytest.raises(AudioError, match=r"item 1 has 559 samples .* One frame needs 560 samples") as caught:
        model([torch.randn(560), torch.randn(559)])
    assert "35.0 ms" in str(caught.value)


def test_gradients_reach_the_waveform_through_the_filter_banks() -> None:
    wav = torch.randn(4000, requires_grad=True)
    W2vBertUpstream.from_checkpoint(FOLDER)([wav]).last_hidden_state.square().sum().backward()
    assert wav.grad is not None and bool(wav.grad.isfinite().all()) and float(wav.grad.abs().max()) > 0


def changed(
    folder: Path, weights: dict[str, Tensor] | None = None, extractor: dict[str, Any] | None = None, **options: Any
) -> Path:
    """A copy of transformers' folder with other weights, or with other options in one of its configs."""
    shutil.copytree(FOLDER, folder)
    for name, changes in (("config.json", options), ("preprocessor_config.json", extractor or {})):
        (folder / name).write_text(json.dumps({**json.loads((FOLDER / name).read_text()), **changes}))
    if weights is not None:
        save_file(weights, folder / "model.safetensors")
    return folder


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("add_adapter", True),
        ("use_intermediate_ffn_before_adapter", True),
        ("hidden_act", "gelu_new"),
        ("layer_norm_eps", 1e-6),
        ("position_embeddings_type", "alibi"),
    ],
)
def test_an_option_that_changes_numbers_is_refused_by_name(option: str, value: Any, tmp_path: Path) -> None:
    with pytest.raises(CheckpointLayoutError, match=option):
        W2vBertUpstream.from_checkpoint(changed(tmp_path / "folder", **{option: value}))


@pytest.mark.parametrize(("option", "value"), [("feature_extractor_type", "Wav2Vec2FeatureExtractor"), ("sampling_rate", 8000)])
def test_another_front_end_is_refused_by_name(option: str, value: Any, tmp_path: Path) -> None:
    with pytest.raises(CheckpointLayoutError, match=option):
        W2vBertUpstream.from_checkpoint(changed(tmp_path / "folder", extractor={option: value}))


def test_a_head_model_and_a_folder_without_feature_extractor_are_read(tmp_path: Path) -> None:
    weights = {f"wav2vec2_bert.{name}": tensor for name, tensor in load_file(FOLDER / "model.safetensors").items()}
    folder = changed(tmp_path / "ctc", {**weights, "lm_head.weight": torch.zeros(5, 32), "lm_head.bias": torch.zeros(5)})
    (folder / "preprocessor_config.json").unlink()
    wanted, found = W2vBertUpstream.from_checkpoint(FOLDER), W2vBertUpstream.from_checkpoint(folder)
    assert found.config == wanted.config
    assert any("preprocessor_config.json" in note for note in found.load_report.notes)
    assert all(torch.equal(tensor, wanted.state_dict()[key]) for key, tensor in found.state_dict().items())


def test_a_tensor_without_a_place_is_an_error(tmp_path: Path) -> None:
    weights = {**load_file(FOLDER / "model.safetensors"), "adapter.layers.0.residual_conv.weight": torch.zeros(3)}
    with pytest.raises(CheckpointLayoutError, match=r"no place in w2v-BERT 2\.0: adapter\.layers\.0\.residual_conv\.weight"):
        W2vBertUpstream.from_checkpoint(changed(tmp_path / "folder", weights))


@pytest.mark.parametrize("family", ["hubert", "wav2vec2", "wav2vec2_conformer"])
def test_another_family_says_whose_file_it_is(family: str) -> None:
    with pytest.raises(CheckpointLayoutError, match=r"hub\.load\('w2v_bert', checkpoint="):
        hub.load(family, checkpoint=FOLDER)


@pytest.mark.parametrize("file", ["gold2/hf_wav2vec2_conformer_rotary", "gold2/hf_hubert_base"])
def test_another_familys_folder_is_refused(file: str) -> None:
    with pytest.raises(CheckpointLayoutError, match=r"is no w2v-BERT 2\.0 checkpoint"):
        hub.load("w2v_bert", checkpoint=DATA / file)


def test_what_is_saved_is_read_back(tmp_path: Path) -> None:
    model = W2vBertUpstream.from_checkpoint(FOLDER, conv_dropout=0.2)
    model.save_checkpoint(tmp_path / "mine.safetensors")
    again = hub.load("w2v_bert", checkpoint=tmp_path / "mine.safetensors")
    assert again.config == model.config and again.config.conv_dropout == 0.2
    assert all(torch.equal(weight, again.state_dict()[name]) for name, weight in model.state_dict().items())


def test_it_has_no_convolutional_extractor_to_freeze() -> None:
    with pytest.raises(OptionError, match="no convolutional extractor"):
        W2vBertUpstream.from_checkpoint(FOLDER).freeze_extractor()


def test_the_published_shape_has_its_number_of_parameters() -> None:
    with torch.device("meta"):
        model = READER.build(CONFIGS["w2v_bert_2"])
    assert sum(weight.numel() for weight in model.parameters()) // 100_000 == 5804
