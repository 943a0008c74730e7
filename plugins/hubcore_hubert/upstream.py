"""`HubertUpstream`: HuBERT behind the uniform call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from hubcore.checkpoints import Reader
from hubcore.nn import SpeechEncoder
from hubcore.nn.encoder_upstream import SpeechEncoderUpstream
from hubcore_hubert.checkpoint import READER
from hubcore_hubert.config import CONFIGS, HubertConfig


class HubertUpstream(SpeechEncoderUpstream):
    """HuBERT (Hsu et al. 2021) and models of its shape: the input of every block, then the encoder's output.

    Hidden state 0 (`input`) is the projected features with position embedding, layer-normed in post-norm models. Hidden
    state k (`block_k`) is the output of block k, counted from 1. The last is the encoder's output, which in pre-norm models
    (`pre_norm`) includes the final layer norm. These are s3prl's `hidden_states`; its `espnet_hubert` leaves out the first.

    Example:
        >>> import torch
        >>> from hubcore_hubert import HubertUpstream
        >>> model = HubertUpstream.from_config("base", num_layers=2)
        >>> out = model([torch.randn(16000), torch.randn(8000)], layers=[0, -1])
        >>> [tuple(h.shape) for h in out.hidden_states], out.lengths.tolist()
        ([(2, 49, 768), (2, 49, 768)], [49, 24])
    """

    config_class: ClassVar[type[HubertConfig]] = HubertConfig
    configs: ClassVar[Mapping[str, HubertConfig]] = CONFIGS
    reader: ClassVar[Reader[HubertConfig, SpeechEncoder]] = READER
    config: HubertConfig
    model: SpeechEncoder
