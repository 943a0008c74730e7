"""The shape of a DistilHuBERT model, and the published shapes by name. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Annotated

from hubcore.card import UpstreamShape
from hubcore.fields import AtLeast, Between, Size, require
from hubcore.nn.speech_encoder_config import SpeechEncoderConfig


@dataclass(frozen=True)
class DistilHubertConfig(SpeechEncoderConfig):
    """Everything that decides what a DistilHuBERT model computes (Chang et al. 2022, section 2).

    Example:
        >>> CONFIGS["base"].upstream_shape.layer_names
        ('projection', 'block_1', 'block_2', 'prediction_4', 'prediction_8', 'prediction_12')
    """

    feature_norm: bool = False
    """True if the extractor's frames are layer-normed; the original never does."""
    predicted_layers: Annotated[tuple[Annotated[int, AtLeast(0)], ...], Between(0, 100)] = ()
    """The teacher's layer that each prediction head was trained for; none if there are no heads. s3prl: `pred_layer_id`."""
    prediction_dim: Size = 768
    """Width of the predictions. s3prl: `final_dim`."""
    prediction_inner_dim: Size = 768
    """Inner width of each prediction head. s3prl: `out_layer_inter_dim`, where -1 stands for the width of the blocks."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(not self.pre_norm, "pre_norm", "False, because there is no such DistilHuBERT", self.pre_norm)
        twice = len(set(self.predicted_layers)) < len(self.predicted_layers)
        require(not twice, "predicted_layers", "different layers", self.predicted_layers)

    @property
    def upstream_shape(self) -> UpstreamShape:
        """Shape of this config's upstream: the projection, the output of each block, then the predictions."""
        blocks = tuple(f"block_{k}" for k in range(1, self.num_layers + 1))
        predictions = tuple(f"prediction_{layer}" for layer in self.predicted_layers)
        sizes = (self.dim,) * (1 + len(blocks)) + (self.prediction_dim,) * len(predictions)
        return UpstreamShape(("projection", *blocks, *predictions), sizes, self.frame_stride, self.sample_rate)


_BASE = DistilHubertConfig(
    num_layers=2, predicted_layers=(4, 8, 12), dropout=0.1, attention_dropout=0.1, activation_dropout=0.1
)

CONFIGS: Mapping[str, DistilHubertConfig] = MappingProxyType(
    {"base": _BASE, "base_transformers": replace(_BASE, predicted_layers=())}
)
"""The published shapes by name: s3prl's checkpoint, and transformers' copy of it, which lacks the prediction heads."""
