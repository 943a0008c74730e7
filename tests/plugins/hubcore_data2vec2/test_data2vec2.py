"""data2vec 2.0, emotion2vec and emotion2vec+ give what the originals gave, alone and in a batch."""

from __future__ import annotations

import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from hubcore import hub
from hubcore.errors import CheckpointLayoutError, MissingWeightsError
from hubcore_data2vec import Data2VecUpstream
from hubcore_data2vec2 import CONFIGS, Data2Vec2Config, Data2Vec2Upstream, build_model
from hubcore_hubert import HubertUpstream
from tests.gold import gold_arrays, gold_wavs, relative_error
from tests.paths import DATA
from tests.references import check_references, gold_states

GOLD = DATA / "gold2"
FILES = {
    "data2vec2_base_style.pt": "data2vec2_base_style",
    "data2vec2_prenet_style.pt": "data2vec2_prenet_style",
    "data2vec2_layer_norm_first.pt": "data2vec2_layer_norm_first",
    "emotion2vec_base_style.pt": "emotion2vec_base_style",
    "emotion2vec_plus_style": "emotion2vec_plus_style",
    "emotion2vec_plus_style/model.pt": "emotion2vec_plus_style",
}
"""A checkpoint -> the reference of its weights."""


@pytest.mark.parametrize("file", FILES)
def test_alone_and_in_every_ragged_batch_the_originals_numbers(file: str) -> None:
    check_references("data2vec2", Data2Vec2Upstream, GOLD / file, gold_states(f"gold2/{FILES[file]}"))


@torch.no_grad()
def test_the_prenet_and_the_extra_tokens_inside_are_the_originals() -> None:
    seen: list[torch.Tensor] = []
    model = Data2Vec2Upstream.from_checkpoint(GOLD / "emotion2vec_base_style.pt")
    for block in (*model.model.encoder.prenet, *model.model.encoder.blocks):
        block.register_forward_hook(lambda _module, _args, out: seen.append(out))
    model(gold_wavs()[:1])
    arrays = gold_arrays("../gold2/emotion2vec_base_style.ref.npz")
    for k in (1, 2):
        assert relative_error(seen[k - 1][10:], arrays[f"alone/u0/prenet_{k}"]) <= 2e-5
    assert relative_error(seen[-1][:10], arrays["alone/u0/extra_tokens_last"]) <= 2e-5


@torch.no_grad()
def test_the_final_norm_gives_the_originals_output_and_is_in_no_hidden_state() -> None:
    model = Data2Vec2Upstream.from_checkpoint(GOLD / "data2vec2_layer_norm_first.pt")
    (last,) = model(gold_wavs()[:1], layers=[-1]).hidden_states
    wanted = gold_arrays("../gold2/data2vec2_layer_norm_first.ref.npz")["alone/u0/x"]
    assert relative_error(model.model.encoder.norm(last[0]), wanted) <= 2e-5


def tree(file: str = "emotion2vec_base_style.pt") -> dict[str, Any]:
    """A fairseq file as a dictionary of plain values and tensors."""
    loaded: dict[str, Any] = torch.load(GOLD / file, weights_only=True)
    return loaded


def save(whole: dict[str, Any], path: Path) -> Path:
    torch.save(whole, path)
    return path


SCALE = "modality_encoders.AUDIO.alibi_scale"


@pytest.mark.parametrize(
    ("options", "shape", "kind", "ours"),
    [
        ({}, (1, 6, 1, 1), "head", (1, 6)),  # as files had it at first
        ({"learned_alibi_scale_per_head": False}, (1, 1, 1, 1, 1), "one", (1, 1)),
        ({"learned_alibi_scale_per_layer": True}, (4, 1, 6, 1, 1), "layer_and_head", (4, 6)),
        ({"learned_alibi_scale_per_head": False, "learned_alibi_scale_per_layer": True}, (4, 1, 1, 1, 1), "layer", (4, 1)),
    ],
)
def test_every_form_of_the_scales(
    options: dict[str, bool], shape: tuple[int, ...], kind: str, ours: tuple[int, ...], tmp_path: Path
) -> None:
    whole = tree()
    whole["cfg"]["model"]["modalities"]["audio"] |= options
    whole["model"][SCALE] = torch.arange(math.prod(shape)).float().reshape(shape)
    model = hub.load("data2vec2", checkpoint=save(whole, tmp_path / "a.pt"))
    assert model.config.alibi_scale == kind
    assert torch.equal(model.model.encoder.alibi.scale, torch.arange(math.prod(shape)).float().reshape(ours))


def test_without_alibi(tmp_path: Path) -> None:
    whole = tree()
    whole["cfg"]["model"]["modalities"]["audio"]["use_alibi_encoder"] = False
    with pytest.raises(CheckpointLayoutError, match=r"no place in data2vec 2\.0: modality_encoders\.AUDIO\.alibi_scale"):
        hub.load("data2vec2", checkpoint=save(whole, tmp_path / "a.pt"))
    del whole["model"][SCALE]
    assert hub.load("data2vec2", checkpoint=save(whole, tmp_path / "a.pt")).model.encoder.alibi is None


