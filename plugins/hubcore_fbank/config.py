"""What the fbank family can be asked to compute: `FbankConfig`, and the six named ones in `CONFIGS`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from types import MappingProxyType
from typing import Any, Literal

from hubcore.card import UpstreamShape
from hubcore.errors import OptionError

FLOAT32_EPSILON = 2.0**-23

KINDS = ("fbank", "mfcc", "spectrogram")
WINDOWS = ("povey", "hamming", "hanning", "blackman", "rectangular", "hann_periodic")
MEL_TRIANGLES = ("mel", "hertz")

_SMALLEST = 1e-30  # comfortably above what float32 rounds to 0

_WITHOUT_EFFECT = {
    "fbank": ("num_ceps", "cepstral_lifter"),
    "mfcc": ("use_log",),
    "spectrogram": ("num_mel_bins", "low_freq_hz", "high_freq_hz", "mel_triangles", "num_ceps", "cepstral_lifter"),
}


@dataclass(frozen=True)
class FbankConfig:
    """Every step from waveform to feature, in the order in which the steps are taken.

    The defaults are `CONFIGS["fbank"]`. Lengths in milliseconds become whole samples by cutting off the fraction, as in
    Kaldi. An impossible value, or one for a field that the chosen `kind` never reads, is an `OptionError`.

    Example:
        >>> from dataclasses import replace
        >>> config = replace(CONFIGS["fbank"], num_mel_bins=40, cmvn=False)
        >>> config.feature_dim, config.num_frames(16000), replace(config, snip_edges=False).num_frames(16000)
        (120, 98, 100)
    """

    kind: Literal["fbank", "mfcc", "spectrogram"] = "fbank"
    """Log mel energies, their cepstra, or the log spectrum itself."""
    sample_rate: int = 16000
    """Samples per second of the waveforms, in Hz. kaldi: `--sample-frequency`."""
    input_scale: float = 1.0
    """What samples are multiplied by. 1 for full scale at 1.0, as s3prl; 32768 gives the numbers of Kaldi's own tools."""
    frame_length_ms: float = 25.0
    """Length of a frame. kaldi: `--frame-length`."""
    frame_shift_ms: float = 10.0
    """From the start of one frame to the next. kaldi: `--frame-shift`."""
    snip_edges: bool = True
    """Only frames that lie wholly inside the waveform. If False (and not `center`), frame f is centred at `(f + 1/2)`
    shifts and the waveform is mirrored at its ends, the end sample repeated. kaldi: `--snip-edges`."""
    center: bool = False
    """Frame f is centred at `f` shifts and the waveform mirrored at its ends, the end sample not repeated: the first and
    last frame are half mirror image. Needs `snip_edges=False`. torch.stft: `center=True, pad_mode="reflect"`."""
    dither: float = 0.0
    """Standard deviation of noise added to each frame, in units of the scaled samples. 0 means no noise; anything else
    gives new numbers at each call (from torch's generator), the only field that does. kaldi: `--dither`."""
    remove_dc_offset: bool = True
    """Subtract from each frame its mean. kaldi: `--remove-dc-offset`."""
    preemphasis: float = 0.97
    """c in `x[n] - c x[n-1]`, within each frame, the sample before the first being the first. kaldi:
    `--preemphasis-coefficient`."""
    window: Literal["povey", "hamming", "hanning", "blackman", "rectangular", "hann_periodic"] = "povey"
    """Shape of a frame: Kaldi's (povey is hanning to the power of 0.85; all are symmetric), or torch.hann_window's
    periodic default. kaldi: `--window-type`."""
    fft_size: int | None = None
    """Samples of the Fourier transform, zeros after the frame's own; the next power of two if None. kaldi:
    `--round-to-power-of-two`."""
    power: float = 2.0
    """2 for the power spectrum, 1 for the magnitude. kaldi: `--use-power`."""
    num_mel_bins: int = 80
    """Number of mel filters. kaldi: `--num-mel-bins`."""
    low_freq_hz: float = 20.0
    """Where the lowest filter starts, in Hz. kaldi: `--low-freq`."""
    high_freq_hz: float = 0.0
    """Where the highest filter ends, in Hz; zero or less counts down from half the sample rate. kaldi: `--high-freq`."""
    mel_triangles: Literal["mel", "hertz"] = "mel"
    """On which axis the sides of the triangular filters are straight: mel as in Kaldi, hertz as in torchaudio's
    `MelScale` (HTK formula, no normalisation)."""
    use_log: bool = True
    """Natural logarithm of the energies. kaldi: `--use-log-fbank`."""
    log_floor: float = FLOAT32_EPSILON
    """Energies below it count as it, before the logarithm; Kaldi's is float32's epsilon, for every dtype."""
    log_offset: float = 0.0
    """Added to energies before the logarithm."""
    use_energy: bool = False
    """With the log energy of the frame: as one more column in front (fbank), or in place of the first column (mfcc,
    spectrogram). kaldi: `--use-energy`."""
    raw_energy: bool = True
    """That energy is taken before pre-emphasis and window, not after. kaldi: `--raw-energy`."""
    energy_floor: float = 1.0
    """That energy counts as at least this (0: only `log_floor` holds). kaldi: `--energy-floor`."""
    num_ceps: int = 13
    """Number of cepstral coefficients. kaldi: `--num-ceps`."""
    cepstral_lifter: float = 22.0
    """Q in the factor `1 + Q/2 sin(pi i / Q)` of coefficient i; 0 for no factor. kaldi: `--cepstral-lifter`."""
    delta_order: int = 2
    """How many times derivatives over time are appended: 2 for deltas and their deltas, tripling the width."""
    delta_window: int = 5
    """Frames that a derivative is fitted to (odd); beyond its ends an utterance repeats its end frame."""
    cmvn: bool = True
    """Bring every column to mean 0 and (unbiased) standard deviation 1 over the frames of its own utterance. A column that
    does not change, as in an utterance of one frame, becomes 0."""
    cmvn_epsilon: float = 1e-10
    """Added to that standard deviation."""

    def __post_init__(self) -> None:
        _check_types(self)
        _check_values(self)
        for name in _WITHOUT_EFFECT[self.kind]:
            default = type(self).__dataclass_fields__[name].default
            if getattr(self, name) != default:
                raise OptionError(
                    f"{name} is {getattr(self, name)!r} for the kind {self.kind!r}. That kind does not read it. "
                    f"Leave it at {default!r}, or choose another kind."
                )

    @property
    def frame_length(self) -> int:
        """Length of a frame in samples."""
        return _samples(self.frame_length_ms, self.sample_rate)

    @property
    def frame_shift(self) -> int:
        """From one frame to the next in samples."""
        return _samples(self.frame_shift_ms, self.sample_rate)

    @property
    def num_fft(self) -> int:
        """Samples of the Fourier transform."""
        return 1 << (self.frame_length - 1).bit_length() if self.fft_size is None else self.fft_size

    @property
    def highest_hz(self) -> float:
        """Where the highest mel filter ends, in Hz, `high_freq_hz` being resolved."""
        return self.high_freq_hz if self.high_freq_hz > 0 else self.sample_rate / 2 + self.high_freq_hz

    @property
    def base_dim(self) -> int:
        """Columns before derivatives are appended."""
        if self.kind == "fbank":
            return self.num_mel_bins + self.use_energy
        return self.num_ceps if self.kind == "mfcc" else self.num_fft // 2 + 1

    @property
    def feature_dim(self) -> int:
        """Columns of the features, the `D` of `(B, F, D)`."""
        return self.base_dim * (1 + self.delta_order)

    @property
    def upstream_shape(self) -> UpstreamShape:
        """What the upstream of this config will have: one hidden state."""
        return UpstreamShape(("features",), (self.feature_dim,), self.frame_shift, self.sample_rate)

    @property
    def first_frame(self) -> int:
        """The sample at which frame 0 starts: 0, or below 0 where it starts in the mirror image."""
        if self.snip_edges:
            return 0
        return -(self.frame_length // 2) + (0 if self.center else self.frame_shift // 2)

    @property
    def min_samples(self) -> int:
        """Fewest samples that give a frame without mirroring more than the waveform holds."""
        if self.snip_edges:
            return self.frame_length
        return self.frame_length // 2 + 1 if self.center else (self.frame_length + 1) // 2

    def num_frames(self, samples: int) -> int:
        """The number of frames that `samples` samples give, whatever their values.

        Example:
            >>> [CONFIGS[name].num_frames(16000) for name in ("fbank", "mel")]
            [98, 101]
        """
        if samples < self.min_samples:
            return 0
        if self.snip_edges:
            return (samples - self.frame_length) // self.frame_shift + 1
        if self.center:
            return (samples - self.frame_length % 2) // self.frame_shift + 1
        return (samples + self.frame_shift // 2) // self.frame_shift


def _samples(milliseconds: float, sample_rate: int) -> int:
    return int(sample_rate * milliseconds / 1000)


def _check_types(config: FbankConfig) -> None:
    for field in fields(config):
        value: Any = getattr(config, field.name)
        if field.name == "fft_size":
            valid, wanted = value is None or _is_int(value), "an integer or None"
        elif isinstance(field.default, bool):
            valid, wanted = isinstance(value, bool), "True or False"
        elif isinstance(field.default, int):
            valid, wanted = _is_int(value), "an integer"
        elif isinstance(field.default, float):
            number = _is_int(value) or isinstance(value, float)
            valid, wanted = number and math.isfinite(value), "a finite number"
        else:
            valid, wanted = isinstance(value, str), "a name"
        _require(valid, field.name, value, wanted)


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _check_values(config: FbankConfig) -> None:
    c = config
    _require(c.kind in KINDS, "kind", c.kind, f"one of {', '.join(KINDS)}")
    _require(c.window in WINDOWS, "window", c.window, f"one of {', '.join(WINDOWS)}")
    _require(c.mel_triangles in MEL_TRIANGLES, "mel_triangles", c.mel_triangles, f"one of {', '.join(MEL_TRIANGLES)}")
    _require(c.sample_rate > 0, "sample_rate", c.sample_rate, "above 0")
    _require(c.input_scale > 0, "input_scale", c.input_scale, "above 0")
    _require(c.frame_length >= 2, "frame_length_ms", c.frame_length_ms, "at least two samples long")
    _require(
        1 <= c.frame_shift <= c.frame_length,
        "frame_shift_ms",
        c.frame_shift_ms,
        f"at least one sample and at most frame_length_ms ({c.frame_length_ms})",
    )
    _require(not (c.center and c.snip_edges), "center", c.center, "False while snip_edges is True")
    _require(
        c.num_fft >= c.frame_length and c.num_fft % 2 == 0,
        "fft_size",
        c.fft_size,
        f"even and at least the frame's {c.frame_length} samples",
    )
    _require(c.dither >= 0, "dither", c.dither, "0 or above")
    _require(0 <= c.preemphasis <= 1, "preemphasis", c.preemphasis, "from 0 to 1")
    _require(c.power in (1, 2), "power", c.power, "1 or 2")
    _require(c.num_mel_bins >= 1, "num_mel_bins", c.num_mel_bins, "at least 1")
    nyquist = c.sample_rate / 2
    _require(0 <= c.low_freq_hz < nyquist, "low_freq_hz", c.low_freq_hz, f"from 0 to below {nyquist:g} Hz")
    _require(
        c.low_freq_hz < c.highest_hz <= nyquist,
        "high_freq_hz",
        c.high_freq_hz,
        f"between low_freq_hz ({c.low_freq_hz:g}) and {nyquist:g} Hz, or zero or less to count down from there",
    )
    _require(c.log_floor >= 0, "log_floor", c.log_floor, "0 or above")
    _require(c.log_offset >= 0, "log_offset", c.log_offset, "0 or above")
    _require(
        c.log_floor + c.log_offset >= _SMALLEST,
        "log_floor",
        c.log_floor,
        f"at least {_SMALLEST:g} unless log_offset is: the logarithm of 0 is infinite",
    )
    _require(c.energy_floor >= 0, "energy_floor", c.energy_floor, "0 or above")
    _require(
        c.kind != "mfcc" or 1 <= c.num_ceps <= c.num_mel_bins,
        "num_ceps",
        c.num_ceps,
        f"from 1 to num_mel_bins ({c.num_mel_bins})",
    )
    _require(c.cepstral_lifter >= 0, "cepstral_lifter", c.cepstral_lifter, "0 or above")
    _require(c.delta_order >= 0, "delta_order", c.delta_order, "0 or above")
    _require(c.delta_window >= 3 and c.delta_window % 2 == 1, "delta_window", c.delta_window, "odd and at least 3")
    _require(c.cmvn_epsilon >= _SMALLEST, "cmvn_epsilon", c.cmvn_epsilon, f"at least {_SMALLEST:g}")


def _require(condition: bool, name: str, value: object, wanted: str) -> None:
    if not condition:
        raise OptionError(f"{name} is {value!r}. It must be {wanted}. Change it in the FbankConfig or the option.")


_FBANK = FbankConfig()
_MEL = FbankConfig(
    snip_edges=False,
    center=True,
    remove_dc_offset=False,
    preemphasis=0.0,
    window="hann_periodic",
    fft_size=400,
    low_freq_hz=0.0,
    mel_triangles="hertz",
    log_floor=0.0,
    log_offset=1e-10,
    delta_order=0,
)

CONFIGS: Mapping[str, FbankConfig] = MappingProxyType(
    {
        "fbank": _FBANK,
        "fbank_no_cmvn": replace(_FBANK, cmvn=False),
        "mfcc": replace(_FBANK, kind="mfcc", num_mel_bins=23),
        "spectrogram": replace(_FBANK, kind="spectrogram", use_energy=True, delta_order=0),
        "mel": _MEL,
        "linear": replace(_MEL, kind="spectrogram", low_freq_hz=_FBANK.low_freq_hz, mel_triangles="mel"),
    }
)
"""The configs that s3prl's hub knows by these names, and its numbers; read-only."""
