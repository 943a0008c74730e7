"""The shape of a wav2vec 2.0 encoder, and the published shapes by name. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from hubcore.nn.speech_encoder_config import SpeechEncoderConfig


@dataclass(frozen=True)
class Wav2Vec2Config(SpeechEncoderConfig):
    """Everything that decides what a wav2vec 2.0 encoder computes (Baevski et al. 2020, section 2).

    Example:
        >>> CONFIGS["base"].frame_stride, CONFIGS["base"].dim
        (320, 768)
    """


_BASE = Wav2Vec2Config(dropout=0.1, attention_dropout=0.1)
_LARGE = replace(_BASE, dim=1024, num_layers=24, num_heads=16, ffn_dim=4096, dropout=0.0, attention_dropout=0.0)
_LARGE_LV60K = replace(_LARGE, conv_bias=True, conv_norm="layer", pre_norm=True, normalize=True)
_1B = replace(_LARGE_LV60K, dim=1280, num_layers=48, ffn_dim=5120)
_3B = replace(_LARGE_LV60K, dim=2048, num_layers=60, ffn_dim=8192)

CONFIGS: Mapping[str, Wav2Vec2Config] = MappingProxyType(
    {
        "base": _BASE,
        "large": _LARGE,
        "large_lv60k": _LARGE_LV60K,
        "xlsr_53": _LARGE_LV60K,
        "xls_r_300m": _LARGE_LV60K,
        "xls_r_1b": _1B,
        "xls_r_2b": replace(_LARGE_LV60K, dim=1920, num_layers=48, ffn_dim=7680),
        "omniasr_300m": _LARGE_LV60K,
        "omniasr_1b": _1B,
        "omniasr_3b": _3B,
        "omniasr_7b": replace(_3B, num_layers=128),
        "tiny": Wav2Vec2Config(
            conv_layers=tuple((64, kernel, stride) for _, kernel, stride in _BASE.conv_layers),
            dim=96,
            num_layers=4,
            num_heads=4,
            ffn_dim=384,
            pos_conv_kernel=32,
            pos_conv_groups=8,
        ),
    }
)
"""The published shapes by name: base and large (LibriSpeech), large_lv60k (Libri-Light), xlsr_53, XLS-R, OmniASR, and tiny, the
shape of the bundled demonstration checkpoint. MMS has the shapes of XLS-R."""
