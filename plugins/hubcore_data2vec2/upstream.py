"""`Data2Vec2Upstream`: data2vec 2.0 and emotion2vec behind the uniform call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from hubcore.checkpoints import Reader
from hubcore.nn import SpeechEncoder
from hubcore.nn.encoder_upstream import SpeechEncoderUpstream
from hubcore_data2vec2.checkpoint import READER
from hubcore_data2vec2.config import CONFIGS, Data2Vec2Config
from hubcore_data2vec2.model import build_model


class Data2Vec2Upstream(SpeechEncoderUpstream):
    """data2vec 2.0 (Baevski et al. 2023), emotion2vec (Ma et al. 2024) and emotion2vec+: the input and output of every block.

    Hidden state 0 (`input`) is the input of the first block after the prenet: projected features with position embedding,
    which the prenet's blocks, if there are any, have already worked on. Hidden state k (`block_k`) is the output of block k
    after the prenet, counted from 1. The last is the last block's output, in post-norm models, as all published ones are, the
    output of the original. Extra tokens take part in attention and are cut from every state.

    The original's `layer_results` are other numbers: the feed-forward part of each block, before it is added and normalised.

    Example:
        >>> import torch
        >>> from hubcore_data2vec2 import Data2Vec2Upstream
        >>> model = Data2Vec2Upstream.from_config("emotion2vec", num_layers=2, prenet_layers=1)
        >>> out = model([torch.randn(16000), torch.randn(8000)], layers=[0, -1])
        >>> [tuple(h.shape) for h in out.hidden_states], out.lengths.tolist()
        ([(2, 49, 768), (2, 49, 768)], [49, 24])
    """

    build_model = staticmethod(build_model)
    config_class: ClassVar[type[Data2Vec2Config]] = Data2Vec2Config
    configs: ClassVar[Mapping[str, Data2Vec2Config]] = CONFIGS
    reader: ClassVar[Reader[Data2Vec2Config, SpeechEncoder]] = READER
    config: Data2Vec2Config
    model: SpeechEncoder
