"""Every knob of `FbankConfig` against a plain float64 transcription of Kaldi's definitions, one frame after the other."""

from __future__ import annotations

import math
from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from hubcore.nn import LogMelWindow
from hubcore.nn.filterbank import slaney_mel_filters
from hubcore_fbank import CONFIGS, FbankConfig, FbankUpstream

WINDOW_FORMULAS = {
    "hanning": lambda n, size: 0.5 - 0.5 * math.cos(2 * math.pi * n / (size - 1)),
    "povey": lambda n, size: (0.5 - 0.5 * math.cos(2 * math.pi * n / (size - 1))) ** 0.85,
    "hamming": lambda n, size: 0.54 - 0.46 * math.cos(2 * math.pi * n / (size - 1)),
    "blackman": lambda n, size: (
        0.42 - 0.5 * math.cos(2 * math.pi * n / (size - 1)) + 0.08 * math.cos(4 * math.pi * n / (size - 1))
    ),
    "rectangular": lambda n, size: 1.0,
    "hann_periodic": lambda n, size: 0.5 - 0.5 * math.cos(2 * math.pi * n / size),
}


def reference(wav: np.ndarray, c: FbankConfig) -> np.ndarray:
    size, shift = int(c.sample_rate * c.frame_length_ms / 1000), int(c.sample_rate * c.frame_shift_ms / 1000)
    wav = wav * c.input_scale
    if c.snip_edges:
        starts = range(0, len(wav) - size + 1, shift)
    elif c.center:
        starts = range(-(size // 2), len(wav) - size % 2 + 1 - size // 2, shift)
    else:
        starts = [f * shift + shift // 2 - size // 2 for f in range((len(wav) + shift // 2) // shift)]
    rows = [frame_reference([sample(wav, at, c) for at in range(s, s + size)], c) for s in starts]
    orders = [np.array(rows)]
    for _ in range(c.delta_order):
        orders.append(delta_reference(orders[-1], c.delta_window // 2))
    features = np.concatenate(orders, axis=1)
    if c.cmvn:
        deviation, variance = features.std(0, ddof=1), features.var(0, ddof=1)
        of_variance = c.cmvn_epsilon_of == "variance"
        divisor = np.sqrt(variance + c.cmvn_epsilon) if of_variance else deviation + c.cmvn_epsilon
        features = (features - features.mean(0)) / divisor
    return features


def sample(wav: np.ndarray, at: int, c: FbankConfig) -> float:
    repeat = 0 if c.center else 1
    if at < 0:
        return wav[-at - repeat]
    return wav[at] if at < len(wav) else wav[2 * len(wav) - 2 + repeat - at]


def frame_reference(frame: list[float], c: FbankConfig) -> np.ndarray:
    x = np.array(frame)
    if c.remove_dc_offset:
        x = x - x.mean()
    raw_energy = (x**2).sum()
    x = np.array([x[n] - c.preemphasis * x[max(n - 1, 0)] for n in range(len(x))])
    x = x * [WINDOW_FORMULAS[c.window](n, len(x)) for n in range(len(x))]
    num_fft = c.fft_size or 2 ** math.ceil(math.log2(len(x)))
    energies = np.abs(np.fft.rfft(x, num_fft)) ** c.power
    if c.kind != "spectrogram":
        hertz = np.arange(len(energies)) * c.sample_rate / num_fft
        energies = np.array([(energies * weights).sum() for weights in filters_reference(hertz, c)])
    features = np.log(np.maximum(energies + c.log_offset, c.log_floor)) if c.use_log else energies
    if c.kind == "mfcc":
        features = cepstra_reference(features, c)
    if c.use_energy:
        energy = (raw_energy if c.raw_energy else (x**2).sum()) + c.log_offset
        log_energy = math.log(max(energy, c.log_floor, c.energy_floor))
        features = np.concatenate([[log_energy], features if c.kind == "fbank" else features[1:]])
    return features


def filters_reference(hertz: np.ndarray, c: FbankConfig) -> list[np.ndarray]:
    high_hz = c.high_freq_hz if c.high_freq_hz > 0 else c.sample_rate / 2 + c.high_freq_hz
    mel, inverse = (lambda f: math.log(1 + f / 700)), (lambda m: 700 * (math.exp(m) - 1))
    if c.mel_triangles == "slaney":
        mel = lambda f: 0.015 * f if f < 1000 else 15 + 27 * math.log(f / 1000, 6.4)  # noqa: E731
        inverse = lambda m: m / 0.015 if m < 15 else 1000 * 6.4 ** ((m - 15) / 27)  # noqa: E731
    corners = np.linspace(mel(c.low_freq_hz), mel(high_hz), c.num_mel_bins + 2)
    if c.mel_triangles == "mel":
        axis = np.array([mel(f) for f in hertz])
    else:
        axis, corners = hertz, np.array([inverse(m) for m in corners])
    return [
        np.maximum(np.minimum((axis - a) / (b - a), (d - axis) / (d - b)), 0)
        * (2 / (d - a) if c.mel_triangles == "slaney" else 1)
        for a, b, d in zip(corners, corners[1:], corners[2:], strict=False)
    ]


def cepstra_reference(log_mel: np.ndarray, c: FbankConfig) -> np.ndarray:
    count = len(log_mel)
    ceps = []
    for i in range(c.num_ceps):
        scale = math.sqrt((1 if i == 0 else 2) / count)
        total = sum(log_mel[m] * math.cos(math.pi * i * (m + 0.5) / count) for m in range(count))
        lift = 1 + c.cepstral_lifter / 2 * math.sin(math.pi * i / c.cepstral_lifter) if c.cepstral_lifter else 1
        ceps.append(scale * total * lift)
    return np.array(ceps)


def delta_reference(rows: np.ndarray, reach: int) -> np.ndarray:
    last = len(rows) - 1
    weight = 2 * sum(k * k for k in range(1, reach + 1))
    return np.array(
        [sum(k * (rows[min(f + k, last)] - rows[max(f - k, 0)]) for k in range(1, reach + 1)) / weight for f in range(last + 1)]
    )


VARIANTS = {
    **{name: (name, {}) for name in CONFIGS},
    **{f"window {window}": ("fbank", {"window": window}) for window in WINDOW_FORMULAS},
    "mirrored": ("fbank", {"snip_edges": False}),
    "mirrored, odd lengths": ("fbank", {"snip_edges": False, "frame_length_ms": 25.07, "frame_shift_ms": 9.95}),
    "centred, not normalised": ("mel", {"cmvn": False}),
    "centred, odd length": ("mel", {"frame_length_ms": 25.07, "fft_size": 512}),
    "8 kHz": ("fbank", {"sample_rate": 8000, "num_mel_bins": 23}),
    "fraction of a sample": ("fbank", {"sample_rate": 11025}),
    "40 filters, 100 to 7600 Hz": ("fbank", {"num_mel_bins": 40, "low_freq_hz": 100.0, "high_freq_hz": -400.0}),
    "upper edge": ("mel", {"num_mel_bins": 20, "low_freq_hz": 60.0, "high_freq_hz": 3800.0}),
    "Slaney's filters": ("mel", {"mel_triangles": "slaney", "low_freq_hz": 500.0, "num_mel_bins": 40}),
    "no pre-emphasis": ("fbank", {"preemphasis": 0.0}),
    "offset kept": ("fbank", {"remove_dc_offset": False}),
    "scaled": ("fbank", {"input_scale": 32768.0}),
    "magnitude": ("fbank", {"power": 1.0}),
    "longer transform": ("spectrogram", {"fft_size": 1024}),
    "linear energies": ("fbank", {"use_log": False}),
    "floor": ("fbank", {"log_floor": 0.5}),
    "offset": ("fbank", {"log_offset": 0.5}),
    "energy in front": ("fbank", {"use_energy": True, "energy_floor": 0.0}),
    "windowed energy": ("fbank", {"use_energy": True, "raw_energy": False, "energy_floor": 0.0}),
    "energy in mfcc": ("mfcc", {"use_energy": True, "energy_floor": 2.0}),
    "all cepstra, no lifter": ("mfcc", {"num_ceps": 23, "cepstral_lifter": 0.0}),
    "lifter": ("mfcc", {"cepstral_lifter": 10.0}),
    "one derivative over 9 frames": ("fbank", {"delta_order": 1, "delta_window": 9}),
    "three derivatives": ("mfcc", {"delta_order": 3, "delta_window": 3}),
    "cmvn epsilon": ("fbank", {"cmvn_epsilon": 1.0}),
    "cmvn epsilon of the variance": ("fbank", {"cmvn_epsilon": 1.0, "cmvn_epsilon_of": "variance"}),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_float64_features_equal_the_reference(variant):
    name, options = VARIANTS[variant]
    config = replace(CONFIGS[name], **options)
    generator = torch.Generator().manual_seed(7)
    wavs = [torch.randn(n, generator=generator, dtype=torch.float64) * 0.3 + 0.1 for n in (1777, 1440)]
    out = FbankUpstream(config)(wavs)
    assert out.last_hidden_state.dtype == torch.float64
    for index, wav in enumerate(wavs):
        expected = reference(wav.numpy(), config)
        assert out.lengths[index] == len(expected) == config.num_frames(len(wav))
        actual = out.last_hidden_state[index, : len(expected)]
        torch.testing.assert_close(actual, torch.from_numpy(expected), rtol=1e-8, atol=1e-8)
        assert actual.shape[1] == config.feature_dim


def test_every_knob_is_varied():
    varied = {option for _, options in VARIANTS.values() for option in options} | {"kind", "center", "cmvn"}
    assert varied | {"dither"} == {field.name for field in fields(FbankConfig)}


def window_reference(wav: torch.Tensor, frames: int, filters: torch.Tensor) -> torch.Tensor:
    """Whisper's features in torch's own terms: the whole window, padded and transformed, its last frame dropped."""
    window = torch.hann_window(400, dtype=torch.float64)
    padded = torch.nn.functional.pad(wav, (0, 160 * frames - len(wav)))
    spectrum = torch.stft(padded, 400, 160, window=window, return_complex=True)[:, :-1].abs().square()
    decades = (spectrum.t() @ filters).clamp(min=1e-10).log10()
    return (torch.maximum(decades, decades.max() - 8) + 4) / 4


@pytest.mark.parametrize("samples", [1, 160, 199, 201, 401, 4359, 4400, 4440, 4599, 4758, 4759, 4799, 4800])
@pytest.mark.parametrize("silent", [False, True])
def test_a_log_mel_window_is_that_of_the_padded_waveform(samples: int, silent: bool) -> None:
    torch.manual_seed(samples)
    wav = torch.randn(samples, dtype=torch.float64) * (not silent)
    wav.requires_grad_()
    features = LogMelWindow(20)(wav, frames=30)
    wanted = window_reference(wav, 30, slaney_mel_filters(20, 400, 16000, 0.0, 8000.0, torch.float64))
    torch.testing.assert_close(features, wanted, rtol=1e-9, atol=1e-9)
    if not silent:
        ours, theirs = (torch.autograd.grad(x.square().sum(), wav)[0] for x in (features, wanted))
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-9)
