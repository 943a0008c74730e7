"""Upstreams whose means of fine-tuning do not work."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hubcore.nn import Blocks, ConvExtractor, EncoderUpstream, SpeechEncoderConfig, build_speech_encoder
from tests.conformance.breaking import breaks

SMALL = SpeechEncoderConfig(
    conv_layers=((8, 10, 5), (8, 8, 8)), dim=8, num_heads=2, num_layers=2, ffn_dim=16, pos_conv_kernel=4, pos_conv_groups=2
)


class Trainable(EncoderUpstream):
    """A good one, to be broken."""

    config_class = SpeechEncoderConfig
    build_model = staticmethod(build_speech_encoder)

    def __init__(self) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            super().__init__(SMALL)


@breaks("layer_groups", "layer_groups() leaves out 5 parameters: model.feature_norm.weight")
class ForgetsProjection(Trainable):
    def layer_groups(self) -> list[dict[str, Any]]:
        first, *others = super().layer_groups()
        lost = {*self.model.feature_norm.parameters(), *self.model.projection.parameters(), self.model.encoder.norm.bias}
        return [{**first, "params": [parameter for parameter in first["params"] if parameter not in lost]}, *others]


@breaks("layer_groups", "layer_groups() has 2 parameters in more than one group")
class GroupsNormTwice(Trainable):
    def layer_groups(self) -> list[dict[str, Any]]:
        return [*super().layer_groups(), {"name": "output", "params": [*self.model.encoder.norm.parameters()]}]


@breaks("layer_groups", "does not have a group for each block in the order of the blocks")
class GroupsFromOutput(Trainable):
    def layer_groups(self) -> list[dict[str, Any]]:
        return super().layer_groups()[::-1]


@breaks("gradient_checkpointing", "block 1 ran 1 times in a training step, expected 2")
class IgnoresCheckpointing(Trainable):
    def __init__(self) -> None:
        super().__init__()
        self.model.encoder.blocks = Direct(self.model.encoder.blocks)


class Direct(Blocks):
    """Calls blocks without their `run`."""

    def run(self, index: int, x: Tensor, *args: Any, layerdrop: float = 0.0) -> Tensor:
        return self[index](x, *args)


@breaks("gradient_checkpointing", "the gradient of model.extractor.convs.0.weight differs")
class OtherGradient(Trainable):
    def __init__(self) -> None:
        super().__init__()
        self.model.encoder.blocks = Recomputing(self.model.encoder.blocks)


class Recomputing(Blocks):
    """Gives other gradients where blocks run again."""

    def run(self, index: int, x: Tensor, *args: Any, layerdrop: float = 0.0) -> Tensor:
        x = super().run(index, x, *args, layerdrop=layerdrop)
        return 2 * x if self.gradient_checkpointing and not index else x


@breaks("frozen_extractor", "the extractor is frozen, but its output carries a gradient")
class LearnsGain(Trainable):
    def __init__(self) -> None:
        super().__init__()
        extractor = self.model.extractor
        self.gain = nn.Parameter(torch.ones(8))
        self.model.extractor = Scaled(extractor.convs, extractor.norms, "group")
        self.model.extractor.gain = [self.gain]


class Scaled(ConvExtractor):
    """An extractor whose output is multiplied by a parameter of somebody else's."""

    gain: list[Tensor]

    def forward(self, signal: Tensor, starts: Sequence[int], lengths: Sequence[int]) -> Tensor:
        return super().forward(signal, starts, lengths) * self.gain[0]


@breaks("frozen_extractor", "left 1 parameters in the wrong state: model.extractor.norms.0.bias")
class FreezesWeights(Trainable):
    def freeze_extractor(self) -> FreezesWeights:
        super().freeze_extractor()
        self.model.extractor.norms[0].bias.requires_grad_(True)
        return self
