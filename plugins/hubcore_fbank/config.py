"""Options of the fbank family: `FbankConfig`, and the six named ones in `CONFIGS`. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from hubcore.nn.filterbank_config import FilterbankConfig


@dataclass(frozen=True)
class FbankConfig(FilterbankConfig):
    """Every step from waveform to feature; the defaults are `CONFIGS["fbank"]`.

    Example:
        >>> [CONFIGS[name].num_frames(16000) for name in ("fbank", "mel")]
        [98, 101]
    """


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
