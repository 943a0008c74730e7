"""The shape of a HuBERT encoder, and the published shapes by name. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from hubcore.nn.speech_encoder_config import SpeechEncoderConfig


@dataclass(frozen=True)
class HubertConfig(SpeechEncoderConfig):
    """Everything that decides what a HuBERT encoder computes (Hsu et al. 2021, section II; its encoder is wav2vec 2.0's).

    Example:
        >>> CONFIGS["base"].frame_stride, CONFIGS["xlarge"].num_layers
        (320, 48)
    """


_BASE = HubertConfig(dropout=0.1, attention_dropout=0.1)
_LARGE = replace(
    _BASE,
    conv_norm="layer",
    dim=1024,
    num_layers=24,
    num_heads=16,
    ffn_dim=4096,
    pre_norm=True,
    normalize=True,
    dropout=0.0,
    attention_dropout=0.0,
)

CONFIGS: Mapping[str, HubertConfig] = MappingProxyType(
    {
        "base": _BASE,
        "large": _LARGE,
        "xlarge": replace(_LARGE, dim=1280, num_layers=48, ffn_dim=5120),
        "large_espnet": replace(_LARGE, conv_bias=True, normalize=False),
        "tiny": HubertConfig(
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
"""The published shapes by name: base (LibriSpeech), large and xlarge (Libri-Light), and ESPnet's large, whose convolutions
have a bias and whose waveforms are not normalised; and tiny, for trying out pre-training."""
