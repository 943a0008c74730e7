"""The shape of a data2vec 2.0 audio encoder, and the published shapes by name. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Annotated, Literal

from hubcore.fields import AtLeast, Between
from hubcore_data2vec.config import Data2VecConfig


@dataclass(frozen=True)
class Data2Vec2Config(Data2VecConfig):
    """Everything that decides what a data2vec 2.0 audio encoder computes (Baevski et al. 2023, section 3.4; Ma et al. 2024).

    Example:
        >>> CONFIGS["emotion2vec"].prenet_layers, CONFIGS["emotion2vec"].num_layers, CONFIGS["emotion2vec"].extra_tokens
        (4, 8, 10)
    """

    prenet_layers: Annotated[int, Between(0, 100)] = 0
    """Number of blocks before those whose outputs are hidden states. fairseq: `prenet_depth`."""
    extra_tokens: Annotated[int, Between(0, 65536)] = 0
    """Learned frames put before each utterance, and cut from the hidden states. fairseq: `num_extra_tokens`."""
    alibi: bool = True
    """True if attention falls with the distance of two frames. fairseq: `use_alibi_encoder`."""
    alibi_scale: Literal["one", "head", "layer", "layer_and_head"] = "head"
    """Scales of that fall which the model has: one for everything, or one for each head, block, or both.
    fairseq: `learned_alibi_scale_per_head`, `learned_alibi_scale_per_layer`."""
    pos_conv_pre_norm: bool = False
    """True if a layer norm comes before the position convolutions. fairseq: `conv_pos_pre_ln`."""
    norm_eps: Annotated[float, AtLeast(0)] = 1e-5
    """Added to the variance in the blocks' layer norms. fairseq: `norm_eps`."""

    @property
    def alibi_scales(self) -> tuple[int, int]:
        """Number of scales over blocks (those of the prenet first) and over heads."""
        layers = self.prenet_layers + self.num_layers if self.alibi_scale.startswith("layer") else 1
        return layers, self.num_heads if self.alibi_scale.endswith("head") else 1


_BASE = Data2Vec2Config(conv_norm="layer", normalize=True, dropout=0.1, attention_dropout=0.1)
_LARGE = replace(_BASE, dim=1024, num_layers=16, num_heads=16, ffn_dim=4096, prenet_layers=8)
_EMOTION2VEC = replace(_BASE, num_layers=8, prenet_layers=4, extra_tokens=10)

CONFIGS: Mapping[str, Data2Vec2Config] = MappingProxyType(
    {
        "base": _BASE,
        "large": _LARGE,
        "emotion2vec": _EMOTION2VEC,
        "emotion2vec_plus_seed": _EMOTION2VEC,
        "emotion2vec_plus_base": _EMOTION2VEC,
        "emotion2vec_plus_large": replace(_EMOTION2VEC, dim=1024, num_heads=16, ffn_dim=4096),
    }
)
"""The published shapes by name: data2vec 2.0 base and large, by fairseq's recipes; emotion2vec, by FunASR's template; its
fine-tuned successors, of which seed and base are taken to have emotion2vec's shape."""
