"""`FilterbankConfig`: every step from waveform to filter banks, cepstra or spectra. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from hubcore.card import UpstreamShape
from hubcore.fields import Above, AtLeast, Between, Rate, Size, check_fields, require

FLOAT32_EPSILON = 2.0**-23
SMALLEST = 1e-30  # comfortably above what float32 rounds to 0

Positive = Annotated[float, Above(0)]
NotNegative = Annotated[float, AtLeast(0)]

_WITHOUT_EFFECT = {
    "fbank": ("num_ceps", "cepstral_lifter"),
    "mfcc": ("use_log",),
    "spectrogram": ("num_mel_bins", "low_freq_hz", "high_freq_hz", "mel_triangles", "num_ceps", "cepstral_lifter"),
}


@dataclass(frozen=True)
class FilterbankConfig:
    """Every step from waveform to feature, in the order in which the steps are taken.

    The defaults are Kaldi's filter banks as s3prl computes them. Lengths in milliseconds become whole samples by cutting
    off the fraction, as in Kaldi. An impossible value, or one for a field that the chosen `kind` never reads, is an
    `OptionError`.

    Example:
        >>> from dataclasses import replace
        >>> config = FilterbankConfig(num_mel_bins=40, cmvn=False)
        >>> config.feature_dim, config.num_frames(16000), replace(config, snip_edges=False).num_frames(16000)
        (120, 98, 100)
    """

    kind: Literal["fbank", "mfcc", "spectrogram"] = "fbank"
    """Log mel energies, their cepstra, or the log spectrum itself."""
    sample_rate: Rate = 16000
    """Samples per second of the waveforms, in Hz. kaldi: `--sample-frequency`."""
    input_scale: Positive = 1.0
    """Factor of samples. 1 for full scale at 1.0, as s3prl; 32768 gives the numbers of Kaldi's own tools."""
    frame_length_ms: Positive = 25.0
    """Length of a frame. kaldi: `--frame-length`."""
    frame_shift_ms: Positive = 10.0
    """From the start of one frame to the next. kaldi: `--frame-shift`."""
    snip_edges: bool = True
    """Only frames that lie wholly inside the waveform. If False (and not `center`), frame f is centred at `(f + 1/2)`
    shifts and the waveform is mirrored at its ends, the end sample repeated. kaldi: `--snip-edges`."""
    center: bool = False
    """Frame f is centred at `f` shifts and the waveform mirrored at its ends, the end sample not repeated: the first and
    last frame are half mirror image. Needs `snip_edges=False`. torch.stft: `center=True, pad_mode="reflect"`."""
    dither: NotNegative = 0.0
    """Standard deviation of noise added to each frame, in units of the scaled samples. 0 means no noise; anything else
    gives new numbers at each call (from torch's generator), the only field that does. kaldi: `--dither`."""
    remove_dc_offset: bool = True
    """Subtract from each frame its mean. kaldi: `--remove-dc-offset`."""
    preemphasis: Annotated[float, Between(0, 1)] = 0.97
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
    num_mel_bins: Size = 80
    """Number of mel filters. kaldi: `--num-mel-bins`."""
    low_freq_hz: NotNegative = 20.0
    """Start of the lowest filter, in Hz. kaldi: `--low-freq`."""
    high_freq_hz: float = 0.0
    """End of the highest filter, in Hz; zero or less counts down from half the sample rate. kaldi: `--high-freq`."""
    mel_triangles: Literal["mel", "hertz", "slaney"] = "mel"
    """On which axis the sides of the triangular filters are straight: mel as in Kaldi, hertz as in torchaudio's
    `MelScale` (HTK formula, height 1). "slaney" is hertz with Slaney's formula and area 1, as in librosa and Whisper."""
    use_log: bool = True
    """Natural logarithm of the energies. kaldi: `--use-log-fbank`."""
    log_floor: NotNegative = FLOAT32_EPSILON
    """Energies below it count as it, before the logarithm; Kaldi's is float32's epsilon, for every dtype."""
    log_offset: NotNegative = 0.0
    """Added to energies before the logarithm."""
    use_energy: bool = False
    """With the log energy of the frame: as one more column in front (fbank), or in place of the first column (mfcc,
    spectrogram). kaldi: `--use-energy`."""
    raw_energy: bool = True
    """That energy is taken before pre-emphasis and window, not after. kaldi: `--raw-energy`."""
    energy_floor: NotNegative = 1.0
    """That energy counts as at least this (0: only `log_floor` holds). kaldi: `--energy-floor`."""
    num_ceps: Size = 13
    """Number of cepstral coefficients. kaldi: `--num-ceps`."""
    cepstral_lifter: NotNegative = 22.0
    """Q in the factor `1 + Q/2 sin(pi i / Q)` of coefficient i; 0 for no factor. kaldi: `--cepstral-lifter`."""
    delta_order: Annotated[int, AtLeast(0)] = 2
    """Order of the derivatives over time that are appended: 2 for deltas and their deltas, tripling the width."""
    delta_window: Annotated[int, AtLeast(3)] = 5
    """Frames that a derivative is fitted to (odd); beyond its ends an utterance repeats its end frame."""
    cmvn: bool = True
    """Bring every column to mean 0 and (unbiased) standard deviation 1 over the frames of its own utterance. A column that
    does not change, as in an utterance of one frame, becomes 0."""
    cmvn_epsilon: Annotated[float, AtLeast(SMALLEST)] = 1e-10
    """Added to that standard deviation, or to the variance before its root."""
    cmvn_epsilon_of: Literal["deviation", "variance"] = "deviation"
    """The one of the two that `cmvn_epsilon` is added to: the deviation in s3prl, the variance in transformers'
    `SeamlessM4TFeatureExtractor`."""

    def __post_init__(self) -> None:
        check_fields(self)
        longest = f"at least one sample and at most frame_length_ms ({self.frame_length_ms:g})"
        fft_size = f"even and at least the frame's {self.frame_length} samples"
        most_ceps = f"at most num_mel_bins ({self.num_mel_bins})"
        nyquist = self.sample_rate / 2
        between = f"between low_freq_hz ({self.low_freq_hz:g}) and {nyquist:g} Hz, or zero or less to count down from there"
        floor = f"at least {SMALLEST:g} unless log_offset is: the logarithm of 0 is infinite"
        for holds, name, wanted in (
            (self.frame_length >= 2, "frame_length_ms", "at least two samples long"),
            (1 <= self.frame_shift <= self.frame_length, "frame_shift_ms", longest),
            (not (self.center and self.snip_edges), "center", "False while snip_edges is True"),
            (self.num_fft >= self.frame_length and self.num_fft % 2 == 0, "fft_size", fft_size),
            (self.power in (1, 2), "power", "1 or 2"),
            (self.low_freq_hz < nyquist, "low_freq_hz", f"below {nyquist:g} Hz"),
            (self.low_freq_hz < self.highest_hz <= nyquist, "high_freq_hz", between),
            (self.log_floor + self.log_offset >= SMALLEST, "log_floor", floor),
            (
                self.kind != "mfcc" or self.num_ceps <= self.num_mel_bins,
                "num_ceps",
                most_ceps,
            ),
            (self.delta_window % 2 == 1, "delta_window", "odd"),
        ):
            require(holds, name, wanted, getattr(self, name))
        for name in _WITHOUT_EFFECT[self.kind]:
            default = type(self).__dataclass_fields__[name].default
            idle = f"{default!r} for the kind {self.kind!r}, which does not read it"
            require(getattr(self, name) == default, name, idle, getattr(self, name))

    @property
    def frame_length(self) -> int:
        """Length of a frame in samples."""
        return int(self.sample_rate * self.frame_length_ms / 1000)

    @property
    def frame_shift(self) -> int:
        """From one frame to the next in samples."""
        return int(self.sample_rate * self.frame_shift_ms / 1000)

    @property
    def num_fft(self) -> int:
        """Samples of the Fourier transform."""
        return 1 << (self.frame_length - 1).bit_length() if self.fft_size is None else self.fft_size

    @property
    def highest_hz(self) -> float:
        """End of the highest mel filter, in Hz, `high_freq_hz` being resolved."""
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
        """Shape of this config's upstream: one hidden state."""
        return UpstreamShape(("features",), (self.feature_dim,), self.frame_shift, self.sample_rate)

    @property
    def first_sample(self) -> int:
        """The sample at which frame 0 starts: 0, or below 0 where it starts in the mirror image."""
        if self.snip_edges:
            return 0
        return -(self.frame_length // 2) + (0 if self.center else self.frame_shift // 2)

    @property
    def receptive_field(self) -> int:
        """Samples that one frame is computed from."""
        return self.frame_length

    @property
    def min_samples(self) -> int:
        """Fewest samples that give a frame without mirroring more than the waveform holds."""
        if self.snip_edges:
            return self.frame_length
        return self.frame_length // 2 + 1 if self.center else (self.frame_length + 1) // 2

    def num_frames(self, samples: int) -> int:
        """The number of frames that `samples` samples give, whatever their values.

        Example:
            >>> [FilterbankConfig(snip_edges=edges).num_frames(16000) for edges in (True, False)]
            [98, 100]
        """
        return 0 if samples < self.min_samples else (samples + self.frame_offset) // self.frame_shift

    @property
    def frame_offset(self) -> int:
        """Samples to add to those of an utterance so that each whole `frame_shift` of the sum is a frame."""
        if not self.snip_edges and not self.center:
            return self.frame_shift // 2
        return self.frame_shift - (self.frame_length % 2 if self.center else self.frame_length)
