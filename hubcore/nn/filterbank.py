"""From waveforms to filter banks, cepstra and spectra: `Filterbank`, and the steps it takes, functions of tensors.

Constants (windows, filters) are computed in the dtype of the features, in the order of operations of the programs they
come from: in float32 that makes their rounding, and so the features of near-silent bins, the same. Shapes: `T` samples,
`F` frames of one utterance, `N` packed frames of all, `S` samples of a frame, `K` frequency bins, `M` mel filters, `D` columns.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from hubcore.errors import OptionError
from hubcore.nn.filterbank_config import FilterbankConfig
from hubcore.nn.padded import Padded, PaddedWavs, standardized, take_rows, together, windows_padded
from hubcore.ragged import pack_on_grid

# On a CPU, so many frames and what is computed from them stay in the cache, which halves the time and bounds the memory
# for long recordings; a GPU wants as much as fits.
_FRAMES_AT_ONCE = {"cpu": 512}
_FRAMES_AT_ONCE_ELSEWHERE = 1 << 16
_PART = 1 << 14
"""Frames of which the statistics of columns are taken at a time, so that they are the same whether all features are there or
not; a multiple of the numbers above, or less than them."""


class Filterbank(nn.Module):
    """Waveforms to filter banks, cepstra or spectra, for a whole batch at once; it has no weights.

    Features are computed on the device of the waveforms and in their dtype (float16 and bfloat16 in float32, then rounded,
    and not under autocast), and gradients reach the waveforms. Frames, mirror images, derivatives and CMVN use an
    utterance's own samples only.

    Example:
        >>> from hubcore.nn import FilterbankConfig
        >>> (features,), counts = Filterbank(FilterbankConfig(num_mel_bins=40))([torch.randn(16000), torch.randn(8000)])
        >>> tuple(features.shape), counts
        ((146, 120), [98, 48])
    """

    def __init__(self, config: FilterbankConfig) -> None:
        super().__init__()
        self.config = config
        self._constants: dict[tuple[torch.device, torch.dtype], _Constants] = {}

    def forward(self, wavs: Sequence[Tensor], layers: Sequence[int] = (0,)) -> tuple[list[Tensor], Sequence[int]]:
        """Packed features `(N, D)`, once for each of `layers` (there is only 0), and the frames of each utterance."""
        if isinstance(wavs, PaddedWavs):
            features, counts = self.padded(wavs)
            return [features for _ in layers], counts
        rows = self.features(wavs)
        packed = rows[0] if len(rows) == 1 else torch.cat(rows)
        return [packed for _ in layers], [len(frames) for frames in rows]

    def features(self, wavs: Sequence[Tensor]) -> list[Tensor]:
        """The features of each waveform, `(F, D)`."""
        dtype = wavs[0].dtype
        with _no_autocast(wavs[0].device.type):
            if dtype.itemsize < 4:
                wavs = [wav.float() for wav in wavs]
            return [self.over_time(frames).to(dtype) for frames in self.frame_features(wavs)]

    def num_frames(self, samples: int) -> int:
        """The number of frames that so many samples give."""
        return self.config.num_frames(samples)

    def in_parts(self, wav: Tensor, dtype: torch.dtype | None = None) -> Iterator[Tensor]:
        """The features of one long waveform `(T,)`, `(F, D)` at a time, on a CPU equal bit for bit to those of `features`.

        What is kept of the whole waveform are its features without derivatives.

        Args:
            wav: the waveform.
            dtype: what is computed in, and the features' type; the waveform's if None.
        """
        dtype = dtype or wav.dtype
        config, count = self.config, self.config.num_frames(len(wav))
        reach = config.delta_order * (config.delta_window // 2)  # frames on each side that a derivative sees
        with _no_autocast(wav.device.type):
            signal = wav if config.snip_edges else self._mirror(wav, count)
            single: list[Tensor] = []
            for first in range(0, count, _PART):
                end = min(first + _PART, count)
                # The last part has the samples behind its last frame too, and so as many windows as all would have.
                last = len(signal) if end == count else (end - 1) * config.frame_shift + config.frame_length
                samples = signal[first * config.frame_shift : last].to(dtype if dtype.itemsize >= 4 else torch.float32)
                single += self._framed([samples], [end - first])
            base = torch.cat(single)  # (F, base_dim)
            del single, signal

        def orders() -> Iterator[Tensor]:
            for first in range(0, count, _PART):
                end, low = min(first + _PART, count), max(0, first - reach)
                yield self._with_deltas(base[low : end + reach])[first - low : end - low]

        if not config.cmvn:
            yield from (part.to(dtype) for part in orders())
            return
        mean, factor = column_statistics(orders, config.cmvn_epsilon, of_variance=config.cmvn_epsilon_of == "variance")
        yield from (((part - mean) * factor).to(dtype) for part in orders())

    def encode(self, features: Tensor, _counts: Sequence[int], layers: Sequence[int]) -> list[Tensor]:
        """The features themselves, once for each of `layers`."""
        return [features for _ in layers]

    def frame_features(self, wavs: Sequence[Tensor]) -> list[Tensor]:
        """Steps that need single frames only, all but derivatives and CMVN: `(F, base_dim)` for each waveform."""
        config = self.config
        counts = [config.num_frames(len(wav)) for wav in wavs]
        if not config.snip_edges:
            wavs = [self._mirror(wav, count) for wav, count in zip(wavs, counts, strict=True)]
        return self._framed(wavs, counts)

    def _framed(self, wavs: Sequence[Tensor], counts: Sequence[int]) -> list[Tensor]:
        """`frame_features` of waveforms that have their mirror images."""
        config = self.config
        signal, starts = pack_on_grid(wavs, config.frame_shift)
        if config.input_scale != 1.0:
            signal = signal * config.input_scale
        # Windows that straddle two utterances are computed too, and never used: fewer than three for each utterance.
        windows = signal.unfold(0, config.frame_length, config.frame_shift)  # (all windows, S), a view
        at_once = _FRAMES_AT_ONCE.get(signal.device.type, _FRAMES_AT_ONCE_ELSEWHERE)
        packed = torch.cat([self._compute(part) for part in torch.split(windows, at_once)])
        ends = [*starts[1:], len(packed)]
        sizes = [n for start, end, count in zip(starts, ends, counts, strict=True) for n in (count, end - start - count)]
        return list(torch.split(packed, sizes)[::2])

    def padded(self, wavs: PaddedWavs) -> tuple[Tensor, Padded]:
        """`features` of a padded batch, `(B x F, D)`, and the frames of each utterance."""
        config, samples, lengths = self.config, wavs.samples, wavs.counts.lengths
        if config.dither:
            raise OptionError("dither is noise, new at each call, and a graph for other programs has none.", "Set it to 0.")
        counts = Padded(
            (lengths + config.frame_offset).div(config.frame_shift, rounding_mode="floor"),
            (samples.shape[1] + config.frame_offset) // config.frame_shift,
        )
        if not config.snip_edges:  # each utterance goes on as its own mirror image
            end, skip = lengths[:, None], int(config.center)  # the end sample counts once, or twice
            reach = (counts.longest - 1) * config.frame_shift + config.frame_length + config.first_sample
            at = torch.arange(config.first_sample, reach, device=samples.device)[None]
            at = torch.where(at < 0, skip - 1 - at, torch.where(at < end, at, 2 * end - skip - 1 - at))
            samples = take_rows(samples, at.clamp(min=0).minimum(end - 1))
        if config.input_scale != 1.0:
            samples = samples * config.input_scale
        windows = windows_padded(samples, config.frame_length, config.frame_shift)
        orders = [counts.apart(self._compute(together(windows)))]
        reach = config.delta_window // 2
        at = torch.arange(-reach, counts.longest + reach, device=samples.device).clamp(min=0)
        for _ in range(config.delta_order):
            orders.append(_slopes(take_rows(orders[-1], at[None].minimum(counts.lengths[:, None] - 1)), reach))
        features = torch.cat(orders, 2)
        return together(self._normalized(features, counts) if config.cmvn else features), counts

    def _normalized(self, features: Tensor, counts: Padded) -> Tensor:
        """`normalize_columns` of each utterance of `(B, F, D)`."""
        centred, variance = standardized(features, counts)
        each, beyond = counts.lengths[:, None, None], ~counts.mask()[..., None]
        deviation = (variance * each / (each - 1).clamp(min=1)).sqrt()
        highest, lowest = features.masked_fill(beyond, -torch.inf), features.masked_fill(beyond, torch.inf)
        varies = highest.amax(1, keepdim=True) != lowest.amin(1, keepdim=True)
        return centred * _inverse(deviation, varies, self.config.cmvn_epsilon, self.config.cmvn_epsilon_of == "variance")

    def over_time(self, features: Tensor) -> Tensor:
        """`(F, D)` from the `(F, base_dim)` of one utterance: derivatives appended, columns normalised."""
        features = self._with_deltas(features)
        if not self.config.cmvn:
            return features
        return normalize_columns(features, self.config.cmvn_epsilon, of_variance=self.config.cmvn_epsilon_of == "variance")

    def _with_deltas(self, features: Tensor) -> Tensor:
        orders = [features]
        for _ in range(self.config.delta_order):
            orders.append(deltas(orders[-1], self.config.delta_window))
        return torch.cat(orders, dim=1) if len(orders) > 1 else features

    def _mirror(self, wav: Tensor, count: int) -> Tensor:
        config = self.config
        left = -config.first_sample
        right = (count - 1) * config.frame_shift + config.frame_length - left - len(wav)
        return mirror_edges(wav, left, max(right, 0), repeat_end=not config.center)

    def _compute(self, frames: Tensor) -> Tensor:
        """`(F, base_dim)` features of frames `(F, S)`."""
        config, constants = self.config, self._constants_for(frames)
        if config.dither:
            frames = frames + torch.randn_like(frames) * config.dither
        if config.remove_dc_offset:
            frames = frames - frames.mean(dim=1, keepdim=True)
        shaped = shape_frames(frames, constants.window, config.preemphasis, config.num_fft)
        spectrum = power_spectrum(shaped) if config.power == 2 else torch.fft.rfft(shaped).abs()  # (F, K)
        energies = spectrum if constants.filters is None else spectrum @ constants.filters
        features = self._log(energies, config.log_floor) if config.use_log else energies
        if constants.cepstra is not None:
            features = features @ constants.cepstra
        if constants.lifter is not None:
            features = features * constants.lifter
        if config.use_energy:
            energy = self._log_energy(frames if config.raw_energy else shaped)
            features = torch.cat([energy, features if config.kind == "fbank" else features[:, 1:]], dim=1)
        return features

    def _log_energy(self, frames: Tensor) -> Tensor:
        energy = frames.square().sum(dim=1, keepdim=True)
        return self._log(energy, max(self.config.log_floor, self.config.energy_floor))

    def _log(self, energies: Tensor, floor: float) -> Tensor:
        if self.config.log_offset:
            energies = energies + self.config.log_offset
        return energies.clamp(min=floor).log()

    def _constants_for(self, frames: Tensor) -> _Constants:
        key = (frames.device, frames.dtype)
        if key in self._constants:
            return self._constants[key]
        if torch.compiler.is_compiling():  # what is traced has no values that could be kept
            return _constants(self.config, frames.device, frames.dtype)
        # Made in inference mode they would be unusable in a later call that needs gradients.
        with torch.inference_mode(False), torch.device("cpu"):  # whatever default device was set
            self._constants[key] = _constants(self.config, frames.device, frames.dtype)
        return self._constants[key]


class LogMelWindow(nn.Module):
    """Log mel energies of a waveform in a window of fixed length, as Whisper's (Radford et al. 2023, section 2.2).

    The waveform is padded with zeros to the window. Energies are in decades; what lies more than 8 below the window's highest
    counts as 8 below; then `(x + 4) / 4`. Gradients reach the waveform. Frames of silence behind it are not computed.

    Args:
        num_mel_bins: mel filters, 80 in most checkpoints.

    Example:
        >>> LogMelWindow(80)(torch.randn(16000), frames=3000).shape
        torch.Size([3000, 80])
    """

    def __init__(self, num_mel_bins: int) -> None:
        super().__init__()
        self.filterbank = Filterbank(
            FilterbankConfig(
                num_mel_bins=num_mel_bins,
                window="hann_periodic",
                fft_size=400,
                low_freq_hz=0.0,
                mel_triangles="slaney",
                remove_dc_offset=False,
                preemphasis=0.0,
                snip_edges=False,
                center=True,
                log_floor=1e-10,
                delta_order=0,
                cmvn=False,
            )
        )

    def forward(self, wav: Tensor, frames: int) -> Tensor:
        """`(frames, M)` features of a waveform `(T,)`, of at most `frames` times 160 samples."""
        config = self.filterbank.config
        heard = len(wav) + config.frame_length // 2 + 1  # a frame whose centre lies behind this sees zeros only
        padded = min(heard + -heard % config.frame_shift, frames * config.frame_shift)
        (energies,) = self.filterbank.features([pad(wav, (0, padded - len(wav)))])
        energies = energies[:frames]  # the window's last frame is its end's mirror image, and dropped
        energies = pad(energies, (0, 0, 0, frames - len(energies)), value=math.log(config.log_floor))
        decades = energies / math.log(10)
        return (torch.maximum(decades, decades.amax() - 8) + 4) / 4

    def padded(self, wavs: PaddedWavs) -> tuple[Tensor, Padded]:
        """`forward` for a padded batch of waveforms that fill their windows, `(B x F, M)`; and the frames of each."""
        features, counts = self.filterbank.padded(wavs)
        rows = counts.apart(features)
        counts = Padded(counts.lengths - 1, counts.longest - 1)  # the last frame, see `forward`
        decades = rows.narrow(1, 0, counts.longest) / math.log(10)
        highest = decades.masked_fill(~counts.mask()[..., None], -torch.inf).amax((1, 2), keepdim=True)
        return together((torch.maximum(decades, highest - 8) + 4) / 4), counts


class _Constants(NamedTuple):
    """Tensors of a config, on one device and in one dtype."""

    window: Tensor
    filters: Tensor | None
    cepstra: Tensor | None
    lifter: Tensor | None


def _constants(config: FilterbankConfig, device: torch.device, dtype: torch.dtype) -> _Constants:
    filters = cepstra = factors = None
    if config.kind != "spectrogram":
        build = {"mel": mel_filters, "hertz": mel_filters_in_hertz, "slaney": slaney_mel_filters}[config.mel_triangles]
        edges = (config.low_freq_hz, config.highest_hz)
        filters = build(config.num_mel_bins, config.num_fft, config.sample_rate, *edges, dtype).to(device)
    if config.kind == "mfcc":
        cepstra = cepstral_matrix(config.num_mel_bins, config.num_ceps, dtype).to(device)
        if config.cepstral_lifter:
            factors = lifter(config.num_ceps, config.cepstral_lifter, dtype).to(device)
    window = window_function(config.window, config.frame_length, dtype).to(device)
    return _Constants(window, filters, cepstra, factors)


def window_function(name: str, length: int, dtype: torch.dtype) -> Tensor:
    """`(S,)` weights of the samples of a frame of `length`, by one of the names that `FilterbankConfig.window` has.

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
    return _triangles(corners, num_fft, sample_rate)


