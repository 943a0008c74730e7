"""A checkpoint of ours in the names and containers of others: fairseq's file, transformers' folder.

The names are those of `hubcore_wav2vec2.checkpoint`. Heads of pre-training go along where the file has them.
"""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import yaml
from torch import Tensor

from hubcore.checkpoints import Names, fairseq, transformers
from hubcore.checkpoints.encoder_names import fairseq_names, split_heads
from hubcore.errors import CheckpointLayoutError
from hubcore_wav2vec2.checkpoint import HEADS, NAMES
from hubcore_wav2vec2.config import Wav2Vec2Config
from hubcore_wav2vec2.pretrain.config import Wav2Vec2Objective

_OBJECTIVE = {
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
"""Our option of pre-training -> fairseq's."""
_WEIGHTS = ("diversity_weight", "features_penalty_weight")
_DEFAULTS = Path(__file__).with_name("fairseq_defaults.yaml")


def to_fairseq(
    state: Mapping[str, Tensor],
    config: Wav2Vec2Config,
    objective: Mapping[str, Any],
    *,
    names: Names = NAMES,
    more_options: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Dictionary of tensors and plain values that `torch.save` must write so that fairseq loads it.

    Args:
        state: our names -> tensors, the encoder's under `model.`, the heads' beside them.
        config: the encoder's.
        objective: the options of pre-training, by our names; those that are missing have fairseq's defaults.
        names: the encoder's names, of a family built on wav2vec 2.0.
        more_options: its options, in the original's names.

    Raises:
        CheckpointLayoutError: a weight has no name there.
    """
    names = fairseq_names(names, config)
    encoder, heads = split_heads(state)
    missing = [row.ours for row in HEADS.rows if not any(fnmatchcase(name, row.ours) for name in heads)]
    if missing:
        raise CheckpointLayoutError(
            f"there is no {', '.join(missing)} in hubcore's names beside this encoder, and fairseq's model has all heads of "
            "pre-training. Export a run, or use hf or safetensors."
        )
    defaults = Wav2Vec2Objective()
    options = {theirs: objective.get(ours, getattr(defaults, ours)) for ours, theirs in _OBJECTIVE.items()}
    cfg = yaml.safe_load(_DEFAULTS.read_text(encoding="utf-8"))
    cfg["model"] |= {
        **fairseq.encoder_options(config),
        **_quantizer(heads, "latent_groups", "latent_vars", "latent_dim", "final_dim"),
        **{name: list(value) if isinstance(value, tuple) else value for name, value in options.items()},
        **(more_options or {}),
    }
    cfg["task"] |= {"normalize": config.normalize, "sample_rate": config.sample_rate}
    cfg["criterion"]["loss_weights"] = [objective.get(name, getattr(defaults, name)) for name in _WEIGHTS]
    return fairseq.whole_file(
        cfg, {**names.write("fairseq", encoder), **HEADS.write("fairseq", heads)}, criterion="Wav2vecCriterion"
    )


def to_transformers(
    state: Mapping[str, Tensor], config: Wav2Vec2Config, objective: Mapping[str, Any]
) -> tuple[dict[str, Tensor], dict[str, Any], dict[str, Any]]:
    """Tensors, `config.json` and `preprocessor_config.json` of a folder that transformers loads.

    With heads it is a `Wav2Vec2ForPreTraining`, without them a `Wav2Vec2Model`.

    Raises:
        CheckpointLayoutError: transformers has no such model.
    """
    transformers.require_projection(config)
    encoder, heads = split_heads(state)
    tensors = NAMES.write("transformers", encoder)
    about: dict[str, Any] = {
        "architectures": ["Wav2Vec2ForPreTraining" if heads else "Wav2Vec2Model"],
        "model_type": "wav2vec2",
        **transformers.encoder_options(config),
        "layerdrop": objective.get("layerdrop", 0.0),
        "feat_proj_dropout": objective.get("dropout_input", 0.0),
        "feat_quantizer_dropout": objective.get("dropout_features", 0.0),
    }
    if heads:
        beside = HEADS.write("transformers", heads)
        mask = {f"wav2vec2.{name}": beside.pop(name) for name in ("masked_spec_embed",) if name in beside}
        tensors = {**{f"wav2vec2.{name}": tensor for name, tensor in tensors.items()}, **mask, **beside}
        about |= {
            **_quantizer(heads, "num_codevector_groups", "num_codevectors_per_group", "codevector_dim", "proj_codevector_dim"),
            "num_negatives": objective.get("num_negatives", 100),
            "contrastive_logits_temperature": objective.get("logit_temperature", 0.1),
            "mask_time_prob": objective.get("mask_prob", 0.65),
            "mask_time_length": objective.get("mask_length", 10),
            "diversity_loss_weight": objective.get("diversity_weight", 0.1),
        }
    return tensors, about, transformers.feature_extractor(config)


def _quantizer(heads: Mapping[str, Tensor], groups: str, entries: str, dim: str, final_dim: str) -> dict[str, int]:
    """The shape of the quantiser, under the names given."""
    if "quantizer.codebook" not in heads:
        return {}
    count, size, width = heads["quantizer.codebook"].shape
    return {groups: count, entries: size, dim: count * width, final_dim: heads["project_predictions.weight"].shape[0]}
