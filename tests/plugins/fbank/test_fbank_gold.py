"""The fbank family against frozen numbers of the programs it replaces (s3prl's baseline upstreams, torchaudio's kaldi).

All cells are compared. Float32 does not determine quiet ones: a bin whose energy is a ten-millionth of its frame's is
mostly rounding, where float32 and float64 differ by up to 1.3e-3 (log mel), 7e-2 (single bins of `linear`). The numbers
agree there too because each step rounds as the original's does, down to MKL's Fourier transform; a torch built
with another one is held to what float32 determines.
"""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
import pytest
import torch

from hubcore_fbank import CONFIGS, FbankUpstream

GOLD = Path(__file__).parents[2] / "data" / "gold"
SAME_ROUNDING = torch.backends.mkl.is_available()
NORMALIZED = 1e-3 if SAME_ROUNDING else 1e-1
RAW = 2e-4 if SAME_ROUNDING else 4e-3
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


def assert_close(actual: torch.Tensor, expected: np.ndarray, tolerance: float) -> None:
    torch.testing.assert_close(actual, torch.from_numpy(expected), rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", CONFIGS)
def test_batch_of_three_has_the_originals_numbers_for_each_alone(name, gold, wavs):
    tolerance = RAW if name == "fbank_no_cmvn" else NORMALIZED
    out = FbankUpstream.from_config(name)(wavs)
    rows = [state[:count] for state, count in zip(out.last_hidden_state, out.lengths.tolist(), strict=True)]
    compared = 0
    for index in range(2):
        if f"{name}/u{index}" in gold:
            assert_close(rows[index], gold[f"{name}/u{index}"], tolerance)
            compared += 1
    assert compared
    assert_close(rows[2].mean(0), gold[f"{name}/u2_mean"], tolerance)
    assert_close(rows[2].std(0), gold[f"{name}/u2_std"], tolerance)
    assert_close(torch.cat([rows[2][:3], rows[2][-3:]]), gold[f"{name}/u2_first3_last3"], tolerance)


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
    upstream = FbankUpstream.from_config(name, **STATIC, **options)
    assert_close(upstream(wavs[:1]).last_hidden_state[0], gold[f"kaldi_raw/{key}_u0"], RAW)


@pytest.mark.parametrize("options", [{}, {"window": "hamming"}, {"snip_edges": False}, {"input_scale": 0.5}])
def test_float32_log_mel_is_within_2e_3_of_float64(options, wavs):
    upstream = FbankUpstream.from_config("fbank", **STATIC, **options)
    single = upstream(wavs).last_hidden_state
    double = upstream([wav.double() for wav in wavs]).last_hidden_state
    assert single.dtype == torch.float32
    assert double.dtype == torch.float64
    torch.testing.assert_close(single.double(), double, rtol=0, atol=2e-3)


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
    assert_close(out.last_hidden_state[0, :71], gold["mel/u0"], NORMALIZED)
    assert np.abs(gold["mel/batch_u0"][:70] - gold["mel/u0"][:70]).max() > 0.01
