"""Whisper of every layout gives what the originals gave, alone and in a batch; options that depart from it say so."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from hubcore import hub
from hubcore.errors import AudioError, CheckpointLayoutError, OptionError
from hubcore.nn import LogMelWindow
from hubcore.options import parse
from hubcore_whisper import WhisperConfig, WhisperUpstream
from tests.gold import gold_arrays, gold_wavs, relative_error
from tests.paths import DATA
from tests.references import check_references, gold_states

GOLD2 = DATA / "gold2"
COPIES = {
    "whisper_tiny.openai.pt": "whisper_tiny",
    "whisper_tiny_generation": "whisper_tiny",
    "whisper_v3_style.openai.pt": "whisper_v3_style",
}
"""A checkpoint -> the folder with the same weights."""


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["whisper_tiny", "whisper_v3_style"])
def test_alone_and_in_every_ragged_batch_the_originals_numbers(folder: str) -> None:
    check_references("whisper", WhisperUpstream, GOLD2 / folder, gold_states(f"gold2/{folder}"))


@pytest.mark.parametrize("file", COPIES)
@torch.no_grad()
def test_every_layout_has_the_same_weights(file: str) -> None:
    model, folder = hub.load("whisper", checkpoint=GOLD2 / file), WhisperUpstream.from_checkpoint(GOLD2 / COPIES[file])
    assert model.config == folder.config
    assert all(torch.equal(weight, folder.state_dict()[name]) for name, weight in model.state_dict().items())
    assert model.load_report.ignored and all("decoder." in name for name in model.load_report.ignored)
    (states, _) = gold_states(f"gold2/{COPIES[file]}")
    out = model([gold_wavs()[0]])
    assert max(relative_error(mine[0], theirs) for mine, theirs in zip(out.hidden_states, states, strict=True)) <= 2e-5


@pytest.mark.parametrize(("reference", "bins"), [("whisper_tiny", 80), ("whisper_v3_style", 128)])
def test_the_log_mel_energies_are_the_originals(reference: str, bins: int) -> None:
    arrays, front = gold_arrays(f"../gold2/{reference}.ref.npz"), LogMelWindow(bins)
    for index, wav in enumerate(gold_wavs()[:2]):
        wanted = arrays[f"alone/u{index}/log_mel"].t()
        assert front(wav, frames=3000).shape == wanted.shape and (front(wav, 3000) - wanted).abs().max() <= 1e-4


def test_float16_weights_are_read(tmp_path: Path) -> None:
    tree = torch.load(GOLD2 / "whisper_tiny.openai.pt")
    halves = {name: weight.half() for name, weight in tree["model_state_dict"].items()}
    torch.save({"dims": tree["dims"], "model_state_dict": halves}, tmp_path / "half.pt")
    model = WhisperUpstream.from_checkpoint(tmp_path / "half.pt")
    assert torch.equal(model.model.positions, halves["encoder.positional_embedding"].float())
    assert "float16 weights converted to float32" in model.load_report.converted


# Windows --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def small() -> Iterator[WhisperUpstream]:
    """A model with windows of 20 frames, 6400 samples."""
    torch.manual_seed(0)
    with torch.no_grad():
        yield WhisperUpstream(
            WhisperConfig(num_mel_bins=16, dim=16, num_layers=2, num_heads=2, ffn_dim=32, positions=20)
        ).eval()


def noise(*samples: int) -> list[Tensor]:
    return [torch.randn(count, generator=torch.Generator().manual_seed(count)) for count in samples]


def test_audio_longer_than_the_window_is_an_error_that_names_the_item_and_the_option(small: WhisperUpstream) -> None:
    said = r"item 1 has 6401 samples \(0\.4 s\)\. Whisper hears 6400 samples \(0\.4 s\) at most.*long='chunk'"
    with pytest.raises(AudioError, match=said):
        small(noise(6400, 6401))


def test_chunks_are_windows_one_after_the_other(small: WhisperUpstream) -> None:
    wavs = noise(6400 * 2 + 321, 6400, 500)
    out = small(wavs, long="chunk")
    assert out.lengths.tolist() == [42, 20, 2] and out.extras["windows"].tolist() == [3, 1, 1]
    for row, wav in enumerate(wavs):
        alone = [small([window]) for window in wav.split(6400)]
        for layer, state in enumerate(out.hidden_states):
            joined = torch.cat([window.hidden_states[layer][0] for window in alone])
            assert torch.allclose(state[row, : len(joined)], joined, atol=1e-6)
    times = out.frame_times()[0]
    assert torch.allclose(times[30], torch.tensor([9080.0, 10120.0], dtype=torch.float64) / 16000)
    assert times[41, 1] == len(wavs[0]) / 16000


def test_a_batch_is_computed_one_window_at_a_time_on_a_cpu(small: WhisperUpstream, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    encode = small.model.encode

    def counted(windows: list[Tensor], layers: list[int], *, pad: bool) -> list[Tensor]:
        calls.append(len(windows))
        return encode(windows, layers, pad=pad)

    monkeypatch.setattr(small.model, "encode", counted)
    small(noise(6400, 13000, 400), long="chunk")
    assert calls == [1] * 5


def test_several_windows_at_a_time_give_the_same(small: WhisperUpstream) -> None:
    wavs = noise(6400, 3000, 161)
    together = small.model.encode(wavs, [0, 1, 2], pad=True)
    for mine, theirs in zip(together, small.model(wavs, [0, 1, 2])[0], strict=True):
        assert torch.allclose(mine, theirs, atol=1e-6)


def test_without_padding_there_are_the_same_frames_and_other_numbers(small: WhisperUpstream) -> None:
    (whole, part) = noise(6400, 3000)
    out, wanted = small([whole, part], pad=False), small([whole, part])
    assert torch.equal(out.lengths, wanted.lengths) and (out.extras["pad"], wanted.extras["pad"]) == (False, True)
    assert torch.allclose(out.last_hidden_state[0], wanted.last_hidden_state[0], atol=1e-6)  # nothing to pad
    assert (out.last_hidden_state[1] - wanted.last_hidden_state[1]).abs().max() > 1e-3
    exact = small([torch.nn.functional.pad(part, (0, 200))], pad=False)  # 10 whole frames
    assert torch.allclose(out.last_hidden_state[1, :10], exact.last_hidden_state[0], atol=1e-6)


def test_both_choices_are_options_of_loading_that_an_extraction_records() -> None:
    given = parse(WhisperUpstream, ["pad=false", "long=chunk"])
    assert given == {"pad": False, "long": "chunk"}
    model = hub.load("whisper", checkpoint=GOLD2 / "whisper_tiny", **given)
    assert model.options == given
    assert model([torch.zeros(400)]).extras["pad"] is False
    assert WhisperUpstream.from_checkpoint(GOLD2 / "whisper_tiny").options == {"pad": True, "long": "error"}


@pytest.mark.parametrize("option", [{"long": "cut"}, {"pad": 0}])
def test_an_impossible_choice_is_an_error(option: dict[str, Any], small: WhisperUpstream) -> None:
    with pytest.raises(OptionError, match=next(iter(option))):
        small(noise(400), **option)


def test_positions_are_saved_but_not_trained(small: WhisperUpstream) -> None:
    assert "model.positions" in small.state_dict() and "model.positions" not in dict(small.named_parameters())
    assert [group["name"] for group in small.layer_groups()] == ["input", "block_1", "block_2", "output"]
    frozen = {name for name, weight in small.freeze_extractor().named_parameters() if not weight.requires_grad}
    assert frozen == {f"model.extractor.conv{k}.{part}" for k in (1, 2) for part in ("weight", "bias")}


# Files ----------------------------------------------------------------------------------------------------------------


def changed(tmp_path: Path, file: str, **options: Any) -> Path:
    """A copy of the folder in which one of its JSON files has other options."""
    folder = tmp_path / "hf"
    shutil.copytree(GOLD2 / "whisper_tiny", folder)
    (folder / file).write_text(json.dumps({**json.loads((folder / file).read_text()), **options}))
    return folder


@pytest.mark.parametrize(
    ("file", "option", "value"),
    [
        ("config.json", "activation_function", "relu"),
        ("config.json", "scale_embedding", True),
        ("preprocessor_config.json", "hop_length", 320),
        ("preprocessor_config.json", "n_fft", 512),
        ("preprocessor_config.json", "sampling_rate", 8000),
        ("preprocessor_config.json", "dither", 1.0),
        ("preprocessor_config.json", "feature_size", 128),
    ],
)
def test_an_option_that_would_change_the_numbers_is_refused_by_name(file: str, option: str, value: Any, tmp_path: Path) -> None:
    with pytest.raises(CheckpointLayoutError, match=f"it has {option}={value!r}"):
        WhisperUpstream.from_checkpoint(changed(tmp_path, file, **{option: value}))


def test_a_tensor_without_a_place_is_an_error(tmp_path: Path) -> None:
    folder = changed(tmp_path, "config.json")
    weights = {**load_file(folder / "model.safetensors"), "encoder.layers.0.self_attn.k_proj.bias": torch.zeros(24)}
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(CheckpointLayoutError, match=r"encoder\.layers\.0\.self_attn\.k_proj\.bias"):
        WhisperUpstream.from_checkpoint(folder)


def test_dims_that_are_cut_are_an_error(tmp_path: Path) -> None:
    tree = torch.load(GOLD2 / "whisper_tiny.openai.pt")
    del tree["dims"]["n_audio_head"]
    torch.save(tree, tmp_path / "a.pt")
    with pytest.raises(CheckpointLayoutError, match=r"makes no sense: its dims lack n_audio_head\. It must"):
        WhisperUpstream.from_checkpoint(tmp_path / "a.pt")


def test_what_is_saved_is_read_back(tmp_path: Path) -> None:
    model = WhisperUpstream.from_checkpoint(GOLD2 / "whisper_v3_style")
    model.save_checkpoint(tmp_path / "mine.safetensors")
    again = WhisperUpstream.from_checkpoint(tmp_path / "mine.safetensors")
    assert again.config == model.config
    assert all(torch.equal(weight, again.state_dict()[name]) for name, weight in model.state_dict().items())
