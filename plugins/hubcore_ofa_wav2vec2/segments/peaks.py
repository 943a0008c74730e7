"""Boundaries where the spectrum changes fastest: peaks of the spectral transition, above a threshold tuned to a corpus.

The transition measure is Furui's (1986): the norm of the slopes over time of log-mel energies, each a line fitted to five
frames 10 ms apart. A peak counts by its prominence, how far one must descend from it before a higher one comes. Nothing is
trained. Shapes: `T` frames of 20 ms, `F` frames of 10 ms, `M` mel filters, `C` candidates.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hubcore.errors import OptionError
from hubcore.nn.filterbank import deltas, mel_filters, power_spectrum, shape_frames, window_function
from hubcore_ofa_wav2vec2.segments.grid import FIELD, SAMPLE_RATE, STRIDE, count_frames

_SHIFT = STRIDE // 2
"""Samples from one spectrum to the next: every other one is centred on a boundary of the grid."""
_MELS, _FFT = 40, 512
_FLOOR = 1e-3
"""Energies are told apart down to 30 dB below the loudness: changes of faint noise mark no speech sound."""
_LOUD = 0.9
"""The loudness is that of the loudest filter in a frame that one in ten exceeds, so that a click does not decide it ..."""
_CLICK = 1e-4
"""... but at least this share of the loudest of all, for a word in a long silence."""
_WINDOW = 5
_BLOCK = 6000
"""Spectra computed at once, a minute, so that a long recording needs little memory."""


class Candidates(NamedTuple):
    """Possible boundaries of one utterance, and how prominent each is."""

    frames: int
    """`T` of the utterance."""
    positions: NDArray[np.int64]
    """`(C,)` boundaries, rising."""
    scores: NDArray[np.float32]
    """`(C,)` prominence of each."""


def find_candidates(wav: Tensor) -> Candidates:
    """Every peak of the spectral transition of a waveform `(T,)` at 16 kHz.

    Example:
        >>> wav = torch.sin(torch.arange(16000) * 0.3)  # a tone, and noise after half a second
        >>> wav[8040:] = torch.randn(7960, generator=torch.Generator().manual_seed(0)) / 10
        >>> found = find_candidates(wav)
        >>> int(found.positions[found.scores.argmax()])
        25
    """
    frames = count_frames(len(wav))
    curve = spectral_transition(wav)
    peaks, prominences = prominent_peaks(curve)
    # The spectrum 2b - 1 is centred on boundary b. A peak between two of the grid goes to the side that is higher.
    padded = np.concatenate([[0.0], curve, [0.0]])
    lean = (padded[peaks + 2] > padded[peaks]).astype(np.int64)
    positions = np.where(peaks % 2, (peaks + 1) // 2, peaks // 2 + lean)
    inside = (positions > 0) & (positions < frames)
    positions, prominences = positions[inside], prominences[inside]
    kept, where = np.unique(positions, return_inverse=True)
    scores = np.zeros(len(kept), dtype=np.float32)
    np.maximum.at(scores, where, prominences.astype(np.float32))
    return Candidates(frames, kept, scores)


def spectral_transition(wav: Tensor) -> NDArray[np.float64]:
    """`(F,)` speed at which the log-mel spectrum of a waveform `(T,)` changes, each 10 ms; 0 where it stands still."""
    energies = torch.cat([_energies(wav[start : start + (_BLOCK - 1) * _SHIFT + FIELD]) for start in _starts(len(wav))])
    each = energies.amax(1)  # (F,)
    loudness = torch.maximum(each.sort().values[int(_LOUD * (len(each) - 1))], each.amax() * _CLICK)
    if not float(loudness) > 0:
        return np.zeros(len(energies))
    slopes = deltas((energies / loudness + _FLOOR).log(), _WINDOW)  # (F, M)
    speed: NDArray[np.float64] = torch.linalg.vector_norm(slopes, dim=1).double().numpy()
    return speed


def prominent_peaks(curve: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The local maxima of a curve, and the prominence of each: its height above the higher of the two lowest points
    that lie between it and a higher peak on either side, or the end, beyond which the curve is 0.

    Example:
        >>> peaks, prominences = prominent_peaks(np.array([1.0, 3.0, 2.0, 5.0, 0.5, 0.5]))
        >>> peaks.tolist(), prominences.tolist()
        ([1, 3], [1.0, 5.0])
    """
    steps = np.flatnonzero(np.diff(curve, prepend=np.nan))  # the first of each run of equal values
    values = curve[steps]
    before, after = np.concatenate([[0.0], values[:-1]]), np.concatenate([values[1:], [0.0]])
    tops = np.flatnonzero((values > before) & (values > after))
    if not len(tops):
        return np.zeros(0, dtype=np.int64), np.zeros(0)
    heights = values[tops]
    valleys = np.minimum.reduceat(values, tops)[:-1]  # the lowest point between each top and the next
    left = _bases(heights.tolist(), valleys.tolist())
    right = _bases(heights[::-1].tolist(), valleys[::-1].tolist())[::-1]
    return steps[tops].astype(np.int64), heights - np.maximum(left, right)


