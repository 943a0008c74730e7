"""`Wav2Vec2ConformerUpstream`: wav2vec 2.0 with conformer blocks behind the uniform call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from hubcore.checkpoints import Reader
from hubcore.nn import SpeechEncoder
from hubcore.nn.encoder_upstream import ConformerUpstream
from hubcore_wav2vec2_conformer.checkpoint import READER
from hubcore_wav2vec2_conformer.config import CONFIGS, Wav2Vec2ConformerConfig
from hubcore_wav2vec2_conformer.model import build_model


class Wav2Vec2ConformerUpstream(ConformerUpstream):
    """wav2vec 2.0 with conformer blocks (Wang et al. 2020, fairseq S2T): the input of every block, then the encoder's output.

    Hidden state 0 (`input`) is the projected features, without any position; layer-normed where `pre_norm` is False. Hidden
    state k (`block_k`) is the output of block k, counted from 1, each ending in a layer norm of its own. The last is the
    encoder's output, which with `pre_norm` includes one more layer norm. These are s3prl's `hidden_states`.

    Example:
        >>> import torch
        >>> from hubcore_wav2vec2_conformer import Wav2Vec2ConformerUpstream
        >>> model = Wav2Vec2ConformerUpstream.from_config("large_rope", dim=96, num_layers=2, ffn_dim=192)
        >>> out = model([torch.randn(16000), torch.randn(8000)], layers=[0, -1])
        >>> [tuple(h.shape) for h in out.hidden_states], out.lengths.tolist()
        ([(2, 49, 96), (2, 49, 96)], [49, 24])
    """

    build_model = staticmethod(build_model)
    config_class: ClassVar[type[Wav2Vec2ConformerConfig]] = Wav2Vec2ConformerConfig
    configs: ClassVar[Mapping[str, Wav2Vec2ConformerConfig]] = CONFIGS
    reader: ClassVar[Reader[Wav2Vec2ConformerConfig, SpeechEncoder]] = READER
    config: Wav2Vec2ConformerConfig
    model: SpeechEncoder
