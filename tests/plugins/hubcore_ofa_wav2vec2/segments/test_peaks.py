"""Spectral-transition peaks: where they are, how prominent, and how the threshold is tuned."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from hubcore.audio import load_audio
from hubcore.errors import OptionError
from hubcore_ofa_wav2vec2.segments.grid import count_frames
from hubcore_ofa_wav2vec2.segments.peaks import (
    Candidates,
    choose,
    find_candidates,
    prominent_peaks,
    spectral_transition,
    tune_threshold,
)
from tests.paths import SPEECH


def by_definition(curve: NDArray[np.float64]) -> dict[int, float]:
    """Prominences as they are defined, in quadratic time."""
    found = {}
    padded = [0.0, *curve.tolist(), 0.0]
    for start in range(1, len(padded) - 1):
        stop = start
        while stop + 1 < len(padded) and padded[stop + 1] == padded[start]:
            stop += 1
        height = padded[start]
        if padded[start - 1] >= height or stop == len(padded) - 1 or padded[stop + 1] >= height:
            continue
        sides = []
        for step, at in ((-1, start), (1, stop)):
            lowest = height
            while 0 <= at < len(padded) and padded[at] <= height:
                lowest = min(lowest, padded[at])
                at += step
            sides.append(lowest)
        found[start - 1] = height - max(sides)
    return found


@pytest.mark.parametrize("steps", [3, 10_000])
def test_prominence_is_what_it_is_defined_to_be(steps: int) -> None:
    rng = np.random.default_rng(5)
    for length in (1, 2, 3, 8, 60):
        for _ in range(40):
            curve = np.round(rng.random(length) * steps) / steps  # few steps make plateaus and equal peaks
            peaks, prominences = prominent_peaks(curve)
            expected = by_definition(curve)
            assert peaks.tolist() == sorted(expected)
            assert prominences == pytest.approx([expected[peak] for peak in peaks.tolist()])


def clicks(*starts: int, length: int = 32000) -> torch.Tensor:
    """Tones, each of another pitch, that change at these samples."""
    wav, generator = torch.zeros(length), torch.Generator().manual_seed(1)
    for number, (start, stop) in enumerate(zip((0, *starts), (*starts, length), strict=True)):
        noise = torch.randn(stop - start, generator=generator)
        wav[start:stop] = noise if number % 2 else 0.3 * noise.cumsum(0) / 50
    return wav


def test_boundaries_are_where_the_sound_changes() -> None:
    changes = [320 * b + 40 for b in (11, 30, 47, 70)]
    found = find_candidates(clicks(*changes))
    best = found.positions[np.argsort(-found.scores)[:4]]
    assert sorted(best.tolist()) == [11, 30, 47, 70] and found.frames == 99


def test_loudness_does_not_matter() -> None:
    wav = load_audio(SPEECH / "it_1.flac")
    loud, quiet = find_candidates(wav), find_candidates(wav / 64)
    assert loud.positions.tolist() == quiet.positions.tolist()
    assert np.allclose(loud.scores, quiet.scores, atol=1e-4)


@pytest.mark.parametrize("samples", [400, 559, 560, 719, 720, 1040, 16000])
def test_candidates_are_inside_and_rise(samples: int) -> None:
    wav = torch.randn(samples, generator=torch.Generator().manual_seed(samples))
    found = find_candidates(wav)
    assert found.frames == count_frames(samples)
    assert all(0 < b < found.frames for b in found.positions.tolist()) and bool((np.diff(found.positions) > 0).all())
    assert choose(found, 0.0)[-1] == found.frames and choose(found, 1e9).tolist() == [found.frames]


def test_silence_has_no_boundary() -> None:
    assert choose(find_candidates(torch.zeros(16000)), 0.0).tolist() == [49]


def test_a_long_recording_is_computed_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    wav = load_audio(SPEECH / "en_1.flac")
    whole = spectral_transition(wav)
    monkeypatch.setattr("hubcore_ofa_wav2vec2.segments.peaks._BLOCK", 7)
    blocks = spectral_transition(wav)
    assert len(whole) == (len(wav) - 400) // 160 + 1 == len(blocks)
    assert np.allclose(whole, blocks, atol=1e-4)


def test_the_threshold_gives_the_number_of_segments_asked_for() -> None:
    found = [find_candidates(load_audio(path)) for path in sorted(SPEECH.glob("*.flac"))]
    frames = sum(each.frames for each in found)
    for wanted in (0.05, 0.1, 2 / 9, 0.3):
        threshold = tune_threshold(found, wanted)
        assert sum(len(choose(each, threshold)) for each in found) == round(wanted * frames)
    assert sum(len(choose(each, tune_threshold(found, 1e-6))) for each in found) == len(found)
    most = sum(len(each.positions) + 1 for each in found)
    assert sum(len(choose(each, tune_threshold(found, 1.0))) for each in found) == most


def test_there_must_be_something_to_tune_on() -> None:
    with pytest.raises(OptionError, match="no utterance to tune"):
        tune_threshold([], 0.2)
    silent = Candidates(10, np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32))
    assert choose(silent, tune_threshold([silent], 0.5)).tolist() == [10]