def tune_threshold(found: Sequence[Candidates], mean_alpha: float) -> float:
    """The threshold at which these utterances together have `mean_alpha` segments a frame, as nearly as they can.

    Example:
        >>> found = Candidates(10, np.array([2, 5, 7]), np.array([0.5, 3.0, 1.0], dtype=np.float32))
        >>> tune_threshold([found], 0.3), choose(found, 1.0).tolist()
        (1.0, [5, 7, 10])
    """
    if not found:
        raise OptionError("there is no utterance to tune the threshold on.", fix="See what failed, or pass a threshold.")
    frames = sum(each.frames for each in found)
    wanted = round(mean_alpha * frames) - len(found)  # the end of an utterance is a boundary whatever the threshold
    scores = np.sort(np.concatenate([each.scores for each in found]))[::-1]
    if wanted <= 0 or not len(scores):
        return float(scores[0]) * 2 if len(scores) else 1.0
    return float(scores[min(wanted, len(scores)) - 1])


def choose(found: Candidates, threshold: float) -> Tensor:
    """`(N,)` int64 boundaries: the candidates that reach the threshold, and the end.

    Example:
        >>> choose(Candidates(10, np.array([4]), np.array([1.0], dtype=np.float32)), 2.0).tolist()
        [10]
    """
    kept = found.positions[found.scores >= np.float32(threshold)]
    return torch.from_numpy(np.append(kept, found.frames).astype(np.int64))


def _starts(samples: int) -> range:
    count = (samples - FIELD) // _SHIFT + 1
    return range(0, count * _SHIFT, _BLOCK * _SHIFT)


def _energies(wav: Tensor) -> Tensor:
    """`(F, M)` mel energies."""
    window, filters = _constants()
    frames = wav.unfold(0, FIELD, _SHIFT)
    frames = frames - frames.mean(1, keepdim=True)
    return power_spectrum(shape_frames(frames, window, 0.97, _FFT)) @ filters


@functools.cache
def _constants() -> tuple[Tensor, Tensor]:
    return (
        window_function("hamming", FIELD, torch.float32),
        mel_filters(_MELS, _FFT, SAMPLE_RATE, 20.0, SAMPLE_RATE / 2, torch.float32),
    )


def _bases(heights: list[float], valleys: list[float]) -> NDArray[np.float64]:
    """For each peak, the lowest point on its left before a higher peak, or 0 if none is higher."""
    bases = np.zeros(len(heights))
    stack: list[tuple[float, float]] = []  # peaks that fall, each with the lowest point since the one before it in here
    for index, height in enumerate(heights):
        lowest = valleys[index - 1] if index else 0.0
        while stack and stack[-1][0] <= height:
            lowest = min(lowest, stack.pop()[1])
        bases[index] = lowest if stack else 0.0
        stack.append((height, lowest))
    return bases
