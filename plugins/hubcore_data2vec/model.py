"""The data2vec audio encoder: the core's `SpeechEncoder` with stacked position convolutions."""

from __future__ import annotations

from torch import nn

from hubcore.nn import Encoder, SpeechEncoder, StackedPositionalConv, build_blocks, build_waveform_encoder
from hubcore_data2vec.config import Data2VecConfig


def build_model(config: Data2VecConfig) -> SpeechEncoder:
    """The model that a config describes, with fresh weights.

    Example:
        >>> len(build_model(Data2VecConfig(dim=96, num_layers=2)).encoder.pos_conv.convs)
        5
    """
    positions = StackedPositionalConv(config.dim, config.pos_conv_kernel, config.pos_conv_groups, config.pos_conv_depth)
    blocks = build_blocks(config, config.num_layers)
    encoder = Encoder(positions, blocks, nn.LayerNorm(config.dim), pre_norm=config.pre_norm, dropout=config.dropout)
    return build_waveform_encoder(config, encoder)
