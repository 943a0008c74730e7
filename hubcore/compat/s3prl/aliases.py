"""fairseq's names for the parts of `hubcore.nn`'s encoders, which recipes of s3prl freeze, cut and replace."""

from __future__ import annotations

import functools
import operator
from collections.abc import Mapping
from typing import Any

from torch import nn

from hubcore.nn import Block, ConvExtractor, Encoder, SpeechEncoder

THEIRS: Mapping[type[nn.Module], Mapping[str, str]] = {
    SpeechEncoder: {"feature_extractor": "extractor", "layer_norm": "feature_norm", "post_extract_proj": "projection"},
    ConvExtractor: {"conv_layers": "convs"},
    Encoder: {"layers": "blocks", "layer_norm": "norm"},
    Block: {
        "self_attn": "attention",
        "self_attn_layer_norm": "attention_norm",
        "fc1": "feed_forward.fc1",
        "fc2": "feed_forward.fc2",
        "final_layer_norm": "feed_forward_norm",
    },
}
"""Class -> fairseq's name of a part -> the name here."""


def add_aliases(model: nn.Module) -> None:
    """Lets fairseq's names stand for the parts of a model, read, set or deleted; `state_dict` keeps the names it has.

    Example:
        >>> from hubcore.nn import SpeechEncoderConfig, build_speech_encoder
        >>> model = build_speech_encoder(SpeechEncoderConfig(dim=96, num_layers=4))
        >>> add_aliases(model)
        >>> model.encoder.layers = model.encoder.layers[:2]
        >>> len(model.encoder.blocks), model.encoder.layers[1].self_attn is model.encoder.blocks[1].attention
        (2, True)
    """
    for module in model.modules():
        if not hasattr(module, "_aliases") and isinstance(module, (*THEIRS,)):
            kind: Any = type(module)
            module.__class__ = _with_aliases(kind)


@functools.cache
def _with_aliases(kind: Any) -> Any:
    """A subclass with a property for each of fairseq's names that the class itself does not have."""
    named = {theirs: ours for base, names in THEIRS.items() if issubclass(kind, base) for theirs, ours in names.items()}
    names = {theirs: ours for theirs, ours in named.items() if not hasattr(kind, theirs)}

    def owner(module: nn.Module, name: str) -> tuple[nn.Module, str]:
        parent, _, last = names.get(name, name).rpartition(".")
        return module.get_submodule(parent), last

    # torch keeps modules out of the reach of a property's setter, so names are translated before it.
    def set_part(module: nn.Module, name: str, value: Any) -> None:
        part, last = owner(module, name)
        kind.__setattr__(part, last, value) if part is module else setattr(part, last, value)

    def delete_part(module: nn.Module, name: str) -> None:
        part, last = owner(module, name)
        kind.__delattr__(part, last) if part is module else delattr(part, last)

    members: dict[str, Any] = {theirs: property(operator.attrgetter(ours)) for theirs, ours in names.items()}
    members |= {"__setattr__": set_part, "__delattr__": delete_part, "__module__": kind.__module__, "_aliases": names}
    members["__reduce_ex__"] = lambda module, _protocol: (_restore, (kind,), module.__dict__)
    return type(kind.__name__, (kind,), members)


def _restore(kind: Any) -> Any:
    """An empty module with aliases; `copy` and `pickle` fill it."""
    made = _with_aliases(kind)
    return made.__new__(made)
