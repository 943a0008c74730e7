"""HuBERT of every layout gives what the originals gave, alone and in a batch, and nothing else is taken for HuBERT."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from hubcore import hub
from hubcore.checkpoints import open_checkpoint
from hubcore.errors import CheckpointLayoutError
from hubcore.registry.names import current_registry
from hubcore.sources.resolve import resolve
from hubcore_hubert import CONFIGS, HubertUpstream
from hubcore_wav2vec2 import Wav2Vec2Upstream
from tests.gold import WAV2VEC2_FILES, gold_arrays
from tests.paths import DATA
from tests.references import check_references, gold_states
from tests.running import python

FILES = {
    "gold/upstreams/hubert_tiny.fairseq.pt": "gold/upstreams/hubert",
    "gold/upstreams/hubert_tiny.s3prl.pt": "gold/upstreams/hubert",
    "gold2/hf_hubert_base": "gold2/hf_hubert_base",
    "gold2/hf_hubert_base_bin": "gold2/hf_hubert_base",
    "gold2/hf_hubert_large": "gold2/hf_hubert_large",
    "gold2/hf_hubert_no_feat_proj_norm": "gold2/hf_hubert_no_feat_proj_norm",
    "gold2/hf_hubert_pos_batch_norm": "gold2/hf_hubert_pos_batch_norm",
    "gold2/espnet_hubert_base_style": "gold2/espnet_hubert_base_style",
    "gold2/espnet_hubert_large_style": "gold2/espnet_hubert_large_style",
}
"""A checkpoint -> the reference of its weights."""


def references(file: str) -> list[list[Tensor]]:
    """The hidden states of u0 and u1 in our order: the input of block 1 first, the final norm in the last."""
    found, arrays = gold_states(FILES[file]), gold_arrays(f"../{FILES[file]}.ref.npz")
    if "espnet" not in file:
        return found
    return [
        [arrays[f"alone/u{i}/input_of_layer0"], *states[:-1], arrays[f"alone/u{i}/encoder_output"]]
        for i, states in enumerate(found)
    ]


@pytest.mark.parametrize("file", FILES)
def test_alone_and_in_every_ragged_batch_the_originals_numbers(file: str) -> None:
    check_references("hubert", HubertUpstream, DATA / file, references(file))


def test_every_name_of_an_espnet_file_and_a_bare_one_of_torchaudio_is_read() -> None:
    folder = DATA / "gold2/espnet_hubert_base_style"
    whole = HubertUpstream.from_checkpoint(folder)
    bare = HubertUpstream.from_checkpoint(folder / "wav2vec2_state_dict.pt")  # with the config.yaml beside it
    assert whole.load_report.layout == "ESPnet" and whole.config == bare.config
    assert all(torch.equal(weight, bare.state_dict()[name]) for name, weight in whole.state_dict().items())
    assert any("not normalised" in note for note in whole.load_report.notes)


@pytest.mark.parametrize("file", FILES)
def test_wav2vec2_says_that_a_file_is_huberts(file: str) -> None:
    with pytest.raises(CheckpointLayoutError, match=r"calls itself '(torchaudio_)?hubert'.*hub\.load\('hubert', checkpoint="):
        Wav2Vec2Upstream.from_checkpoint(DATA / file)


def test_hubert_and_wav2vec2_do_not_read_each_others_own_files(tmp_path: Path) -> None:
    HubertUpstream.from_checkpoint(DATA / "gold2/hf_hubert_base").save_checkpoint(tmp_path / "hubert.safetensors")
    with pytest.raises(CheckpointLayoutError, match=r"hub\.load\('hubert', checkpoint="):
        Wav2Vec2Upstream.from_checkpoint(tmp_path / "hubert.safetensors")
    with pytest.raises(CheckpointLayoutError, match=r"hub\.load\('wav2vec2', checkpoint="):
        HubertUpstream.from_checkpoint(resolve("wav2vec2_tiny_prompts"))


def test_what_is_saved_is_read_back(tmp_path: Path) -> None:
    model = HubertUpstream.from_checkpoint(DATA / "gold2/hf_hubert_pos_batch_norm")
    model.save_checkpoint(tmp_path / "mine.safetensors")
    again = HubertUpstream.from_checkpoint(tmp_path / "mine.safetensors")
    assert again.config == model.config
    assert all(torch.equal(weight, again.state_dict()[name]) for name, weight in model.state_dict().items())


@pytest.mark.parametrize("name", [name for name in CONFIGS if name != "tiny"])  # that one is for trying out pre-training
def test_a_card_of_every_config_is_there(name: str) -> None:
    cards = [entry.card for entry in current_registry().entries if entry.card and entry.card.upstream == "hubert"]
    assert len(cards) >= 18 and any(card.config == name for card in cards)


# A file of one family given to every other one ------------------------------------------------------------------------

GOLD_FILES = sorted(
    path
    for path in (*(DATA / "gold/upstreams").iterdir(), *(DATA / "gold2").iterdir())
    if path.is_dir() or path.suffix in (".pt", ".pth", ".ckpt")
)
OWN = {
    "cpc": ("modified_cpc_tiny",),
    "data2vec": ("data2vec_tiny", "hf_data2vec_audio"),
    "data2vec2": ("data2vec2_", "emotion2vec_"),
    "distilhubert": ("distilhubert_tiny",),
    "hubert": ("hubert_tiny", "hf_hubert_", "espnet_hubert_"),
    "unispeech_sat": ("unispeech_sat_tiny", "hf_unispeech_sat_"),
    "w2v_bert": ("w2v_bert_",),
    "wav2vec2": ("hf_wav2vec2_base", "hf_wav2vec2_large", "omniasr_"),
    "wav2vec2_conformer": ("wav2vec2_conformer", "hf_wav2vec2_conformer_"),
    "wavlm": ("wavlm_tiny", "hf_wavlm_"),
    "whisper": ("whisper_",),
}
"""Family -> how the names of its files begin."""
READERS = [*OWN, "ofa_wav2vec2"]


def is_of(family: str, file: Path) -> bool:
    return file.name.startswith(OWN.get(family, ()))


@pytest.mark.parametrize("file", GOLD_FILES, ids=lambda path: path.name)
@pytest.mark.slow
def test_a_file_of_another_family_is_an_error_that_names_tensors_or_the_family(file: Path) -> None:
    words, wrong = words_of(file), {}
    for family in READERS:
        if is_of(family, file):
            assert hub.load(family, checkpoint=file).num_layers >= 1
            continue
        try:
            hub.load(family, checkpoint=file)
        except CheckpointLayoutError as error:
            if not any(word in str(error) for word in words):
                wrong[family] = str(error)
        else:
            wrong[family] = "it was loaded"
    assert not wrong


def words_of(file: Path) -> list[str]:
    """The words of which an error about a file has one: its tensors, its family, or what in its config is another family's."""
    try:
        with open_checkpoint(file) as checkpoint:
            return [*checkpoint.tensors, repr(checkpoint.kind), "layer_type='conformer'", f"({checkpoint.layout})"]
    except CheckpointLayoutError:  # a layout that only its own family has
        return ["not laid out like any checkpoint known here"]


@pytest.mark.slow
def test_no_file_needs_the_system_that_wrote_it() -> None:
    files = [(family, str(file)) for family in OWN for file in GOLD_FILES if is_of(family, file)]
    files += [("wav2vec2", str(DATA / "gold" / name)) for name in WAV2VEC2_FILES]
    foreign = ["fairseq", "omegaconf", "hydra", "transformers", "torchaudio", "s3prl", "espnet", "timm", "argparse.fairseq"]
    code = (
        f"import sys\nsys.modules.update(dict.fromkeys({foreign}))\n"
        f"import torch\nfrom hubcore import hub\nfor family, file in {files}:\n"
        "    print(hub.load(family, checkpoint=file)([torch.zeros(1600)]).lengths.tolist())"
    )
    assert len(python("-c", code).stdout.splitlines()) == len(files) > 40
