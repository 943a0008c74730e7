"""wav2vec 2.0 conformers of every layout give what the originals gave, alone and in a batch."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from hubcore import hub
from hubcore.errors import CheckpointLayoutError
from hubcore_wav2vec2_conformer import CONFIGS, READER, Wav2Vec2ConformerUpstream
from tests.paths import DATA
from tests.references import check_references, gold_states

FILES = {
    "gold/upstreams/wav2vec2_conformer_rel_pos_tiny.s3prl.pt": "gold/upstreams/wav2vec2_conformer_relpos",
    "gold/upstreams/wav2vec2_conformer_rope_tiny.s3prl.pt": "gold/upstreams/wav2vec2_conformer_rope",
    "gold2/hf_wav2vec2_conformer_relative": "gold2/hf_wav2vec2_conformer_relative",
    "gold2/hf_wav2vec2_conformer_rotary": "gold2/hf_wav2vec2_conformer_rotary",
}
"""A checkpoint -> the reference of its weights."""
S3PRL = DATA / "gold/upstreams/wav2vec2_conformer_rope_tiny.s3prl.pt"
HUGGING_FACE = DATA / "gold2/hf_wav2vec2_conformer_rotary"


@pytest.mark.parametrize("file", FILES)
def test_alone_and_in_every_ragged_batch_the_originals_numbers(file: str) -> None:
    check_references("wav2vec2_conformer", Wav2Vec2ConformerUpstream, DATA / file, gold_states(FILES[file]))


def test_only_heads_and_what_the_originals_never_use_is_ignored() -> None:
    report = Wav2Vec2ConformerUpstream.from_checkpoint(S3PRL).load_report
    unused = {name for name in report.ignored if name.startswith("encoder.")}
    pos_conv = {f"encoder.pos_conv.0.{part}" for part in ("bias", "weight_g", "weight_v")}
    assert unused == {*pos_conv, "encoder.layers.1.self_attn.rotary_emb.inv_freq"}  # the copy of the second block
    assert "encoder.layers.0.self_attn.rotary_emb.inv_freq" in report.used
    report = Wav2Vec2ConformerUpstream.from_checkpoint(HUGGING_FACE).load_report
    assert all(name == "masked_spec_embed" or "pos_conv_embed" in name for name in report.ignored)
    assert "encoder.embed_positions.inv_freq" in report.used


def changed(folder: Path, weights: dict[str, Tensor], **options: Any) -> Path:
    """A copy of transformers' folder with other weights, and other options in its config."""
    shutil.copytree(HUGGING_FACE, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **options}))
    save_file(weights, folder / "model.safetensors")
    return folder


def test_fairseqs_own_layout_and_fine_tuned_files_are_read(tmp_path: Path) -> None:
    converted = torch.load(S3PRL, weights_only=True)
    model = {"_name": "wav2vec2", **converted["model_cfg"]}
    plain = {"cfg": {"model": model, "task": converted["task_cfg"]}, "model": converted["model_weight"]}
    torch.save(plain, tmp_path / "plain.pt")
    weights = {f"w2v_encoder.w2v_model.{name}": tensor for name, tensor in converted["model_weight"].items()}
    inside = {"model": model, "task": converted["task_cfg"]}
    tuned = {"cfg": {"model": {"_name": "wav2vec_ctc", "w2v_args": inside}}, "model": weights}
    torch.save({**tuned, "model": {**weights, "w2v_encoder.proj.weight": torch.zeros(5, 32)}}, tmp_path / "tuned.pt")
    wanted = hub.load("wav2vec2_conformer", checkpoint=S3PRL)
    for name in ("plain.pt", "tuned.pt"):
        found = hub.load("wav2vec2_conformer", checkpoint=tmp_path / name)
        assert found.config == wanted.config
        assert all(torch.equal(tensor, wanted.state_dict()[key]) for key, tensor in found.state_dict().items())


def test_a_head_model_of_transformers_is_read(tmp_path: Path) -> None:
    weights = {f"wav2vec2_conformer.{name}": tensor for name, tensor in load_file(HUGGING_FACE / "model.safetensors").items()}
    folder = changed(tmp_path / "ctc", {**weights, "lm_head.weight": torch.zeros(5, 32), "lm_head.bias": torch.zeros(5)})
    wanted = Wav2Vec2ConformerUpstream.from_checkpoint(HUGGING_FACE)
    found = Wav2Vec2ConformerUpstream.from_checkpoint(folder, conv_dropout=0.5)
    assert found.config.conv_dropout == 0.5 and wanted.config.conv_dropout == 0.1
    assert all(torch.equal(tensor, wanted.state_dict()[key]) for key, tensor in found.state_dict().items())


