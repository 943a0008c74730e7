"""`Data2VecUpstream`: data2vec audio behind the uniform call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from hubcore.checkpoints import Reader
from hubcore.nn import SpeechEncoder
from hubcore.nn.encoder_upstream import SpeechEncoderUpstream
from hubcore_data2vec.checkpoint import READER
from hubcore_data2vec.config import CONFIGS, Data2VecConfig
from hubcore_data2vec.model import build_model


class Data2VecUpstream(SpeechEncoderUpstream):
    """data2vec audio (Baevski et al. 2022): the input of every block, then the encoder's output.

    Hidden state 0 (`input`) is the projected features with position embedding, layer-normed in post-norm models, as all
    published ones are. Hidden state k (`block_k`) is the output of block k, counted from 1. The last is the encoder's output,
    which in pre-norm models includes the final layer norm. These are s3prl's `hidden_states`.

    Example:
        >>> import torch
        >>> from hubcore_data2vec import Data2VecUpstream
        >>> model = Data2VecUpstream.from_config("base", num_layers=2)
        >>> out = model([torch.randn(16000), torch.randn(8000)], layers=[0, -1])
        >>> [tuple(h.shape) for h in out.hidden_states], out.lengths.tolist()
        ([(2, 49, 768), (2, 49, 768)], [49, 24])
    """

    build_model = staticmethod(build_model)
    config_class: ClassVar[type[Data2VecConfig]] = Data2VecConfig
    configs: ClassVar[Mapping[str, Data2VecConfig]] = CONFIGS
    reader: ClassVar[Reader[Data2VecConfig, SpeechEncoder]] = READER
    config: Data2VecConfig
    model: SpeechEncoder
