"""WavLM of every layout gives what the originals gave, alone and in a batch."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from hubcore.errors import CheckpointLayoutError, OptionError
from hubcore_wavlm import WavLMConfig, WavLMUpstream
from tests.paths import DATA
from tests.references import check_references, gold_states

FILES = {
    "gold/upstreams/wavlm_tiny.pt": "gold/upstreams/wavlm",
    "gold/upstreams/wavlm_tiny_large_style.pt": "gold/upstreams/wavlm_large_style",
    "gold2/hf_wavlm_base": "gold2/hf_wavlm_base",
    "gold2/hf_wavlm_large": "gold2/hf_wavlm_large",
}
"""A checkpoint -> the reference of its weights."""
PUBLISHED, FOLDER = DATA / "gold/upstreams/wavlm_tiny.pt", DATA / "gold2/hf_wavlm_large"


@pytest.mark.parametrize("file", FILES)
def test_alone_and_in_every_ragged_batch_the_originals_numbers(file: str) -> None:
    check_references("wavlm", WavLMUpstream, DATA / file, gold_states(FILES[file]))


def published() -> dict[str, Any]:
    tree: dict[str, Any] = torch.load(PUBLISHED, weights_only=True)
    return tree


def assert_same_weights(ours: WavLMUpstream, file: Path = PUBLISHED) -> None:
    wanted = WavLMUpstream.from_checkpoint(file).state_dict()
    assert ours.state_dict().keys() == wanted.keys()
    assert all(torch.equal(weight, wanted[name]) for name, weight in ours.state_dict().items())


def test_the_configs_of_both_layouts_are_read() -> None:
    config = WavLMUpstream.from_checkpoint(PUBLISHED).config
    assert (config.num_buckets, config.max_distance, config.pre_norm, config.normalize) == (32, 80, False, False)
    folder = WavLMUpstream.from_checkpoint(FOLDER)
    config = folder.config
    assert (config.num_buckets, config.max_distance, config.pre_norm, config.conv_bias) == (320, 800, True, True)
    assert folder.load_report.ignored == ("masked_spec_embed",)


def test_the_names_of_the_program_that_trained_them_are_read(tmp_path: Path) -> None:
    tree = published()
    new = {"grep_linear": "gate_ur_linear", "grep_a": "eco_a"}
    for published_name, trained in new.items():
        tree["model"] = {name.replace(published_name, trained): weight for name, weight in tree["model"].items()}
    tree["model"] |= {"label_embs_concat": torch.zeros(4, 8), "final_proj.weight": torch.zeros(8, 32)}
    torch.save(tree, tmp_path / "trained.pt")
    assert "eco_a" in "".join(tree["model"])
    assert_same_weights(WavLMUpstream.from_checkpoint(tmp_path / "trained.pt"))


def test_a_speaker_verification_model_without_a_config_is_read_with_one(tmp_path: Path) -> None:
    inside = {f"feature_extract.model.{name}": weight for name, weight in published()["model"].items()}
    torch.save(
        {"model": {**inside, "feature_weight": torch.zeros(4), "layer1.conv.weight": torch.zeros(3)}}, tmp_path / "sv.pth"
    )
    config = WavLMUpstream.from_checkpoint(PUBLISHED).config
    assert_same_weights(WavLMUpstream.from_checkpoint(tmp_path / "sv.pth", config=config))
    with pytest.raises(CheckpointLayoutError, match="without a config"):
        WavLMUpstream.from_checkpoint(tmp_path / "sv.pth")


def test_heads_of_transformers_stand_beside_the_encoder(tmp_path: Path) -> None:
    tensors: dict[str, Tensor] = {f"wavlm.{name}": weight for name, weight in load_file(FOLDER / "model.safetensors").items()}
    heads = ["projector.weight", "tdnn.0.kernel.weight", "feature_extractor.weight", "classifier.weight", "objective.weight"]
    heads += ["layer_weights", "lm_head.weight"]
    torch.save({**tensors, **dict.fromkeys(heads, torch.zeros(2))}, tmp_path / "pytorch_model.bin")
    for name in ("config.json", "preprocessor_config.json"):
        shutil.copy(FOLDER / name, tmp_path)
    model = WavLMUpstream.from_checkpoint(tmp_path)
    assert_same_weights(model, FOLDER)
    assert set(model.load_report.ignored) == {"wavlm.masked_spec_embed", *heads}


@pytest.mark.parametrize(("option", "value"), [("gru_rel_pos", False), ("activation_fn", "relu"), ("extractor_mode", "none")])
def test_an_option_that_changes_numbers_is_refused_by_name(option: str, value: object, tmp_path: Path) -> None:
    tree = published()
    tree["cfg"][option] = value
    torch.save(tree, tmp_path / "model.pt")
    with pytest.raises(CheckpointLayoutError, match=f"{option}={value!r}"):
        WavLMUpstream.from_checkpoint(tmp_path / "model.pt")


def test_heads_that_do_not_divide_the_width_are_refused(tmp_path: Path) -> None:
    tree = published()
    tree["cfg"]["encoder_attention_heads"] = 5
    torch.save(tree, tmp_path / "model.pt")
    with pytest.raises(CheckpointLayoutError, match=r"num_heads must be a divisor of dim=32, but is 5 instead\. It must"):
        WavLMUpstream.from_checkpoint(tmp_path / "model.pt")


def test_what_the_config_leaves_out_is_the_originals_default(tmp_path: Path) -> None:
    tree = published()
    del tree["cfg"]["max_distance"]
    torch.save(tree, tmp_path / "model.pt")
    assert WavLMUpstream.from_checkpoint(tmp_path / "model.pt").config.max_distance == 1280


@pytest.mark.parametrize("values", [{"num_buckets": 3}, {"num_buckets": 40, "max_distance": 10}])
def test_a_table_of_positions_that_cannot_be_is_refused(values: dict[str, int]) -> None:
    with pytest.raises(OptionError, match=[*values][-1]):
        WavLMConfig(**values)


def test_what_is_saved_is_read_back(tmp_path: Path) -> None:
    model = WavLMUpstream.from_checkpoint(FOLDER)
    model.save_checkpoint(tmp_path / "mine.safetensors")
    again = WavLMUpstream.from_checkpoint(tmp_path / "mine.safetensors")
    assert again.config == model.config
    assert_same_weights(again, FOLDER)
