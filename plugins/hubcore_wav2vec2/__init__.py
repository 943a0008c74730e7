"""wav2vec 2.0, XLSR-53 and XLS-R as hubcore upstreams. Importing this package imports no torch until a name is used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hubcore.lazy import lazy_exports

if TYPE_CHECKING:
    from hubcore_wav2vec2.components import Block, ConvExtractor, FeedForward, FrameConv, PositionalConv, SelfAttention
    from hubcore_wav2vec2.config import CONFIGS, Wav2Vec2Config
    from hubcore_wav2vec2.model import Encoder, Wav2Vec2Model, build_encoder, build_extractor, build_model
    from hubcore_wav2vec2.upstream import Wav2Vec2Upstream

_MODULE_OF = {
    "Block": "components",
    "CONFIGS": "config",
    "ConvExtractor": "components",
    "Encoder": "model",
    "FeedForward": "components",
    "FrameConv": "components",
    "PositionalConv": "components",
    "SelfAttention": "components",
    "Wav2Vec2Config": "config",
    "Wav2Vec2Model": "model",
    "Wav2Vec2Upstream": "upstream",
    "build_encoder": "model",
    "build_extractor": "model",
    "build_model": "model",
}

__all__ = [
    "CONFIGS",
    "Block",
    "ConvExtractor",
    "Encoder",
    "FeedForward",
    "FrameConv",
    "PositionalConv",
    "SelfAttention",
    "Wav2Vec2Config",
    "Wav2Vec2Model",
    "Wav2Vec2Upstream",
    "build_encoder",
    "build_extractor",
    "build_model",
]

__getattr__, __dir__ = lazy_exports(__name__, _MODULE_OF)
