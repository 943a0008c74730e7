"""The steps from waveform to feature, each a function of tensors. They know no config and no upstream.

Constants (windows, filters) are computed in the dtype of the features, in the order of operations of the programs they
come from: in float32 that makes their rounding, and so the features of near-silent bins, the same. Shapes: `T` samples,
`F` frames, `N` samples of a frame, `K` frequency bins, `M` mel filters, `D` columns.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import pad


def window_function(name: str, length: int, dtype: torch.dtype) -> Tensor:
    """`(N,)` weights of the samples of a frame of `length`, by one of the names in `hubcore_fbank.config.WINDOWS`.

    Example:
        >>> window_function("povey", 5, torch.float32)[[0, 2, 4]].tolist()
        [0.0, 1.0, 0.0]
    """
    if name == "rectangular":
        return torch.ones(length, dtype=dtype)
    if name == "hamming":
        return torch.hamming_window(length, periodic=False, dtype=dtype)
    if name == "blackman":
        return torch.blackman_window(length, periodic=False, dtype=dtype)
    hann = torch.hann_window(length, periodic=name == "hann_periodic", dtype=dtype)
    return hann.pow(0.85) if name == "povey" else hann


def mel_filters(count: int, num_fft: int, sample_rate: int, low_hz: float, high_hz: float, dtype: torch.dtype) -> Tensor:
    """`(K, M)` triangular filters whose sides are straight on the mel axis, as Kaldi's.

    The bin at half the sample rate belongs to no filter.

    Example:
        >>> mel_filters(23, 512, 16000, 20.0, 8000.0, torch.float32).shape
        torch.Size([257, 23])
    """
    low, high = (1127.0 * math.log(1.0 + hz / 700.0) for hz in (low_hz, high_hz))
    step = (high - low) / (count + 1)
    index = torch.arange(count, dtype=dtype)
    left, middle, right = (low + (index + k) * step for k in range(3))
    hertz = torch.arange(num_fft // 2, dtype=dtype) * (sample_rate / num_fft)
    mel = (1127.0 * (1.0 + hertz / 700.0).log())[:, None]
    rising, falling = (mel - left) / (middle - left), (right - mel) / (right - middle)
    return pad(torch.minimum(rising, falling).clamp(min=0), (0, 0, 0, num_fft // 2 + 1 - len(hertz)))


def mel_filters_in_hertz(
    count: int, num_fft: int, sample_rate: int, low_hz: float, high_hz: float, dtype: torch.dtype
) -> Tensor:
    """`(K, M)` triangular filters whose sides are straight on the hertz axis, corners by HTK's mel formula, height 1.

    Example:
        >>> mel_filters_in_hertz(80, 400, 16000, 0.0, 8000.0, torch.float32).shape
        torch.Size([201, 80])
    """
    low, high = (2595.0 * math.log10(1.0 + hz / 700.0) for hz in (low_hz, high_hz))
    corners = 700.0 * (10.0 ** (torch.linspace(low, high, count + 2, dtype=dtype) / 2595.0) - 1.0)
    top = (num_fft // 2) * sample_rate / num_fft
    distance = corners - torch.linspace(0, top, num_fft // 2 + 1, dtype=dtype)[:, None]
    width = corners.diff()
    return torch.minimum(-distance[:, :-2] / width[:-1], distance[:, 2:] / width[1:]).clamp(min=0)


def cepstral_matrix(num_mel_bins: int, num_ceps: int, dtype: torch.dtype) -> Tensor:
    """`(M, D)` orthonormal discrete cosine transform (type II), its first `num_ceps` columns.

    Example:
        >>> basis = cepstral_matrix(23, 23, torch.float64)
        >>> torch.allclose(basis.T @ basis, torch.eye(23, dtype=torch.float64))
        True
    """
    at = torch.arange(num_mel_bins, dtype=dtype)[:, None] + 0.5
    basis = torch.cos(math.pi / num_mel_bins * at * torch.arange(num_ceps, dtype=dtype)) * math.sqrt(2 / num_mel_bins)
    basis[:, 0] = math.sqrt(1 / num_mel_bins)
    return basis


def lifter(num_ceps: int, q: float, dtype: torch.dtype) -> Tensor:
    """`(D,)` factors `1 + q/2 sin(pi i / q)` of cepstral coefficients, which even out their ranges.

    Example:
        >>> lifter(12, 22.0, torch.float32)[[0, 11]].tolist()
        [1.0, 12.0]
    """
    return 1.0 + 0.5 * q * torch.sin(math.pi * torch.arange(num_ceps, dtype=dtype) / q)


def mirror_edges(wav: Tensor, left: int, right: int, *, repeat_end: bool) -> Tensor:
    """`(left + T + right,)` waveform continued by its own mirror image; `repeat_end` says if the end samples count twice.

    Example:
        >>> mirror_edges(torch.tensor([1.0, 2.0, 3.0]), 2, 1, repeat_end=False).tolist()
        [3.0, 2.0, 1.0, 2.0, 3.0, 2.0]
        >>> mirror_edges(torch.tensor([1.0, 2.0, 3.0]), 2, 1, repeat_end=True).tolist()
        [2.0, 1.0, 1.0, 2.0, 3.0, 3.0]
    """
    skip, end = 0 if repeat_end else 1, len(wav)
    head, tail = wav[skip : skip + left].flip(0), wav[end - skip - right : end - skip].flip(0)
    return torch.cat([head, wav, tail])


def shape_frames(frames: Tensor, window: Tensor, preemphasis: float, width: int) -> Tensor:
    """`(F, width)` frames `(F, N)` pre-emphasised, windowed, and filled up with zeros.

    Example:
        >>> shape_frames(torch.ones(1, 3), torch.ones(3), preemphasis=0.5, width=4).tolist()
        [[0.5, 0.5, 0.5, 0.0]]
    """
    fill = width - frames.shape[1]
    if preemphasis == 0.0:
        return pad(frames * window, (0, fill))
    first = (frames[:, :1] - preemphasis * frames[:, :1]) * window[:1]
    # Two roundings on purpose: a fused multiply-add would differ from Kaldi's and torchaudio's in quiet bins.
    rest = torch.mul(frames[:, :-1], -preemphasis).add_(frames[:, 1:]).mul_(window[1:])
    return torch.cat([first, rest, rest.new_zeros(len(rest), fill)], dim=1)


def power_spectrum(frames: Tensor) -> Tensor:
    """`(F, K)` squared magnitudes of the Fourier transforms of frames, from 0 Hz to half the sample rate.

    Example:
        >>> power_spectrum(torch.tensor([[1.0, 0.0, -1.0, 0.0]])).tolist()
        [[0.0, 4.0, 0.0]]
    """
    # A complex abs() takes a careful square root, several times slower than all else here, only to be squared again.
    parts = torch.view_as_real(torch.fft.rfft(frames)).square()
    return parts[..., 0] + parts[..., 1]


def deltas(features: Tensor, window: int) -> Tensor:
    """`(F, D)` slopes over time of `(F, D)`: a line fitted to `window` frames around each, end frames repeated.

    Example:
        >>> deltas(torch.tensor([[0.0], [1.0], [2.0], [3.0], [4.0]]), 5)[:, 0].tolist()
        [0.5, 0.800000011920929, 1.0, 0.800000011920929, 0.5]
    """
    reach, frames = window // 2, len(features)
    padded = torch.cat([features[:1].expand(reach, -1), features, features[-1:].expand(reach, -1)])
    # Differences first: a column that does not change then has a slope of exactly 0.
    spans = [padded[reach + k : reach + k + frames] - padded[reach - k : reach - k + frames] for k in range(1, reach + 1)]
    slope = spans[0]
    for k, span in enumerate(spans[1:], start=2):
        slope = slope + k * span
    return slope / (reach * (reach + 1) * (2 * reach + 1) / 3)


def normalize_columns(features: Tensor, epsilon: float) -> Tensor:
    """`(F, D)` with mean 0 and unbiased standard deviation 1 in every column of `(F, D)`; a constant column becomes 0.

    Example:
        >>> normalize_columns(torch.tensor([[1.0, 5.0], [2.0, 5.0], [3.0, 5.0]]), 1e-10).tolist()
        [[-1.0, 0.0], [0.0, 0.0], [1.0, 0.0]]
    """
    centred = features - features.mean(0)
    deviation = torch.linalg.vector_norm(centred, dim=0) / math.sqrt(max(len(features) - 1, 1))
    # A constant column's rounded mean need not cancel exactly; dividing that rest by itself would make noise of it.
    values = features.detach()
    varies = values.amax(0) != values.amin(0)
    return centred * torch.where(varies, 1.0 / (deviation + epsilon), 0.0)
