"""transformers' configs of wav2vec-2.0-shaped encoders, read and written. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hubcore.checkpoints.foreign_options import demand, note_defaults, read_options, to_bool, to_int, write_options
from hubcore.errors import CheckpointLayoutError

if TYPE_CHECKING:
    from hubcore.checkpoints.layouts import Checkpoint

OPTIONS = {
    "conv_bias": ("conv_bias", False),
    "dim": ("hidden_size", 768),
    "num_layers": ("num_hidden_layers", 12),
    "num_heads": ("num_attention_heads", 12),
    "ffn_dim": ("intermediate_size", 3072),
    "pre_norm": ("do_stable_layer_norm", False),
    "feature_norm": ("feat_proj_layer_norm", True),
    "pos_conv_kernel": ("num_conv_pos_embeddings", 128),
    "pos_conv_groups": ("num_conv_pos_embedding_groups", 16),
    "dropout": ("hidden_dropout", 0.1),
    "attention_dropout": ("attention_dropout", 0.1),
    "activation_dropout": ("activation_dropout", 0.1),
}
"""Our option -> transformers', and its default."""
CONFORMER_OPTIONS = {
    "depthwise_kernel": ("conv_depthwise_kernel_size", 31),
    "conv_dropout": ("conformer_conv_dropout", 0.1),
    "rotary_base": ("rotary_embedding_base", 10000.0),
    "left_distance": ("left_max_position_embeddings", 64),
    "right_distance": ("right_max_position_embeddings", 8),
}
"""The same for what only conformer blocks have."""
_ACTIVATIONS = {"swish": "swish", "silu": "swish", "gelu": "gelu", "relu": "relu"}
"""transformers' name -> ours."""
_DEFAULT_CONV = {
    "conv_dim": (512,) * 7,
    "conv_kernel": (10, 3, 3, 3, 3, 2, 2),
    "conv_stride": (5, 2, 2, 2, 2, 2, 2),
}
_COMPUTED: Mapping[str, Sequence[Any]] = {
    "hidden_act": ["gelu"],
    "feat_extract_activation": ["gelu"],
    "feat_extract_norm": ["group", "layer"],
    "layer_norm_eps": [1e-5],
}
_UNSEEN = ("num_attention_heads", "do_stable_layer_norm", "feat_extract_norm", "conv_stride")
"""Settings that nothing else in the folder shows, not even a tensor's shape."""


def encoder_values(checkpoint: Checkpoint, notes: list[str]) -> dict[str, Any]:
    """Values of an encoder config, by our names; what had to be assumed is added to `notes`.

    Raises:
        CheckpointLayoutError: an option that the encoder does not have.
        ValueError: a value that makes no sense.
    """
    model, task = checkpoint.config, checkpoint.task
    demand({**model, "layer_norm_eps": float(model.get("layer_norm_eps", 1e-5))}, _COMPUTED)
    refuse_adapters(model)
    columns = [model.get(key, default) for key, default in _DEFAULT_CONV.items()]
    layer_norm = model.get("feat_extract_norm", "group") == "layer"
    note_defaults(model, _UNSEEN, "transformers", notes)
    if not task:
        notes.append(
            "the folder has no feature extractor (preprocessor_config.json), so whether waveforms are normalised follows the "
            f"norm of the convolutions, as in fairseq: {'yes' if layer_norm else 'no'}"
        )
    elif "do_normalize" not in task:
        notes.append("the feature extractor does not say whether it normalises; transformers' own default is yes")
    return {
        **read_options(model, OPTIONS),
        "conv_layers": tuple((to_int(c), to_int(k), to_int(s)) for c, k, s in zip(*columns, strict=True)),
        "conv_norm": "layer" if layer_norm else "group",
        "pos_conv_norm": "batch" if to_bool(model.get("conv_pos_batch_norm", False)) else "weight",
        "normalize": to_bool(task.get("do_normalize", True)) if task else layer_norm,
        "normalize_eps": float(task.get("normalize_eps", 1e-7)) if task else 1e-5,
        "sample_rate": to_int(task.get("sampling_rate", 16000)),
    }


def refuse_adapters(model: Mapping[str, Any]) -> None:
    """Raises `CheckpointLayoutError` for a config with adapter layers, in the blocks or after them."""
    found = [key for key in ("add_adapter", "adapter_attn_dim", "use_intermediate_ffn_before_adapter") if model.get(key)]
    if found:
        raise CheckpointLayoutError(
            f"it has adapter layers ({', '.join(found)}). This encoder has none, so its features would differ. Load a "
            "checkpoint without adapters."
        )


def conformer_values(model: Mapping[str, Any], *, activation: str, positions: Sequence[str | None]) -> dict[str, Any]:
    """Values of what only conformer blocks have, by our names, from a config of transformers.

    `activation` is the family's default of `hidden_act`; `positions` are the values of `position_embeddings_type` that it
    computes, its default first.

    Raises:
        CheckpointLayoutError: an option that the blocks do not have.
        ValueError: a value that makes no sense.

    Example:
        >>> conformer_values({}, activation="swish", positions=("relative", None))["depthwise_kernel"]
        31
    """
    demand(model, {"hidden_act": [activation, *_ACTIVATIONS], "position_embeddings_type": positions})
    return {
        **read_options(model, CONFORMER_OPTIONS),
        "positions": model.get("position_embeddings_type", positions[0]) or "none",
        "activation": _ACTIVATIONS[model.get("hidden_act", activation)],
    }


def require_projection(config: Any) -> None:
    """Raises `CheckpointLayoutError` for an encoder without a projection before its blocks, which transformers always has."""
    if not config.input_projection:
        raise CheckpointLayoutError(
            "this model has no projection between extractor and blocks. transformers always has one. Export it as fairseq or "
            "safetensors."
        )


def encoder_options(config: Any) -> dict[str, Any]:
    """The options of an encoder config in transformers' names, for `config.json`."""
    channels, kernels, strides = (list(column) for column in zip(*config.conv_layers, strict=True))
    return {
        **write_options(config, OPTIONS),
        "conv_dim": channels,
        "conv_kernel": kernels,
        "conv_stride": strides,
        "conv_pos_batch_norm": config.pos_conv_norm == "batch",
        "feat_extract_norm": config.conv_norm,
        "num_feat_extract_layers": len(channels),
        "layer_norm_eps": 1e-5,
        "hidden_act": "gelu",
    }


def feature_extractor(config: Any) -> dict[str, Any]:
    """The `preprocessor_config.json` that belongs to an encoder config."""
    return {
        "feature_extractor_type": "Wav2Vec2FeatureExtractor",
        "feature_size": 1,
        "sampling_rate": config.sample_rate,
        "padding_value": 0.0,
        "do_normalize": config.normalize,
        # transformers does not read this and adds 1e-7; our own reader does, so that nothing is lost on the way back.
        "normalize_eps": config.normalize_eps,
        # A model with group norm was never trained with padding; transformers' own advice for these is to pass no mask.
        "return_attention_mask": config.conv_norm == "layer",
    }
