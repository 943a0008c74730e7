"""A checkpoint of ours in the names and containers of others: fairseq's file, transformers' folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from hubcore.checkpoints import fairseq, transformers
from hubcore.checkpoints.encoder_names import fairseq_names, split_heads
from hubcore.errors import CheckpointLayoutError
from hubcore_hubert.checkpoint import HEADS, NAMES
from hubcore_hubert.config import HubertConfig
from hubcore_hubert.pretrain.config import HubertObjective
from hubcore_hubert.pretrain.start import SPECIAL

_OBJECTIVE = {
    "label_rate": "label_rate",
    "final_dim": "final_dim",
    "untie_projections": "untie_final_proj",
    "mask_prob": "mask_prob",
    "mask_length": "mask_length",
    "mask_selection": "mask_selection",
    "mask_other": "mask_other",
    "no_mask_overlap": "no_mask_overlap",
    "mask_min_space": "mask_min_space",
    "logit_temperature": "logit_temp",
    "feature_grad_scale": "feature_grad_mult",
    "dropout_input": "dropout_input",
    "layerdrop": "encoder_layerdrop",
}
"""Our option of pre-training -> fairseq's."""
_DEFAULTS = Path(__file__).with_name("fairseq_defaults.yaml")


def to_fairseq(state: Mapping[str, Tensor], config: HubertConfig, objective: Mapping[str, Any]) -> dict[str, Any]:
    """Dictionary of tensors and plain values that `torch.save` must write so that fairseq loads it.

    The embeddings of fairseq's special symbols, which are never units, are zeros.

    Args:
        state: our names -> tensors, the encoder's under `model.`, the heads' beside them.
        config: the encoder's.
        objective: the options of pre-training, by our names; those that are missing have our defaults.

    Raises:
        CheckpointLayoutError: a weight has no name there, or a head is missing.
    """
    names = fairseq_names(NAMES, config)
    encoder, heads = split_heads(state)
    if "label_embeddings" not in heads:
        raise CheckpointLayoutError(
            "there are no heads of pre-training in hubcore's names beside this encoder, and fairseq's model has them. Export a "
            "run, or use hf or safetensors."
        )
    embeddings = heads["label_embeddings"]
    clusters = [*(objective.get("clusters") or [len(embeddings)])]
    special = embeddings.new_zeros(SPECIAL, embeddings.shape[1])
    heads["label_embeddings"] = torch.cat([part for own in embeddings.split(clusters) for part in (special, own)])
    options = vars(HubertObjective(**{**objective, "clusters": clusters, "final_dim": embeddings.shape[1]}))
    cfg = yaml.safe_load(_DEFAULTS.read_text(encoding="utf-8"))
    cfg["model"] |= {**fairseq.encoder_options(config), **{theirs: options[ours] for ours, theirs in _OBJECTIVE.items()}}
    labels = ["km"] if len(clusters) == 1 else [f"km{number}" for number in range(len(clusters))]
    cfg["task"] |= {
        "labels": labels,
        "label_rate": options["label_rate"],
        "normalize": config.normalize,
        "sample_rate": config.sample_rate,
    }
    cfg["criterion"] |= {
        "pred_masked_weight": options["masked_weight"],
        "pred_nomask_weight": options["unmasked_weight"],
        "loss_weights": [options["features_penalty_weight"]],
    }
    return fairseq.whole_file(
        cfg, {**names.write("fairseq", encoder), **HEADS.write("fairseq", heads)}, criterion="HubertCriterion"
    )


def to_transformers(
    state: Mapping[str, Tensor], config: HubertConfig, objective: Mapping[str, Any]
) -> tuple[dict[str, Tensor], dict[str, Any], dict[str, Any]]:
    """Tensors, `config.json` and `preprocessor_config.json` of a folder that transformers loads as `HubertModel`.

    Of the heads, only the mask embedding has a place there.

    Raises:
        CheckpointLayoutError: transformers has no such model.
    """
    transformers.require_projection(config)
    encoder, heads = split_heads(state)
    kept = {name: tensor for name, tensor in heads.items() if name == "mask_embedding"}
    tensors = {**NAMES.write("transformers", encoder), **HEADS.write("transformers", kept)}
    about = {
        "architectures": ["HubertModel"],
        "model_type": "hubert",
        **transformers.encoder_options(config),
        "layerdrop": objective.get("layerdrop", 0.0),
        "feat_proj_dropout": objective.get("dropout_input", 0.0),
        "mask_time_prob": objective.get("mask_prob", 0.65),
        "mask_time_length": objective.get("mask_length", 10),
    }
    return tensors, about, transformers.feature_extractor(config)
