"""data2vec audio of every layout gives what the originals gave, alone and in a batch."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from hubcore import hub
from hubcore.checkpoints import open_checkpoint
from hubcore.errors import CheckpointLayoutError
from hubcore_data2vec import Data2VecUpstream
from hubcore_hubert import HubertUpstream
from hubcore_wav2vec2 import Wav2Vec2Upstream
from tests.gold import gold_wavs, relative_error
from tests.paths import DATA
from tests.references import check_references, gold_states

FAIRSEQ = DATA / "gold/upstreams/data2vec_tiny.fairseq.pt"
FOLDER = DATA / "gold2/hf_data2vec_audio"
FILES = {FAIRSEQ: "gold/upstreams/data2vec", FOLDER: "gold2/hf_data2vec_audio"}
"""A checkpoint -> the reference of its weights."""


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_alone_and_in_every_ragged_batch_the_originals_numbers(file: Path) -> None:
    check_references("data2vec", Data2VecUpstream, file, gold_states(FILES[file]))


def tree() -> dict[str, Any]:
    """The fairseq file as a dictionary of plain values and tensors."""
    loaded: dict[str, Any] = torch.load(FAIRSEQ, weights_only=True)
    return loaded


def assert_the_same(path: Path) -> None:
    """A file holds the model of the fairseq file."""
    model, wanted = hub.load("data2vec", checkpoint=path), Data2VecUpstream.from_checkpoint(FAIRSEQ)
    assert model.config == wanted.config
    state: dict[str, Tensor] = model.state_dict()
    assert all(torch.equal(weight, state[name]) for name, weight in wanted.state_dict().items())


def test_s3prls_copy_and_a_fine_tuned_file_hold_the_same_model(tmp_path: Path) -> None:
    whole = tree()
    cfg, weights = whole["cfg"], {name: value for name, value in whole["model"].items() if name != "_ema"}
    copy = {"model_cfg": cfg["model"], "task_cfg": cfg["task"], "model_weight": weights}
    torch.save(copy, tmp_path / "s3prl.pt")
    assert_the_same(tmp_path / "s3prl.pt")
    for args, prefix, head in (("w2v_args", "w2v_encoder.w2v_model.", "w2v_encoder.proj"), ("d2v_args", "d2v_model.", "proj")):
        model = {f"{prefix}{name}": value for name, value in weights.items() if "final_proj" not in name}
        tuned = {"_name": "fine_tuned", args: {"model": cfg["model"], "task": cfg["task"]}}
        torch.save({"cfg": {"model": tuned, "task": {}}, "model": {**model, f"{head}.bias": torch.ones(4)}}, tmp_path / "a.pt")
        assert_the_same(tmp_path / "a.pt")


def test_the_teacher_of_pre_training_is_ignored_even_if_it_is_a_whole_encoder(tmp_path: Path) -> None:
    whole = tree()
    whole["model"]["_ema"] = {name: value.clone() for name, value in whole["model"].items() if name != "_ema"}
    torch.save(whole, tmp_path / "whole_teacher.pt")
    assert_the_same(tmp_path / "whole_teacher.pt")
    ignored = hub.load("data2vec", checkpoint=tmp_path / "whole_teacher.pt").load_report.ignored
    assert "_ema.feature_extractor.conv_layers.0.0.weight" in ignored and "mask_emb" in ignored


@pytest.mark.parametrize(
    ("options", "kernel"), [({"conv_pos": 95}, 19), ({"conv_pos": 8}, 3), ({"conv_pos": 9, "pos_conv_depth": 2}, 4)]
)
def test_the_kernel_of_fairseqs_positions(options: dict[str, int], kernel: int, tmp_path: Path) -> None:
    from hubcore_data2vec.checkpoint import parse

    with open_checkpoint(FAIRSEQ) as checkpoint:
        checkpoint.config |= options
        values = parse(checkpoint, [])
    assert (values["pos_conv_kernel"], values["pos_conv_depth"]) == (kernel, options.get("pos_conv_depth", 5))


def test_transformers_has_one_shape_whatever_a_config_says(tmp_path: Path) -> None:
    folder = shutil.copytree(FOLDER, tmp_path / "folder")
    config = json.loads((folder / "config.json").read_text())
    config |= {"feat_extract_norm": "group", "do_stable_layer_norm": True}
    (folder / "config.json").write_text(json.dumps(config))
    assert hub.load("data2vec", checkpoint=folder).config == hub.load("data2vec", checkpoint=FOLDER).config


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
@pytest.mark.parametrize("other", [HubertUpstream, Wav2Vec2Upstream])
def test_other_families_say_whose_file_it_is(other: Any, file: Path) -> None:
    with pytest.raises(CheckpointLayoutError, match=r"calls itself 'data2vec.audio'.*hub\.load\('data2vec', checkpoint="):
        other.from_checkpoint(file)


def test_what_is_saved_is_read_back(tmp_path: Path) -> None:
    Data2VecUpstream.from_checkpoint(FAIRSEQ).save_checkpoint(tmp_path / "mine.safetensors")
    assert_the_same(tmp_path / "mine.safetensors")


@pytest.mark.slow
@torch.no_grad()
def test_a_folder_that_transformers_writes_gives_its_hidden_states(tmp_path: Path) -> None:
    from transformers import Data2VecAudioConfig, Data2VecAudioModel

    torch.manual_seed(0)
    config = Data2VecAudioConfig(
        hidden_size=128, num_hidden_layers=4, num_attention_heads=8, intermediate_size=256, conv_dim=(64,) * 7, conv_bias=True
    )
    theirs = Data2VecAudioModel(config).eval()
    for parameter in theirs.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.05)
    theirs.save_pretrained(tmp_path)
    ours = hub.load("data2vec", checkpoint=tmp_path)  # without a preprocessor_config.json: normalised, as fairseq
    for wav in gold_wavs():
        normal = torch.nn.functional.layer_norm(wav, wav.shape)
        wanted = theirs(normal[None], output_hidden_states=True).hidden_states
        for mine, state in zip(ours([wav]).hidden_states, wanted, strict=True):
            assert relative_error(mine, state) <= 2e-5
