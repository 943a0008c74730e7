"""`W2vBertUpstream`: w2v-BERT 2.0 behind the uniform call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from hubcore.checkpoints import Reader
from hubcore.nn.encoder_upstream import ConformerUpstream
from hubcore_w2v_bert.checkpoint import READER
from hubcore_w2v_bert.config import CONFIGS, W2vBertConfig
from hubcore_w2v_bert.model import W2vBertModel, build_model


class W2vBertUpstream(ConformerUpstream):
    """w2v-BERT 2.0 (Barrault et al. 2023): the input of every block, then the output of the last.

    Hidden state 0 (`input`) is the projected filter banks. Hidden state k (`block_k`) is the output of block k, counted from
    1, each ending in a layer norm of its own; there is no further norm. These are transformers' `hidden_states`, without the
    frame that transformers adds to an odd number of filter-bank frames.

    Example:
        >>> import torch
        >>> from hubcore_w2v_bert import W2vBertUpstream
        >>> model = W2vBertUpstream.from_config("w2v_bert_2", dim=96, num_layers=2, ffn_dim=192)
        >>> out = model([torch.randn(16000), torch.randn(8000)], layers=[0, -1])
        >>> [tuple(h.shape) for h in out.hidden_states], out.lengths.tolist()
        ([(2, 49, 96), (2, 49, 96)], [49, 24])
    """

    build_model = staticmethod(build_model)
    config_class: ClassVar[type[W2vBertConfig]] = W2vBertConfig
    configs: ClassVar[Mapping[str, W2vBertConfig]] = CONFIGS
    reader: ClassVar[Reader[W2vBertConfig, W2vBertModel]] = READER
    config: W2vBertConfig
    model: W2vBertModel
