"""Writes our weights in fairseq's layout, for tests that need a fairseq file of some size."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch

from hubcore_wav2vec2 import Wav2Vec2Upstream

_PARTS = {
    "feature_norm": "layer_norm",
    "projection": "post_extract_proj",
    "encoder.norm": "encoder.layer_norm",
    "encoder.pos_conv": "encoder.pos_conv.0",
}
_BLOCK = {
    "attention_norm": "self_attn_layer_norm",
    "attention": "self_attn",
    "feed_forward_norm": "final_layer_norm",
    "feed_forward": "",
}


def fairseq_name(name: str) -> str:
    """fairseq's name for one of the weights of `Wav2Vec2Model`."""
    words = name.split(".")
    if words[:2] == ["extractor", "convs"]:
        return f"feature_extractor.conv_layers.{words[2]}.0.{words[3]}"
    if words[:2] == ["extractor", "norms"]:
        return f"feature_extractor.conv_layers.{words[2]}.2.{words[3]}"
    if words[:2] == ["encoder", "blocks"]:
        return ".".join(filter(None, ["encoder.layers", words[2], _BLOCK[words[3]], *words[4:]]))
    for ours, theirs in _PARTS.items():
        if name.startswith(ours + "."):
            return theirs + name[len(ours) :]
    raise KeyError(name)


def fairseq_tree(upstream: Wav2Vec2Upstream, *, adam: bool = False) -> dict[str, Any]:
    """What fairseq's trainer saves for a group-norm model: config, weights, and Adam's two moments if asked for."""
    config = upstream.config
    state = OrderedDict()
    for name, weight in upstream.model.state_dict().items():
        swapped = weight.transpose(1, 2).contiguous() if "convs" in name and weight.ndim == 3 else weight
        state[fairseq_name(name)] = swapped
    moments = {
        index: {"step": 1, "exp_avg": torch.zeros_like(weight), "exp_avg_sq": torch.zeros_like(weight)}
        for index, weight in enumerate(state.values())
        if adam
    }
    model = {
        "_name": "wav2vec2",
        "extractor_mode": "default",
        "encoder_layers": config.num_layers,
        "encoder_embed_dim": config.dim,
        "encoder_ffn_embed_dim": config.ffn_dim,
        "encoder_attention_heads": config.num_heads,
        "conv_feature_layers": str(list(config.conv_layers)),
        "conv_bias": config.conv_bias,
        "layer_norm_first": config.pre_norm,
        "conv_pos": config.pos_conv_kernel,
        "conv_pos_groups": config.pos_conv_groups,
    }
    return {
        "args": None,
        "cfg": {"model": model, "task": {"normalize": config.normalize, "sample_rate": 16000}},
        "model": state,
        "last_optimizer_state": {"state": moments, "param_groups": []},
    }
