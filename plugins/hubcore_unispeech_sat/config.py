"""The shape of a UniSpeech-SAT encoder, and the published shapes by name. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from hubcore.nn.speech_encoder_config import SpeechEncoderConfig


@dataclass(frozen=True)
class UniSpeechSatConfig(SpeechEncoderConfig):
    """Everything that decides what a UniSpeech-SAT encoder computes (Chen et al. 2021; its encoder is wav2vec 2.0's).

    Example:
        >>> CONFIGS["base"].frame_stride, CONFIGS["large"].num_layers
        (320, 24)
    """


_BASE = UniSpeechSatConfig(dropout=0.1, attention_dropout=0.1)

CONFIGS: Mapping[str, UniSpeechSatConfig] = MappingProxyType(
    {
        "base": _BASE,
        "base_plus": _BASE,
        "large": replace(
            _BASE,
            conv_norm="layer",
            dim=1024,
            num_layers=24,
            num_heads=16,
            ffn_dim=4096,
            pre_norm=True,
            normalize=True,
        ),
    }
)
"""The published shapes by name: base (LibriSpeech), base_plus (the same shape, 94,000 hours) and large (the same hours)."""
