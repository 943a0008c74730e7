"""The part of WavLM that differs from wav2vec 2.0: attention with a gated bias by relative position."""

from __future__ import annotations

from hubcore.nn import GatedSelfAttention, RelativePositionBias, SpeechEncoder, build_encoder, build_speech_encoder
from hubcore_wavlm.config import WavLMConfig


def build_model(config: WavLMConfig) -> SpeechEncoder:
    """The model that a config describes, with fresh weights. All blocks share one `RelativePositionBias`.

    Example:
        >>> build_model(WavLMConfig(dim=96, num_layers=2)).encoder.context.weight.shape
        torch.Size([320, 12])
    """

    def attention() -> GatedSelfAttention:
        return GatedSelfAttention(config.dim, config.num_heads, config.attention_dropout)

    bias = RelativePositionBias(config.num_heads, config.num_buckets, config.max_distance)
    return build_speech_encoder(config, build_encoder(config, attention=attention, context=bias))
