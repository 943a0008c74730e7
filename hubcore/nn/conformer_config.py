"""`ConformerConfig`: the shape of a stack of conformer blocks. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from hubcore.fields import Above, Between, Probability, Size, require
from hubcore.nn.speech_encoder_config import BlocksConfig


@dataclass(frozen=True)
class ConformerConfig(BlocksConfig):
    """Everything that decides what conformer blocks compute (Gulati et al. 2020, section 2).

    Example:
        >>> ConformerConfig(positions="relative").num_layers
        12
        >>> ConformerConfig(depthwise_kernel=30)
        Traceback (most recent call last):
        hubcore.errors.OptionError: depthwise_kernel must be odd, but is 30 instead.
    """

    positions: Literal["relative", "relative_key", "rotary", "none"] = "relative"
    """The way in which attention knows the distance of frames, see `hubcore.nn.relative`. fairseq: `pos_enc_type` ("rel_pos" is
    "relative", "rope" is "rotary"), transformers: `position_embeddings_type`."""
    left_distance: Annotated[int, Between(0, 65536)] = 64
    """With "relative_key": keys further back than this share one key. transformers: `left_max_position_embeddings`."""
    right_distance: Annotated[int, Between(0, 65536)] = 8
    """With "relative_key": the same ahead. transformers: `right_max_position_embeddings`."""
    rotary_base: Annotated[float, Above(0)] = 10000.0
    """With "rotary": base of the rates. transformers: `rotary_embedding_base`."""
    depthwise_kernel: Size = 31
    """Kernel of the depthwise convolution, in frames. fairseq: `depthwise_conv_kernel_size`."""
    activation: Literal["swish", "gelu", "relu"] = "swish"
    """Of the feed-forward parts and of the convolution. fairseq always has swish; transformers: `hidden_act`."""
    conv_dropout: Probability = 0.0
    """Dropout after the convolution, in train mode. transformers: `conformer_conv_dropout`; fairseq: `dropout`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.depthwise_kernel % 2 == 1, "depthwise_kernel", "odd", self.depthwise_kernel)
        pairs = self.positions in ("none", "relative_key") or self.dim // self.num_heads % 2 == 0
        require(pairs, "dim", f"an even number for each of {self.num_heads} heads with positions {self.positions!r}", self.dim)
