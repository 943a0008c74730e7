"""`DistilHubertUpstream`: DistilHuBERT behind the uniform call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import nn

from hubcore.checkpoints import Reader
from hubcore.nn.encoder_upstream import SpeechEncoderUpstream
from hubcore_distilhubert.checkpoint import READER
from hubcore_distilhubert.config import CONFIGS, DistilHubertConfig
from hubcore_distilhubert.model import DistilHubert


class DistilHubertUpstream(SpeechEncoderUpstream):
    """DistilHuBERT (Chang et al. 2022): the projection, the output of every block, then the predictions.

    Hidden state 0 (`projection`) is the projected features before the position embedding. Hidden state k (`block_k`) is the
    output of block k, counted from 1. After the blocks follow the outputs of the prediction heads (`prediction_n` for layer n
    of the teacher), which may have another width. These are s3prl's `hidden_states`; its `paper` is the last block's.
    transformers' copy of the model has no prediction heads.

    Example:
        >>> import torch
        >>> from hubcore_distilhubert import DistilHubertUpstream
        >>> model = DistilHubertUpstream.from_config("base", dim=96, prediction_dim=48)
        >>> out = model([torch.randn(16000), torch.randn(8000)], layers=[0, 2, -1])
        >>> [tuple(h.shape) for h in out.hidden_states], out.lengths.tolist()
        ([(2, 49, 96), (2, 49, 96), (2, 49, 48)], [49, 24])
    """

    config_class: ClassVar[type[DistilHubertConfig]] = DistilHubertConfig
    configs: ClassVar[Mapping[str, DistilHubertConfig]] = CONFIGS
    reader: ClassVar[Reader[DistilHubertConfig, DistilHubert]] = READER
    build_model = DistilHubert
    config: DistilHubertConfig
    model: DistilHubert

    @property
    def after_blocks(self) -> tuple[nn.Module, ...]:
        """The prediction heads, if there are any."""
        return () if self.model.predictions is None else (self.model.predictions,)
