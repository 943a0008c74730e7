"""The shape of a wav2vec 2.0 encoder with conformer blocks, and the published shapes by name. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from hubcore.nn.conformer_config import ConformerConfig
from hubcore.nn.speech_encoder_config import WaveformEncoderConfig


@dataclass(frozen=True)
class Wav2Vec2ConformerConfig(ConformerConfig, WaveformEncoderConfig):
    """Everything that decides what such an encoder computes: the front of wav2vec 2.0, then conformer blocks.

    Example:
        >>> CONFIGS["large_rope"].frame_stride, CONFIGS["large_rope"].positions
        (320, 'rotary')
    """


_LARGE = Wav2Vec2ConformerConfig(
    conv_norm="layer",
    conv_bias=True,
    dim=1024,
    num_layers=24,
    num_heads=16,
    ffn_dim=4096,
    pre_norm=True,
    normalize=True,
)

CONFIGS: Mapping[str, Wav2Vec2ConformerConfig] = MappingProxyType(
    {"large_rel_pos": _LARGE, "large_rope": replace(_LARGE, positions="rotary")}
)
"""The published shapes by name: large, with relative positions or with rotary ones."""
