"""Checkpoints as training programs leave them: dictionaries in dictionaries, wrappers in names, copies beside the model."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from torch import Tensor

from hubcore import hub
from hubcore.cli import main
from hubcore.errors import CheckpointError, CheckpointLayoutError, OptionError
from hubcore.tools.file_info import describe_file
from hubcore_wav2vec2 import CONFIGS, Wav2Vec2Upstream
from hubcore_wav2vec2.checkpoint import NAMES
from tests.gold import gold_file
from tests.paths import DATA

pytestmark = pytest.mark.slow

TINY = "wav2vec2_tiny_prompts"


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    """The bundled model's weights by transformers' names."""
    return NAMES.write("transformers", Wav2Vec2Upstream.from_checkpoint(TINY).model.state_dict())


def named(state: dict[str, Tensor], prefix: str = "", part: str = "", place: str = "encoder.") -> dict[str, Tensor]:
    """The weights below a prefix, with a wrapper's part put into the names after `place`."""
    return {prefix + name.replace(place, place + part, 1): tensor for name, tensor in state.items()}


TREES: dict[str, Any] = {
    "a Lightning checkpoint": lambda w: {
        "epoch": 3,
        "state_dict": named(w, "model.upstream."),
        "optimizer_states": [{"state": {}}],
    },
    "one level more": lambda w: {"checkpoint": {"state_dict": {"model": named(w)}}, "global_step": 1},
    "torch.compile in the middle": lambda w: named(w, part="_orig_mod."),
    "torch.compile in front": lambda w: {"state_dict": named(w, "_orig_mod.model.")},
    "data parallelism": lambda w: {"model_state_dict": named(w, "module.")},
    "FSDP and activation checkpointing": lambda w: named(w, "_fsdp_wrapped_module.", "_checkpoint_wrapped_module."),
    "an optimizer beside it": lambda w: {"net": named(w), "optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}}},
}


@pytest.mark.parametrize("tree", TREES.values(), ids=TREES)
def test_the_one_encoder_in_a_training_programs_file_is_read(tree: Any, weights: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save(tree(weights), tmp_path / "last.ckpt")
    model = hub.load("wav2vec2", checkpoint=tmp_path / "last.ckpt", config="tiny")
    wanted = Wav2Vec2Upstream.from_checkpoint(TINY).state_dict()
    assert all(torch.equal(weight, wanted[name]) for name, weight in model.state_dict().items())


def test_an_average_beside_the_model_must_be_taken_out_first(weights: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save({"model": named(weights), "ema": named(weights)}, tmp_path / "last.ckpt")
    with pytest.raises(CheckpointLayoutError, match=r"2 encoders, under 'model\.', 'ema\.'\. Save the one you mean"):
        Wav2Vec2Upstream.from_checkpoint(tmp_path / "last.ckpt", config="tiny")


def test_a_wrapper_hides_no_tensor_without_a_place(weights: dict[str, Tensor], tmp_path: Path) -> None:
    state = {**named(weights, part="_orig_mod."), "encoder._orig_mod.layers.0.adapter.weight": torch.zeros(2)}
    torch.save(state, tmp_path / "last.ckpt")
    with pytest.raises(CheckpointLayoutError, match=r"encoder\._orig_mod\.layers\.0\.adapter\.weight"):
        Wav2Vec2Upstream.from_checkpoint(tmp_path / "last.ckpt", config="tiny")


# What a file is -------------------------------------------------------------------------------------------------------


def test_info_of_a_file_says_layout_family_config_and_what_is_ignored() -> None:
    info = describe_file(gold_file("fairseq_tiny_w2v2_groupnorm.pt"))
    assert (info.layout, info.kind, info.family) == ("fairseq, cfg", "wav2vec2", "wav2vec2")
    assert "quantizer.vars" in info.ignored and info.config["dim"] == 48 and info.reasons == ()
    model = Wav2Vec2Upstream.from_checkpoint(gold_file("fairseq_tiny_w2v2_groupnorm.pt"))
    assert info.parameters == sum(weight.numel() for weight in model.parameters())
    assert describe_file(DATA / "gold2/espnet_hubert_base_style").family == "hubert"
    assert describe_file(gold_file("ofa_tiny.pt")).family == "ofa_wav2vec2"


def test_info_of_what_no_family_reads_gives_the_reason_once() -> None:
    info = describe_file(DATA / "gold/upstreams/vq_wav2vec_kmeans_tiny.fairseq.pt")
    assert info.family is None and info.layout == "fairseq, args"
    (reason,) = info.reasons
    assert re.fullmatch("cpc, data2vec.*, wav2vec2, .*: it is none of theirs, as it .*'wav2vec'.*", reason)


def test_the_command_takes_files_folders_and_names_and_writes_nothing(tmp_path: Path) -> None:
    mine = tmp_path / "mine.safetensors"
    Wav2Vec2Upstream.from_checkpoint(TINY).save_checkpoint(mine)
    before = sorted(tmp_path.rglob("*"))
    shown = CliRunner().invoke(main, ["info", str(mine)])
    assert shown.exit_code == 0 and "family        wav2vec2" in shown.output and "parameters    557,216" in shown.output
    data = json.loads(CliRunner().invoke(main, ["info", str(DATA / "gold2/hf_hubert_large"), "--json"]).output)
    assert data["layout"] == "Hugging Face" and data["ignored"] == ["masked_spec_embed"]
    assert sorted(tmp_path.rglob("*")) == before
    missing = CliRunner().invoke(main, ["info", str(tmp_path / "nothing.pt")])
    assert missing.exit_code == 2 and "does not exist" in missing.output


# Spelling -------------------------------------------------------------------------------------------------------------


def test_a_repository_of_the_hub_is_spelt_hf() -> None:
    with pytest.raises(OptionError, match=r"checkpoint='hf://someone/wav2vec2-mine'"):
        hub.load("someone/wav2vec2-mine")
    with pytest.raises(CheckpointError, match=r"is written hf://facebook/wav2vec2-base"):
        hub.load("wav2vec2", checkpoint="facebook/wav2vec2-base")


def test_a_folder_that_is_called_like_a_name_is_told_from_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / TINY).mkdir()
    assert hub.load(TINY).num_layers == 4  # a name is meant
    with pytest.raises(CheckpointLayoutError, match=rf"hub\.load\('{TINY}'\)"):
        Wav2Vec2Upstream.from_checkpoint(TINY)
    shutil.rmtree(tmp_path / TINY)
    assert Wav2Vec2Upstream.from_checkpoint(TINY).config == CONFIGS["tiny"]


def test_a_run_is_converted_and_shown(tmp_path: Path) -> None:
    """A run's card has a name of its own, which nobody registered."""
    run = tmp_path / "runs" / "mine"
    checkpoint = run / "checkpoints" / "update_00000010"
    checkpoint.mkdir(parents=True)
    Wav2Vec2Upstream.from_checkpoint(TINY).save_checkpoint(checkpoint / "model.safetensors")
    size = (checkpoint / "model.safetensors").stat().st_size
    (checkpoint / "state.json").write_text(json.dumps({"files": {"model.safetensors": {"size": size, "sha256": ""}}}))
    card = {"version": 1, "upstreams": {"mine": {"upstream": "wav2vec2", "config": "tiny", "license": "unknown"}}}
    (run / "card.yaml").write_text(json.dumps(card))
    made = CliRunner().invoke(main, ["convert", str(run), str(tmp_path / "out.safetensors")])
    assert made.exit_code == 0, made.output
    shown = CliRunner().invoke(main, ["info", str(run)])
    assert shown.exit_code == 0 and "family        wav2vec2" in shown.output
