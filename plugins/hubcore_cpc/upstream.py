"""`CpcUpstream`: contrastive predictive coding behind the uniform call."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, TypeVar

import torch
from torch import nn

from hubcore.checkpoints import Reader
from hubcore.nn.encoder_upstream import EncoderUpstream
from hubcore_cpc.checkpoint import READER
from hubcore_cpc.config import CONFIGS, CpcConfig
from hubcore_cpc.model import CpcModel

AnyCpc = TypeVar("AnyCpc", bound="CpcUpstream")


class CpcUpstream(EncoderUpstream):
    """Contrastive predictive coding (van den Oord et al. 2018) as modified by Riviere et al. (2020): two hidden states.

    Hidden state 0 (`encoder`) is the frames of the convolutions, 100 a second; hidden state 1 (`context`) is the output of
    the recurrent network, which at each frame has seen all frames before it. These are s3prl's `hidden_states`.

    Convolutions pad with zeros, so a frame needs 159 samples, and `n` samples give `(n + 1) // 160` frames. In a batch the
    zeros lie at each utterance's own ends.

    Example:
        >>> import torch
        >>> from hubcore_cpc import CpcUpstream
        >>> model = CpcUpstream.from_config("modified", encoder_dim=32)
        >>> out = model([torch.randn(16000), torch.randn(8000)])
        >>> [tuple(h.shape) for h in out.hidden_states], out.lengths.tolist()
        ([(2, 100, 32), (2, 100, 256)], [100, 50])
    """

    config_class: ClassVar[type[CpcConfig]] = CpcConfig
    configs: ClassVar[Mapping[str, CpcConfig]] = CONFIGS
    reader: ClassVar[Reader[CpcConfig, CpcModel]] = READER
    build_model = CpcModel
    config: CpcConfig
    model: CpcModel

    @property
    def after_blocks(self) -> tuple[nn.Module, ...]:
        """The recurrent network; there are no blocks."""
        return (self.model.context,)

    @classmethod
    def from_file(
        cls: type[AnyCpc],
        path: str | Path,
        *,
        config: CpcConfig | str | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> AnyCpc:
        """See `UpstreamBase.from_checkpoint`, for a local file. It has no blocks to leave out: `layers=` is a default only."""
        upstream = cls.read_file(path, config, {}, device, dtype)
        upstream.model.context.flatten_parameters()  # cuDNN wants them in one piece
        return upstream
