"""A checkpoint of ours in the names and containers of others: fairseq's file, transformers' folder.

The tables are those of `hubcore_wav2vec2.checkpoint` read backwards. Heads of pre-training go along where the file has them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from hubcore.errors import CheckpointLayoutError
from hubcore_wav2vec2.config import Wav2Vec2Config

Row = tuple[str, str]
"""A pattern of our names, and the foreign name, `\\1` and so on standing for the groups of the pattern."""

_WB = r"\.(weight|bias)"


def _blocks(attention: str, attention_norm: str, up: str, down: str, norm: str) -> list[Row]:
    block = r"model\.encoder\.blocks\.(\d+)"
    return [
        (block + r"\.attention\.([qkv]|out)_proj" + _WB, rf"encoder.layers.\1.{attention}.\2_proj.\3"),
        (block + r"\.attention_norm" + _WB, rf"encoder.layers.\1.{attention_norm}.\2"),
        (block + r"\.feed_forward\.fc1" + _WB, rf"encoder.layers.\1.{up}.\2"),
        (block + r"\.feed_forward\.fc2" + _WB, rf"encoder.layers.\1.{down}.\2"),
        (block + r"\.feed_forward_norm" + _WB, rf"encoder.layers.\1.{norm}.\2"),
    ]


FAIRSEQ: Sequence[Row] = (
    (r"model\.extractor\.convs\.(\d+)" + _WB, r"feature_extractor.conv_layers.\1.0.\2"),
    (r"model\.feature_norm" + _WB, r"layer_norm.\1"),
    (r"model\.projection" + _WB, r"post_extract_proj.\1"),
    (r"model\.encoder\.pos_conv\.(weight_g|weight_v|bias)", r"encoder.pos_conv.0.\1"),
    (r"model\.encoder\.norm" + _WB, r"encoder.layer_norm.\1"),
    *_blocks("self_attn", "self_attn_layer_norm", "fc1", "fc2", "final_layer_norm"),
    (r"mask_embedding", "mask_emb"),
    (r"quantizer\.codebook", "quantizer.vars"),
    (r"quantizer\.logits" + _WB, r"quantizer.weight_proj.\1"),
    (r"project_targets" + _WB, r"project_q.\1"),
    (r"project_predictions" + _WB, r"final_proj.\1"),
)
"""Our names in fairseq's spelling; the norms of the extractor depend on its kind and are not among them."""

_FAIRSEQ_NORMS = {
    "group": (r"model\.extractor\.norms\.(\d+)" + _WB, r"feature_extractor.conv_layers.\1.2.\2"),
    "layer": (r"model\.extractor\.norms\.(\d+)" + _WB, r"feature_extractor.conv_layers.\1.2.1.\2"),
}

TRANSFORMERS: Sequence[Row] = (
    (r"model\.extractor\.convs\.(\d+)" + _WB, r"wav2vec2.feature_extractor.conv_layers.\1.conv.\2"),
    (r"model\.extractor\.norms\.(\d+)" + _WB, r"wav2vec2.feature_extractor.conv_layers.\1.layer_norm.\2"),
    (r"model\.feature_norm" + _WB, r"wav2vec2.feature_projection.layer_norm.\1"),
    (r"model\.projection" + _WB, r"wav2vec2.feature_projection.projection.\1"),
    (r"model\.encoder\.pos_conv\.weight_g", "wav2vec2.encoder.pos_conv_embed.conv.parametrizations.weight.original0"),
    (r"model\.encoder\.pos_conv\.weight_v", "wav2vec2.encoder.pos_conv_embed.conv.parametrizations.weight.original1"),
    (r"model\.encoder\.pos_conv\.bias", "wav2vec2.encoder.pos_conv_embed.conv.bias"),
    (r"model\.encoder\.norm" + _WB, r"wav2vec2.encoder.layer_norm.\1"),
    *(
        (ours, f"wav2vec2.{theirs}")
        for ours, theirs in _blocks(
            "attention", "layer_norm", "feed_forward.intermediate_dense", "feed_forward.output_dense", "final_layer_norm"
        )
    ),
    (r"mask_embedding", "wav2vec2.masked_spec_embed"),
    (r"quantizer\.codebook", "quantizer.codevectors"),
    (r"quantizer\.logits" + _WB, r"quantizer.weight_proj.\1"),
    (r"project_targets" + _WB, r"project_q.\1"),
    (r"project_predictions" + _WB, r"project_hid.\1"),
)
"""Our names in transformers' spelling (`Wav2Vec2ForPreTraining`)."""