@pytest.mark.parametrize(
    ("option", "value"),
    [("position_embeddings_type", "relative_key"), ("hidden_act", "gelu_new"), ("add_adapter", True), ("layer_norm_eps", 1e-3)],
)
def test_an_option_that_changes_numbers_is_refused_by_name(option: str, value: Any, tmp_path: Path) -> None:
    folder = changed(tmp_path / "changed", load_file(HUGGING_FACE / "model.safetensors"), **{option: value})
    with pytest.raises(CheckpointLayoutError, match=option):
        Wav2Vec2ConformerUpstream.from_checkpoint(folder)


@pytest.mark.parametrize(("option", "value"), [("attn_type", ""), ("pos_enc_type", "abs")])
def test_fairseqs_other_attention_and_positions_are_refused_by_name(option: str, value: str, tmp_path: Path) -> None:
    converted = torch.load(S3PRL, weights_only=True)
    converted["model_cfg"][option] = value
    torch.save(converted, tmp_path / "changed.pt")
    with pytest.raises(CheckpointLayoutError, match=f"{option}={value!r}"):
        Wav2Vec2ConformerUpstream.from_checkpoint(tmp_path / "changed.pt")


def test_blocks_that_differ_in_the_rates_of_their_rotary_positions_are_refused(tmp_path: Path) -> None:
    converted = torch.load(S3PRL, weights_only=True)
    converted["model_weight"]["encoder.layers.1.self_attn.rotary_emb.inv_freq"][1] *= 1.5
    torch.save(converted, tmp_path / "changed.pt")
    with pytest.raises(CheckpointLayoutError, match=r"layers\.1\.self_attn.*inv_freq differs from encoder\.layers\.0"):
        Wav2Vec2ConformerUpstream.from_checkpoint(tmp_path / "changed.pt")


def test_blocks_without_positions_are_read_and_a_config_that_lies_is_not(tmp_path: Path) -> None:
    weights = load_file(HUGGING_FACE / "model.safetensors")
    with pytest.raises(CheckpointLayoutError, match="inv_freq"):
        Wav2Vec2ConformerUpstream.from_checkpoint(changed(tmp_path / "lie", weights, position_embeddings_type="relative"))
    del weights["encoder.embed_positions.inv_freq"]
    folder = changed(tmp_path / "none", weights, position_embeddings_type=None)
    assert Wav2Vec2ConformerUpstream.from_checkpoint(folder).config.positions == "none"


def test_utterances_longer_than_max_source_positions_are_computed() -> None:
    model = hub.load("wav2vec2_conformer", checkpoint=DATA / "gold2/hf_wav2vec2_conformer_relative", layers=[1])
    torch.manual_seed(0)
    out = model([torch.randn(320 * 450)])  # the table of transformers has 200 positions here, and is then made anew
    assert out.lengths.tolist() == [449] and bool(out.last_hidden_state.isfinite().all())


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("family", ["hubert", "wav2vec2"])
def test_another_family_says_whose_file_it_is(family: str, file: str) -> None:
    with pytest.raises(CheckpointLayoutError, match=r"hub\.load\('wav2vec2_conformer', checkpoint="):
        hub.load(family, checkpoint=DATA / file)


def test_a_transformer_is_not_taken_for_a_conformer() -> None:
    for file in ("gold2/hf_hubert_base", "gold/fairseq_tiny_w2v2_layernorm.pt", "gold2/w2v_bert_rotary"):
        with pytest.raises(CheckpointLayoutError, match=r"is no wav2vec 2\.0 conformer checkpoint"):
            hub.load("wav2vec2_conformer", checkpoint=DATA / file)


def test_what_is_saved_is_read_back(tmp_path: Path) -> None:
    model = Wav2Vec2ConformerUpstream.from_checkpoint(S3PRL)
    model.save_checkpoint(tmp_path / "mine.safetensors")
    again = hub.load("wav2vec2_conformer", checkpoint=tmp_path / "mine.safetensors")
    assert again.config == model.config
    assert all(torch.equal(weight, again.state_dict()[name]) for name, weight in model.state_dict().items())


@pytest.mark.slow
def test_the_published_shapes_have_their_number_of_parameters() -> None:
    with torch.device("meta"):
        sizes = {name: sum(w.numel() for w in READER.build(config).parameters()) for name, config in CONFIGS.items()}
    assert {name: size // 1_000_000 for name, size in sizes.items()} == {"large_rel_pos": 610, "large_rope": 584}


def test_gradient_checkpointing_counts_a_batch_twice_in_the_running_statistics() -> None:
    shape = {"conv_layers": ((8, 10, 5), (8, 8, 8)), "dim": 16, "num_heads": 2, "num_layers": 1, "ffn_dim": 16}
    model = Wav2Vec2ConformerUpstream.from_config("large_rope", **shape).train()
    model.gradient_checkpointing = True
    torch.autograd.backward(model([torch.randn(800)]).last_hidden_state.sum())
    assert int(model.blocks[0].conv.norm.num_batches_tracked) == 2
