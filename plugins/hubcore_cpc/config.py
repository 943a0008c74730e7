"""The shape of a CPC model, and the published shape by name. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Literal

from hubcore.card import UpstreamShape
from hubcore.fields import Between, Size, check_fields

CONVOLUTIONS = ((10, 5, 3), (8, 4, 2), (4, 2, 1), (4, 2, 1), (4, 2, 1))
"""(kernel, stride, padding at each end) of the encoder's convolutions, the same in every CPC model."""


@dataclass(frozen=True)
class CpcConfig:
    """Everything that decides what a CPC model computes (Riviere et al. 2020, section 2.1, "modified CPC").

    Example:
        >>> config = CpcConfig()
        >>> config.frame_stride, config.receptive_field, config.min_samples, config.upstream_shape.layer_names
        (160, 465, 159, ('encoder', 'context'))
    """

    encoder_dim: Annotated[int, Between(2, 65536)] = 256
    """Width of the encoder. CPC_audio: `hiddenEncoder`."""
    context_dim: Size = 256
    """Width of the recurrent network. CPC_audio: `hiddenGar`."""
    context_net: Literal["lstm", "gru", "rnn"] = "lstm"
    """Kind of the recurrent network. CPC_audio: `arMode`."""
    num_levels: Annotated[int, Between(1, 100)] = 1
    """Recurrent layers. CPC_audio: `nLevelsGRU`."""

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def frame_stride(self) -> int:
        """Samples from one frame to the next."""
        return math.prod(stride for _, stride, _ in CONVOLUTIONS)

    @property
    def receptive_field(self) -> int:
        """Samples that a frame of the encoder sees."""
        field = 1
        for kernel, stride, _ in reversed(CONVOLUTIONS):
            field = (field - 1) * stride + kernel
        return field

    @property
    def first_sample(self) -> int:
        """The sample at which frame 0 starts: the padding lies before the utterance."""
        first = 0
        for _, stride, padding in reversed(CONVOLUTIONS):
            first = first * stride - padding
        return first

    @property
    def min_samples(self) -> int:
        """Fewest samples that give a frame: padding at both ends stands for the rest of its receptive field."""
        return self.receptive_field + 2 * self.first_sample

    @property
    def upstream_shape(self) -> UpstreamShape:
        """Shape of this config's upstream: the encoder, then the recurrent network."""
        return UpstreamShape(("encoder", "context"), (self.encoder_dim, self.context_dim), self.frame_stride, 16000)


CONFIGS: Mapping[str, CpcConfig] = MappingProxyType({"modified": CpcConfig()})
"""The published shape by name: the modified CPC that s3prl calls `modified_cpc`."""