def to_fairseq(
    state: Mapping[str, Tensor],
    config: Wav2Vec2Config,
    objective: Mapping[str, Any],
    *,
    more_rows: Sequence[Row] = (),
    more_options: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """What `torch.save` must write for fairseq to load it: a dictionary of tensors and plain values.

    Args:
        state: our names -> tensors, the encoder's under `model.`, the heads' beside them.
        config: the encoder's.
        objective: the options of pre-training, by our names; those that are missing have fairseq's defaults.
        more_rows: names of a family built on wav2vec 2.0.
        more_options: its options, in the original's names.

    Raises:
        CheckpointLayoutError: a weight has no name there.
    """
    rows = [*FAIRSEQ, _FAIRSEQ_NORMS[config.conv_norm], *more_rows]
    model = {
        "_name": "wav2vec2",
        "extractor_mode": "default" if config.conv_norm == "group" else "layer_norm",
        "encoder_layers": config.num_layers,
        "encoder_embed_dim": config.dim,
        "encoder_ffn_embed_dim": config.ffn_dim,
        "encoder_attention_heads": config.num_heads,
        "activation_fn": "gelu",
        "layer_type": "transformer",
        "dropout": config.dropout,
        "attention_dropout": config.attention_dropout,
        "activation_dropout": config.activation_dropout,
        "layer_norm_first": config.pre_norm,
        "conv_feature_layers": repr([tuple(row) for row in config.conv_layers]),
        "conv_bias": config.conv_bias,
        "conv_pos": config.pos_conv_kernel,
        "conv_pos_groups": config.pos_conv_groups,
        "quantize_targets": True,
        **_fairseq_heads(state, objective),
        **(more_options or {}),
    }
    task = {"_name": "audio_pretraining", "normalize": config.normalize, "sample_rate": config.sample_rate}
    return {
        "args": None,
        "cfg": {"_name": None, "model": model, "task": task, "criterion": {"_name": "wav2vec", "infonce": True}},
        "model": {_renamed(name, rows): _foreign(name, tensor) for name, tensor in state.items()},
        # fairseq looks into the last entry, and for an epoch, before it gives the model out.
        "optimizer_history": [
            {
                "criterion_name": "Wav2vecCriterion",
                "optimizer_name": "FairseqAdam",
                "lr_scheduler_state": {"best": None},
                "num_updates": 0,
            }
        ],
        "task_state": {},
        "extra_state": {"train_iterator": {"epoch": 1, "iterations_in_epoch": 0}},
        "last_optimizer_state": None,
    }


def _fairseq_heads(state: Mapping[str, Tensor], objective: Mapping[str, Any]) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if "quantizer.codebook" in state:
        groups, entries, width = state["quantizer.codebook"].shape
        options = {
            "latent_groups": groups,
            "latent_vars": entries,
            "latent_dim": groups * width,
            "final_dim": state["project_predictions.weight"].shape[0],
        }
    names = {
        "temperature": "latent_temp",
        "mask_prob": "mask_prob",
        "mask_length": "mask_length",
        "mask_selection": "mask_selection",
        "mask_other": "mask_other",
        "no_mask_overlap": "no_mask_overlap",
        "mask_min_space": "mask_min_space",
        "mask_dropout": "mask_dropout",
        "num_negatives": "num_negatives",
        "logit_temperature": "logit_temp",
        "feature_grad_scale": "feature_grad_mult",
        "dropout_input": "dropout_input",
        "dropout_features": "dropout_features",
        "layerdrop": "encoder_layerdrop",
    }
    for ours, theirs in names.items():
        if ours in objective:
            value = objective[ours]
            options[theirs] = list(value) if isinstance(value, tuple) else value
    return options


def to_transformers(
    state: Mapping[str, Tensor], config: Wav2Vec2Config, objective: Mapping[str, Any]
) -> tuple[dict[str, Tensor], dict[str, Any], dict[str, Any]]:
    """Tensors, `config.json` and `preprocessor_config.json` of a folder that transformers loads.

    With heads it is a `Wav2Vec2ForPreTraining`, without them a `Wav2Vec2Model`.

    Raises:
        CheckpointLayoutError: transformers has no such model.
    """
    if not config.input_projection:
        raise CheckpointLayoutError(
            "this model has no projection between extractor and blocks. transformers always has one. Export it as fairseq or "
            "safetensors."
        )
    heads = "quantizer.codebook" in state
    tensors = {_renamed(name, TRANSFORMERS): _foreign(name, tensor) for name, tensor in state.items()}
    if not heads:
        tensors = {name.removeprefix("wav2vec2."): tensor for name, tensor in tensors.items()}
    channels, kernels, strides = (list(column) for column in zip(*config.conv_layers, strict=True))
    about: dict[str, Any] = {
        "architectures": ["Wav2Vec2ForPreTraining" if heads else "Wav2Vec2Model"],
        "model_type": "wav2vec2",
        "conv_dim": channels,
        "conv_kernel": kernels,
        "conv_stride": strides,
        "conv_bias": config.conv_bias,
        "feat_extract_norm": config.conv_norm,
        "num_feat_extract_layers": len(channels),
        "hidden_size": config.dim,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "intermediate_size": config.ffn_dim,
        "do_stable_layer_norm": config.pre_norm,
        "num_conv_pos_embeddings": config.pos_conv_kernel,
        "num_conv_pos_embedding_groups": config.pos_conv_groups,
        "hidden_dropout": config.dropout,
        "attention_dropout": config.attention_dropout,
        "activation_dropout": config.activation_dropout,
        "layer_norm_eps": 1e-5,
        "hidden_act": "gelu",
        "layerdrop": objective.get("layerdrop", 0.0),
        "feat_proj_dropout": objective.get("dropout_input", 0.0),
        "feat_quantizer_dropout": objective.get("dropout_features", 0.0),
    }
    if heads:
        groups, entries, width = state["quantizer.codebook"].shape
        about |= {
            "num_codevector_groups": groups,
            "num_codevectors_per_group": entries,
            "codevector_dim": groups * width,
            "proj_codevector_dim": state["project_predictions.weight"].shape[0],
            "num_negatives": objective.get("num_negatives", 100),
            "contrastive_logits_temperature": objective.get("logit_temperature", 0.1),
            "mask_time_prob": objective.get("mask_prob", 0.65),
            "mask_time_length": objective.get("mask_length", 10),
            "diversity_loss_weight": objective.get("diversity_weight", 0.1),
        }
    preprocessor = {
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
    return tensors, about, preprocessor


def _renamed(name: str, rows: Sequence[Row]) -> str:
    for pattern, target in rows:
        match = re.fullmatch(pattern, name)
        if match:
            return match.expand(target)
    raise CheckpointLayoutError(
        f"the weight {name} has no name in that format. Only wav2vec 2.0 and what is built on it can be written so. Export it "
        "as safetensors."
    )


def _foreign(name: str, tensor: Tensor) -> Tensor:
    """The tensor in the others' shape: input channels before taps, and all codebooks on one axis."""
    if name.endswith(".weight") and tensor.ndim == 3 and ("convs." in name or ".conv." in name):
        return tensor.transpose(1, 2).contiguous()
    if name == "quantizer.codebook":
        return tensor.reshape(1, -1, tensor.shape[-1]).contiguous()
    return tensor.contiguous()