def slaney_mel_filters(count: int, num_fft: int, sample_rate: int, low_hz: float, high_hz: float, dtype: torch.dtype) -> Tensor:
    """`(K, M)` triangular filters whose sides are straight on the hertz axis, corners by Slaney's mel formula, area 1.

    Slaney's mel is linear up to 1 kHz and logarithmic above. librosa: `filters.mel`, whose defaults these are.

    Example:
        >>> filters = slaney_mel_filters(80, 400, 16000, 0.0, 8000.0, torch.float32)
        >>> filters.shape, round(float(filters[:, 79].sum()) * 40, 2)
        (torch.Size([201, 80]), 1.0)
    """
    step = math.log(6.4) / 27  # 27 mel from 1 kHz to 6.4 kHz
    low, high = (hz * 3 / 200 if hz < 1000 else 15 + math.log(hz / 1000) / step for hz in (low_hz, high_hz))
    mel = torch.linspace(low, high, count + 2, dtype=torch.float64)
    corners = torch.where(mel < 15, mel * 200 / 3, 1000 * ((mel - 15) * step).exp())
    return (_triangles(corners, num_fft, sample_rate) * 2 / (corners[2:] - corners[:-2])).to(dtype)


def _triangles(corners: Tensor, num_fft: int, sample_rate: int) -> Tensor:
    """`(K, M)` filters of height 1, each from one of the `M + 2` corners in hertz to the next but one."""
    top = (num_fft // 2) * sample_rate / num_fft
    distance = corners - torch.linspace(0, top, num_fft // 2 + 1, dtype=corners.dtype)[:, None]
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
    """`(F, width)` frames `(F, S)` pre-emphasised, windowed, and filled up with zeros.

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
    return torch.cat([first, rest, rest.new_zeros(rest.shape[0], fill)], dim=1)


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
    reach = window // 2
    return _slopes(torch.cat([features[:1].expand(reach, -1), features, features[-1:].expand(reach, -1)]), reach)


def _slopes(padded: Tensor, reach: int) -> Tensor:
    """`deltas` of `(..., F, D)` from `(..., reach + F + reach, D)`."""
    frames = padded.shape[-2] - 2 * reach
    # Differences first: a column that does not change then has a slope of exactly 0.
    spans = [padded.narrow(-2, reach + k, frames) - padded.narrow(-2, reach - k, frames) for k in range(1, reach + 1)]
    slope = spans[0]
    for k, span in enumerate(spans[1:], start=2):
        slope = slope + k * span
    return slope / (reach * (reach + 1) * (2 * reach + 1) / 3)


def normalize_columns(features: Tensor, epsilon: float, *, of_variance: bool = False) -> Tensor:
    """`(F, D)` with mean 0 and unbiased standard deviation 1 in every column of `(F, D)`; a constant column becomes 0.

    `epsilon` is added to the deviation, or to the variance before its root.

    Example:
        >>> normalize_columns(torch.tensor([[1.0, 5.0], [2.0, 5.0], [3.0, 5.0]]), 1e-10).tolist()
        [[-1.0, 0.0], [0.0, 0.0], [1.0, 0.0]]
    """
    mean, factor = column_statistics(lambda: features.split(_PART), epsilon, of_variance=of_variance)
    return (features - mean) * factor


def column_statistics(
    parts: Callable[[], Iterable[Tensor]], epsilon: float, *, of_variance: bool = False
) -> tuple[Tensor, Tensor]:
    """The means `(D,)` of the columns of features, and what `normalize_columns` multiplies their rest with.

    `parts` gives the features, some frames at a time, and is called twice.

    Example:
        >>> column_statistics(lambda: torch.tensor([[1.0, 5.0], [2.0, 5.0], [3.0, 5.0]]).split(2), 1e-10)
        (tensor([2., 5.]), tensor([1., 0.]))
    """
    sums, highest, lowest, frames = [], [], [], 0
    for part in parts():
        values = part.detach()
        frames += len(part)
        sums.append(part.sum(0))
        highest.append(values.amax(0))
        lowest.append(values.amin(0))
    mean = (sums[0] if len(sums) == 1 else torch.stack(sums).sum(0)) / frames
    norms = [torch.linalg.vector_norm(part - mean, dim=0) for part in parts()]
    norm = norms[0] if len(norms) == 1 else torch.linalg.vector_norm(torch.stack(norms), dim=0)
    deviation = norm / math.sqrt(max(frames - 1, 1))
    varies = torch.stack(highest).amax(0) != torch.stack(lowest).amin(0)
    return mean, _inverse(deviation, varies, epsilon, of_variance)


def _inverse(deviation: Tensor, varies: Tensor, epsilon: float, of_variance: bool) -> Tensor:
    """The factor of centred columns; 0 for a constant one, whose rounded mean need not cancel exactly: noise, if divided."""
    divisor = (deviation.square() + epsilon).sqrt() if of_variance else deviation + epsilon
    return torch.where(varies, 1.0 / divisor, 0.0)


def _no_autocast(device: str) -> AbstractContextManager[object]:
    """A context without autocast, which would take the mel product to half precision, where quiet energies underflow to 0."""
    return torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext()
