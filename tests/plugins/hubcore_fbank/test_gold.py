"""The fbank family against frozen numbers of the programs it replaces (s3prl's baseline upstreams, torchaudio's kaldi).

All cells are compared, by float64: the difference is then the original's own float32 rounding, whose bound `rounding.py`
derives for every cell. Our float32 is held to our float64 by the same bound, on whatever processor this runs.
"""

from __future__ import annotations

import wave
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import hubcore.nn.filterbank
from hubcore_fbank import CONFIGS, FbankConfig, FbankUpstream
from tests.plugins.hubcore_fbank.rounding import assert_within, features, rounding

GOLD = Path(__file__).parents[2] / "data" / "gold"
STATIC = {"delta_order": 0, "cmvn": False}


@pytest.fixture(scope="module")
def gold() -> dict[str, np.ndarray]:
    with np.load(GOLD / "baseline.ref.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def wavs() -> list[torch.Tensor]:
    return [read_wav(GOLD / f"u{i}.wav") for i in range(3)]


def read_wav(path: Path) -> torch.Tensor:
    with wave.open(str(path)) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), dtype="<i2")
    return torch.from_numpy(samples.astype(np.float32) / 32768)


def assert_gold(config: FbankConfig, name: str, gold: dict[str, np.ndarray], wavs: list[torch.Tensor]) -> None:
    compared = 0
    for index in range(2):
        if f"{name}/u{index}" in gold:
            bound, expected = rounding(config, wavs[index]), torch.from_numpy(gold[f"{name}/u{index}"])
            assert_within(bound, features(config, wavs[index]), expected)
            assert bound.median() < 1.5e-2  # or the comparison would be worth little
            compared += 1
    assert compared
    rows, bound = features(config, wavs[2]), rounding(config, wavs[2])
    overall = bound.square().mean(0, keepdim=True).sqrt()
    assert_within(overall, rows.mean(0, keepdim=True), torch.from_numpy(gold[f"{name}/u2_mean"])[None])
    assert_within(overall, rows.std(0, keepdim=True), torch.from_numpy(gold[f"{name}/u2_std"])[None])
    ends = [0, 1, 2, -3, -2, -1]
    assert_within(bound[ends], rows[ends], torch.from_numpy(gold[f"{name}/u2_first3_last3"]))


@pytest.mark.parametrize("name", CONFIGS)
def test_features_have_the_originals_numbers(name, gold, wavs):
    assert_gold(CONFIGS[name], name, gold, wavs)


@pytest.mark.parametrize("name", CONFIGS)
def test_float32_in_a_batch_of_three_is_float64_alone_but_for_rounding(name, wavs):
    out = FbankUpstream.from_config(name)(wavs)
    assert out.last_hidden_state.dtype == torch.float32
    for row, count, wav in zip(out.last_hidden_state, out.lengths.tolist(), wavs, strict=True):
        assert_within(rounding(CONFIGS[name], wav), row[:count], features(CONFIGS[name], wav))


def test_one_percent_in_one_filter_is_noticed(gold, wavs, monkeypatch):
    right = hubcore.nn.filterbank.mel_filters

    def wrong(*args):
        filters = right(*args)
        filters[:, 40] *= 1.01
        return filters

    monkeypatch.setattr(hubcore.nn.filterbank, "mel_filters", wrong)
    with pytest.raises(AssertionError, match=r"cell \(\d+, 40\) is"):
        assert_gold(CONFIGS["fbank_no_cmvn"], "fbank_no_cmvn", gold, wavs)


@pytest.mark.parametrize(
    ("key", "name", "options"),
    [
        ("fbank80", "fbank", {}),
        ("fbank80_hamming", "fbank", {"window": "hamming"}),
        ("fbank80_x32768", "fbank", {"input_scale": 32768.0}),
        ("mfcc13", "mfcc", {}),
        ("spectrogram", "spectrogram", {}),
    ],
)
def test_static_features_have_torchaudios_numbers(key, name, options, gold, wavs):
    config = replace(CONFIGS[name], **STATIC, **options)
    assert_within(rounding(config, wavs[0]), features(config, wavs[0]), torch.from_numpy(gold[f"kaldi_raw/{key}_u0"]))


def test_trailing_zeros_are_audio_unlike_in_the_original(gold, wavs):
    longer = torch.cat([wavs[0], torch.zeros(800)])
    assert gold["mel/u0_plus_800_zeros"].shape == (71, 80)
    out = FbankUpstream.from_config("mel")([longer])
    assert out.lengths.tolist() == [(11237 + 800) // 160 + 1] == [76]

    # Before CMVN, frames that reach neither the appended zeros nor the mirror image at the end are those without them.
    raw = FbankUpstream.from_config("mel", cmvn=False)
    short_state, long_state = raw([wavs[0]]).last_hidden_state[0], raw([longer]).last_hidden_state[0]
    inner = (11237 - 200) // 160 + 1
    torch.testing.assert_close(long_state[:inner], short_state[:inner], rtol=0, atol=1e-6)
    assert not torch.allclose(long_state[inner : len(short_state)], short_state[inner:], atol=1e-2)
    # The last frame lies in the appended zeros alone, where only the offset is left.
    torch.testing.assert_close(long_state[-1], torch.full((80,), 1e-10).log())


def test_last_frames_of_a_short_utterance_look_at_its_own_mirror_image_only(gold, wavs):
    """The original's batch has one frame fewer with content here, and other CMVN statistics: not imitated."""
    assert int(gold["mel/batch_u0_nonzero_frames"]) == 70
    out = FbankUpstream.from_config("mel")(wavs)
    assert out.lengths.tolist() == [71, 191, 321]
    bound = rounding(CONFIGS["mel"], wavs[0])
    assert_within(bound, out.last_hidden_state[0, :71], features(CONFIGS["mel"], wavs[0]))
    assert_within(bound, features(CONFIGS["mel"], wavs[0]), torch.from_numpy(gold["mel/u0"]))
    assert np.abs(gold["mel/batch_u0"][:70] - gold["mel/u0"][:70]).max() > 0.01