@pytest.mark.parametrize(
    ("where", "option", "value"),
    [
        ("model", "norm_affine", False),
        ("audio", "learned_alibi", True),
        ("audio", "num_alibi_heads", 3),
        ("audio", "extractor_mode", "group"),
    ],
)
def test_an_option_that_changes_numbers_in_a_way_not_computed_here_is_refused(
    where: str, option: str, value: object, tmp_path: Path
) -> None:
    whole = tree()
    model = whole["cfg"]["model"]
    (model if where == "model" else model["modalities"]["audio"])[option] = value
    with pytest.raises(CheckpointLayoutError, match=option):
        hub.load("data2vec2", checkpoint=save(whole, tmp_path / "a.pt"))


@pytest.mark.parametrize("name", ["extra_tokens", "context_encoder.blocks.1.attn.qkv.weight", "project_features.2.bias"])
def test_a_missing_weight_is_an_error(name: str, tmp_path: Path) -> None:
    whole = tree()
    del whole["model"][f"modality_encoders.AUDIO.{name}"]
    with pytest.raises(MissingWeightsError):
        hub.load("data2vec2", checkpoint=save(whole, tmp_path / "a.pt"))


def test_encoders_of_images_and_text_and_a_whole_teacher_are_ignored(tmp_path: Path) -> None:
    whole = tree()
    more = {
        name: torch.ones(2) for name in ("modality_encoders.IMAGE.alibi_scale", "modality_encoders.TEXT.a", "recon_proj.bias")
    }
    whole["model"] |= more | {"_ema": dict(whole["model"])}
    model = hub.load("data2vec2", checkpoint=save(whole, tmp_path / "a.pt"))
    ignored = model.load_report.ignored
    assert {*more, "_ema.modality_encoders.AUDIO.local_encoder.conv_layers.0.0.weight"} < set(ignored)
    wanted = Data2Vec2Upstream.from_checkpoint(GOLD / "emotion2vec_base_style.pt").state_dict()
    assert all(torch.equal(weight, wanted[name]) for name, weight in model.state_dict().items())


@pytest.mark.parametrize("normalize", [True, False])
def test_a_file_without_a_config_takes_funasrs(normalize: bool, tmp_path: Path) -> None:
    folder = shutil.copytree(GOLD / "emotion2vec_plus_style", tmp_path / "folder")
    wanted = Data2Vec2Upstream.from_checkpoint(folder)
    assert {"proj.weight", "proj.bias"} < set(wanted.load_report.ignored)  # the classifier of emotions
    save({"model": torch.load(folder / "model.pt", weights_only=True)["model"]}, folder / "model.pt")
    about = yaml.safe_load((folder / "config.yaml").read_text())
    about["model_conf"]["normalize"] = normalize
    (folder / "config.yaml").write_text(yaml.safe_dump(about))
    for path in (folder, folder / "model.pt"):
        model = hub.load("data2vec2", checkpoint=path)
        assert model.load_report.layout == "FunASR" and model.config == replace(wanted.config, normalize=normalize)
        assert all(torch.equal(weight, model.state_dict()[name]) for name, weight in wanted.state_dict().items())
    with pytest.raises(CheckpointLayoutError, match=r"calls itself 'Emotion2vec'.*hub\.load\('data2vec2', checkpoint="):
        HubertUpstream.from_checkpoint(folder)


@pytest.mark.parametrize("other", [HubertUpstream, Data2VecUpstream])
def test_other_families_say_whose_file_it_is(other: Any) -> None:
    with pytest.raises(CheckpointLayoutError, match=r"calls itself 'data2vec_multi'.*hub\.load\('data2vec2', checkpoint="):
        other.from_checkpoint(GOLD / "data2vec2_base_style.pt")


@pytest.mark.parametrize("file", ["data2vec2_layer_norm_first.pt", "emotion2vec_plus_style"])
def test_what_is_saved_is_read_back(file: str, tmp_path: Path) -> None:
    model = Data2Vec2Upstream.from_checkpoint(GOLD / file)
    model.save_checkpoint(tmp_path / "mine.safetensors")
    again = Data2Vec2Upstream.from_checkpoint(tmp_path / "mine.safetensors")
    assert again.config == model.config
    assert all(torch.equal(weight, again.state_dict()[name]) for name, weight in model.state_dict().items())


PARAMETERS = {"base": 93.2, "large": 313.3, "emotion2vec": 93.2, "emotion2vec_plus_large": 162.1}
"""Millions of parameters of the encoder."""


@pytest.mark.parametrize("name", PARAMETERS)
def test_the_sizes_of_the_published_shapes(name: str) -> None:
    with torch.device("meta"):
        model = build_model(CONFIGS[name])
    assert sum(parameter.numel() for parameter in model.parameters()) / 1e6 == pytest.approx(PARAMETERS[name], abs=0.05)


def test_a_config_of_the_first_data2vec_is_one_of_the_second() -> None:
    assert Data2Vec2Config(**vars(Data2VecUpstream.configs["base"])) == CONFIGS["base"]
