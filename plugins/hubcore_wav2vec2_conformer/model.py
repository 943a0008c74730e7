"""The model of a wav2vec 2.0 conformer: the front of wav2vec 2.0 around conformer blocks."""

from __future__ import annotations

from torch import nn

from hubcore.nn import SpeechEncoder, build_conformer, build_waveform_encoder
from hubcore_wav2vec2_conformer.config import Wav2Vec2ConformerConfig


def build_model(config: Wav2Vec2ConformerConfig) -> SpeechEncoder:
    """The model that a config describes, with fresh weights.

    Example:
        >>> model = build_model(Wav2Vec2ConformerConfig(dim=96, num_layers=2, positions="rotary"))
        >>> tuple(model.encoder.context.rates.shape)
        (4,)
    """
    norm = nn.LayerNorm(config.dim)
    return build_waveform_encoder(config, build_conformer(config, norm=norm, pre_norm=config.pre_norm, rates_stored=True))
