"""`WavLMUpstream`: WavLM behind the uniform call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from hubcore.checkpoints import Reader
from hubcore.nn import SpeechEncoder
from hubcore.nn.encoder_upstream import SpeechEncoderUpstream
from hubcore_wavlm.checkpoint import READER
from hubcore_wavlm.config import CONFIGS, WavLMConfig
from hubcore_wavlm.model import build_model


class WavLMUpstream(SpeechEncoderUpstream):
    """WavLM (Chen et al. 2022): the input of every block, then the encoder's output.

    Hidden state 0 (`input`) is the projected features with position embedding, layer-normed in post-norm models. Hidden
    state k (`block_k`) is the output of block k, counted from 1. The last is the encoder's output, which in pre-norm models
    (`pre_norm`) includes the final layer norm. These are s3prl's `hidden_states`.

    Example:
        >>> import torch
        >>> from hubcore_wavlm import WavLMUpstream
        >>> model = WavLMUpstream.from_config("base_plus", num_layers=2)
        >>> out = model([torch.randn(16000), torch.randn(8000)], layers=[0, -1])
        >>> [tuple(h.shape) for h in out.hidden_states], out.lengths.tolist()
        ([(2, 49, 768), (2, 49, 768)], [49, 24])
    """

    build_model = staticmethod(build_model)
    config_class: ClassVar[type[WavLMConfig]] = WavLMConfig
    configs: ClassVar[Mapping[str, WavLMConfig]] = CONFIGS
    reader: ClassVar[Reader[WavLMConfig, SpeechEncoder]] = READER
    config: WavLMConfig
    model: SpeechEncoder
