"""The shape of a WavLM encoder, and the published shapes by name. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Annotated

from hubcore.fields import AtLeast, Size, require
from hubcore.nn.speech_encoder_config import SpeechEncoderConfig


@dataclass(frozen=True)
class WavLMConfig(SpeechEncoderConfig):
    """Everything that decides what a WavLM encoder computes (Chen et al. 2022, section III-B).

    Example:
        >>> CONFIGS["base"].frame_stride, CONFIGS["large"].num_layers
        (320, 24)
    """

    num_buckets: Annotated[int, AtLeast(4)] = 320
    """Rows in the table of relative positions. fairseq, transformers: `num_buckets`."""
    max_distance: Size = 800
    """Distance in frames from which on all have one row. fairseq: `max_distance`, transformers: `max_bucket_distance`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        exact = self.num_buckets // 4
        require(self.max_distance > exact, "max_distance", f"above {exact}, a quarter of num_buckets", self.max_distance)


_BASE = WavLMConfig(dropout=0.1, attention_dropout=0.1)

CONFIGS: Mapping[str, WavLMConfig] = MappingProxyType(
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
