"""wav2vec 2.0 in fairseq2's, transformers' and torchaudio's layouts: the originals' numbers, alone and in every batch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from hubcore import hub
from hubcore.checkpoints import open_checkpoint
from hubcore.errors import CheckpointLayoutError, MissingWeightsError
from hubcore_wav2vec2 import CONFIGS, Wav2Vec2Upstream
from hubcore_wav2vec2.checkpoint import NAMES
from hubcore_wav2vec2.omniasr import fairseq2_values
from tests.gold import gold_wavs
from tests.paths import DATA
from tests.references import check_references, gold_states

pytestmark = pytest.mark.slow

FILES = {
    "omniasr_w2v_tiny.fairseq2.pt": "omniasr_fairseq2",
    "omniasr_ctc_tiny.fairseq2.pt": "omniasr_fairseq2",
    "omniasr_hf": "omniasr_hf",
    "omniasr_ctc_hf": "omniasr_hf",
    "hf_wav2vec2_base": "hf_wav2vec2_base",
    "hf_wav2vec2_large": "hf_wav2vec2_large",
    "hf_wav2vec2_large_ctc": "hf_wav2vec2_large",
}
"""A checkpoint -> the reference of its weights."""
FAIRSEQ2, OMNIASR = DATA / "gold2/omniasr_w2v_tiny.fairseq2.pt", DATA / "gold2/omniasr_hf"


@pytest.mark.parametrize("file", FILES)
def test_alone_and_in_every_ragged_batch_the_originals_numbers(file: str) -> None:
    check_references("wav2vec2", Wav2Vec2Upstream, DATA / "gold2" / file, gold_states(f"gold2/{FILES[file]}"))


def test_a_fairseq2_file_has_the_config_of_its_weights_and_says_what_was_assumed() -> None:
    model, same = (Wav2Vec2Upstream.from_checkpoint(path) for path in (FAIRSEQ2, OMNIASR))
    assert replace(model.config, activation_dropout=0.1, dropout=0.1) == same.config
    assert "4 attention heads" in model.load_report.notes[0] and not same.load_report.notes
    assert {name.split(".")[1] for name in model.load_report.ignored} == {
        "masker",
        "quantizer",
        "final_proj",
        "final_target_proj",
    }
    assert same.config.normalize_eps == 1e-5  # 1e-7 is that of transformers' wav2vec 2.0
    other = Wav2Vec2Upstream.from_checkpoint(FAIRSEQ2, config=replace(model.config, num_heads=8))
    assert other.config.num_heads == 8 and not other.load_report.notes
    with pytest.raises(MissingWeightsError):
        Wav2Vec2Upstream.from_checkpoint(FAIRSEQ2, config="omniasr_300m")


def test_every_published_size_of_omniasr_is_recognised(tmp_path: Path) -> None:
    for name in ("omniasr_300m", "omniasr_1b", "omniasr_3b", "omniasr_7b"):
        config = CONFIGS[name]
        assert found_config(config.dim, config.num_layers, config.ffn_dim) == replace(
            config, dropout=0.0, attention_dropout=0.0, activation_dropout=0.0
        )
    assert found_config(2048, 64, 8192).num_heads == 32  # fairseq2's "3.25b"


def found_config(dim: int, depth: int, inner: int) -> object:
    """The config that is read from the shapes of a fairseq2 file."""
    with torch.device("meta"):
        small = Wav2Vec2Upstream(replace(CONFIGS["omniasr_300m"], dim=dim, num_layers=1, ffn_dim=inner)).model.state_dict()
    block = {name: tensor for name, tensor in small.items() if ".blocks.0." in name}
    state = small | {name.replace(".0.", f".{k}.", 1): tensor for k in range(1, depth) for name, tensor in block.items()}
    with open_checkpoint(FAIRSEQ2) as checkpoint:
        checkpoint.tensors = {f"module.{name}": tensor for name, tensor in NAMES.write("fairseq2", state).items()}
        values = fairseq2_values(checkpoint, [])
    return type(CONFIGS["base"])(**(values or {}))


@torch.no_grad()
def test_a_bare_state_dict_of_torchaudio_is_read_with_a_config(tmp_path: Path) -> None:
    model = Wav2Vec2Upstream.from_checkpoint(DATA / "gold2/hf_wav2vec2_base")
    state = {name.removeprefix("model."): tensor for name, tensor in model.state_dict().items()}
    theirs = NAMES.write("torchaudio", state) | {"aux.weight": torch.zeros(29, 32), "aux.bias": torch.zeros(29)}
    torch.save(theirs, tmp_path / "wav2vec2_fairseq_base_ls960_asr.pth")
    with pytest.raises(CheckpointLayoutError, match="pass config="):
        Wav2Vec2Upstream.from_checkpoint(tmp_path / "wav2vec2_fairseq_base_ls960_asr.pth")
    bare = Wav2Vec2Upstream.from_checkpoint(tmp_path / "wav2vec2_fairseq_base_ls960_asr.pth", config=model.config)
    assert bare.load_report.ignored == ("aux.bias", "aux.weight")
    wav = gold_wavs()[0]
    assert torch.equal(bare([wav]).last_hidden_state, model([wav]).last_hidden_state)


def test_adapters_are_refused_by_their_option_and_by_their_weights(tmp_path: Path) -> None:
    folder = DATA / "gold2/hf_wav2vec2_large_ctc"
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = load_file(tmp_path / "model.safetensors")
    adapter = "wav2vec2.encoder.layers.0.adapter_layer.linear_1.weight"
    save_file({**weights, adapter: torch.zeros(16, 32)}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointLayoutError, match="adapter_layer"):
        Wav2Vec2Upstream.from_checkpoint(tmp_path)
    save_file(weights, tmp_path / "model.safetensors")
    config = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text(config.replace('"adapter_attn_dim": null', '"adapter_attn_dim": 16'))
    with pytest.raises(CheckpointLayoutError, match="adapter_attn_dim"):
        Wav2Vec2Upstream.from_checkpoint(tmp_path)


@pytest.mark.parametrize("family", ["hubert", "ofa_wav2vec2"])
@pytest.mark.parametrize("file", FILES)
def test_another_family_refuses_the_file_and_names_tensors_or_the_family(file: str, family: str) -> None:
    with pytest.raises(CheckpointLayoutError) as caught:
        hub.load(family, checkpoint=DATA / "gold2" / file)
    assert any(word in str(caught.value) for word in ("encoder_frontend", "omniasr", "'wav2vec2'", "subsample"))
