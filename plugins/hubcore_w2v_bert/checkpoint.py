"""Everything this family knows about transformers' checkpoints: the weights' names, and how the config is read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hubcore.checkpoints import CONFORMER_NAMES, FRONT_NAMES, Checkpoint, Name, Names, Reader
from hubcore.checkpoints.foreign_options import demand, note_defaults, read_options
from hubcore.checkpoints.transformers import conformer_values, refuse_adapters
from hubcore_w2v_bert.config import W2vBertConfig
from hubcore_w2v_bert.model import W2vBertModel, build_model

NAMES = Names(
    [
        Name("encoder.blocks.#.conv.norm.*", {"transformers": "encoder.layers.#.conv_module.depthwise_layer_norm.*"}),
        *FRONT_NAMES,
        *CONFORMER_NAMES,
    ],
    heads={"transformers": ["masked_spec_embed", "lm_head.*"]},
)
"""The names of the weights, and the heads that may stand beside them and are ignored."""

OPTIONS = {
    "dim": ("hidden_size", 1024),
    "num_layers": ("num_hidden_layers", 24),
    "num_heads": ("num_attention_heads", 16),
    "ffn_dim": ("intermediate_size", 4096),
    "dropout": ("hidden_dropout", 0.0),
    "attention_dropout": ("attention_dropout", 0.0),
    "activation_dropout": ("activation_dropout", 0.0),
}
"""Our option -> transformers', and its default for this model."""
_EXTRACTOR = {"num_mel_bins": ("num_mel_bins", 80), "stack": ("stride", 2)}


def parse(checkpoint: Checkpoint, notes: list[str]) -> Mapping[str, Any]:
    """Values of a config, by our names; what had to be assumed is added to `notes`."""
    model, extractor = checkpoint.config, checkpoint.task
    demand({"layer_norm_eps": float(model.get("layer_norm_eps", 1e-5))}, {"layer_norm_eps": [1e-5]})
    refuse_adapters(model)
    demand(extractor, {"feature_extractor_type": ["SeamlessM4TFeatureExtractor"], "sampling_rate": [16000]})
    note_defaults(model, ("num_attention_heads", "position_embeddings_type"), "transformers", notes)
    if not extractor:
        notes.append("the folder has no feature extractor (preprocessor_config.json); the published model's was taken")
    return {
        **read_options(model, OPTIONS),
        **read_options(extractor, _EXTRACTOR),
        **conformer_values(model, activation="swish", positions=("relative_key", "relative", "rotary", None)),
    }


READER: Reader[W2vBertConfig, W2vBertModel] = Reader(
    family="w2v-BERT 2.0",
    config_class=W2vBertConfig,
    build=build_model,
    names=NAMES,
    kinds=("wav2vec2-bert", "W2vBertUpstream"),
    parse=parse,
)
"""Reads transformers' folders."""
