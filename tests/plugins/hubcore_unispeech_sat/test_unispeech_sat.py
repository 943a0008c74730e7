"""UniSpeech-SAT of every layout gives what the originals gave, alone and in a batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from hubcore.errors import CheckpointLayoutError
from hubcore_unispeech_sat import UniSpeechSatUpstream
from tests.paths import DATA
from tests.references import check_references, gold_states

FILES = {
    "gold/upstreams/unispeech_sat_tiny.pt": "gold/upstreams/unispeech_sat",
    "gold2/hf_unispeech_sat_base": "gold2/hf_unispeech_sat_base",
    "gold2/hf_unispeech_sat_large": "gold2/hf_unispeech_sat_large",
}
"""A checkpoint -> the reference of its weights."""
PUBLISHED = DATA / "gold/upstreams/unispeech_sat_tiny.pt"


@pytest.mark.parametrize("file", FILES)
def test_alone_and_in_every_ragged_batch_the_originals_numbers(file: str) -> None:
    check_references("unispeech_sat", UniSpeechSatUpstream, DATA / file, gold_states(FILES[file]))


def trained(**options: object) -> dict[str, Any]:
    """The published file as the program that trained it writes it: a config in sections, and the heads."""
    tree: dict[str, Any] = torch.load(PUBLISHED, weights_only=True)
    heads = ["label_embs_concat", "final_proj.weight", "quantizer.weight_proj.weight", "quantizer.vars", "project_q.weight"]
    heads += ["spk_proj.bias", "encoder.layer_norm_for_extract.weight"]
    model = {**tree["model"], **dict.fromkeys(heads, torch.zeros(3))}
    return {"cfg": {"model": {"_name": "unispeech_sat", **tree["cfg"], **options}, "task": {"normalize": True}}, "model": model}


def test_the_file_of_the_program_that_trained_it_is_read(tmp_path: Path) -> None:
    torch.save(trained(), tmp_path / "model.pt")
    model, wanted = (UniSpeechSatUpstream.from_checkpoint(file) for file in (tmp_path / "model.pt", PUBLISHED))
    assert model.config.normalize and not wanted.config.normalize and len(model.load_report.ignored) == 8
    assert all(torch.equal(weight, wanted.state_dict()[name]) for name, weight in model.state_dict().items())


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("structure_type", "conformer"),
        ("relative_position_embedding", True),
        ("streaming", True),
        ("expand_attention_head_size", 8),
    ],
)
def test_an_option_that_changes_numbers_is_refused_by_name(option: str, value: object, tmp_path: Path) -> None:
    torch.save(trained(**{option: value}), tmp_path / "model.pt")
    with pytest.raises(CheckpointLayoutError, match=f"{option}={value!r}"):
        UniSpeechSatUpstream.from_checkpoint(tmp_path / "model.pt")


def test_what_is_saved_is_read_back(tmp_path: Path) -> None:
    model = UniSpeechSatUpstream.from_checkpoint(DATA / "gold2/hf_unispeech_sat_large")
    model.save_checkpoint(tmp_path / "mine.safetensors")
    again = UniSpeechSatUpstream.from_checkpoint(tmp_path / "mine.safetensors")
    assert again.config == model.config
    assert all(torch.equal(weight, again.state_dict()[name]) for name, weight in model.state_dict().items())
