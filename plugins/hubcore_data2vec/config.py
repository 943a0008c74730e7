"""The shape of a data2vec audio encoder, and the published shapes by name. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Annotated

from hubcore.fields import Between, Size, require
from hubcore.nn.speech_encoder_config import WaveformEncoderConfig


@dataclass(frozen=True)
class Data2VecConfig(WaveformEncoderConfig):
    """Everything that decides what a data2vec audio encoder computes (Baevski et al. 2022, section 4.2).

    It is wav2vec 2.0's but for the position embedding: several narrow convolutions, one after the other.

    Example:
        >>> CONFIGS["base"].pos_conv_depth, CONFIGS["base"].pos_conv_kernel, CONFIGS["large"].dim
        (5, 19, 1024)
    """

    pos_conv_kernel: Size = 19
    """Kernel of each of these convolutions, in frames. fairseq: `conv_pos` divided by `pos_conv_depth`, at least 3;
    transformers: `conv_pos_kernel_size`."""
    pos_conv_groups: Size = 16
    """Groups of each of them. fairseq: `conv_pos_groups`."""
    pos_conv_depth: Annotated[int, Between(1, 20)] = 5
    """Number of these convolutions. fairseq: `pos_conv_depth`; transformers: `num_conv_pos_embeddings`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        divisor = f"a divisor of dim={self.dim}"
        require(self.dim % self.pos_conv_groups == 0, "pos_conv_groups", divisor, self.pos_conv_groups)


_BASE = Data2VecConfig(conv_norm="layer", normalize=True, dropout=0.1, attention_dropout=0.1)

CONFIGS: Mapping[str, Data2VecConfig] = MappingProxyType(
    {"base": _BASE, "large": replace(_BASE, dim=1024, num_layers=24, num_heads=16, ffn_dim=4096)}
)
"""The published shapes by name: base (LibriSpeech) and large (Libri-Light)."""
