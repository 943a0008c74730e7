"""A checkpoint of ours in the original's file format; transformers has no such model."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from hubcore.errors import CheckpointLayoutError
from hubcore_ofa_wav2vec2.checkpoint import NAMES
from hubcore_ofa_wav2vec2.config import OfaWav2Vec2Config
from hubcore_ofa_wav2vec2.pretrain.config import OfaWav2Vec2Objective
from hubcore_wav2vec2.export import to_fairseq as wav2vec2_to_fairseq

_OPTIONS = {
    "lambd_draw": "mixup_distro",
    "upper_lambd": "upper_lambd",
    "cardinality_weight": "card_loss",
    "target_ratio": "target_ratio",
    "segmentation_weight": "seg_loss",
    "frame_weight": "frame_loss",
}


_UNKNOWN = {
    "optimization": "debug_param_names",
    "generation": ".*_mt",
    "model": "adp_.*",
    "task": "multi_corpus_.*|rebuild_batches|subsample|seed|precompute_mask_config|post_save_script",
}
"""Section -> keys of today's fairseq that the fork, which is older, does not know."""


def to_fairseq(state: Mapping[str, Tensor], config: OfaWav2Vec2Config, objective: Mapping[str, Any]) -> dict[str, Any]:
    """Dictionary that `torch.save` must write for the original's fork of fairseq; see `hubcore_wav2vec2.export.to_fairseq`.

    Raises:
        CheckpointLayoutError: that fork has no such model: its CIF module is 512 wide, with a kernel of 5, whatever the config.
    """
    if (config.conv_dim, config.alpha_kernel) != (512, 5):
        raise CheckpointLayoutError(
            f"the extractor is {config.conv_dim} wide and alpha's kernel is {config.alpha_kernel}. The original's CIF module "
            "takes 512 and 5 only. Export it as safetensors."
        )
    low, high = config.lambd_range
    drawn = "uniform" if (low, high) == (0.0, 1.0) else "scale" if low == 1.0 else "both"
    options = {"subsample": "cif", "fixed_subsample_ratio": 4, "mixup": config.mixing}
    defaults = {"lambd_draw": drawn, "upper_lambd": high}
    options |= {
        theirs: objective.get(ours, defaults.get(ours, getattr(OfaWav2Vec2Objective(), ours)))
        for ours, theirs in _OPTIONS.items()
    }
    written = wav2vec2_to_fairseq(state, config, objective, names=NAMES, more_options=options)
    cfg = written["cfg"]
    for section, unknown in _UNKNOWN.items():
        cfg[section] = {name: value for name, value in cfg[section].items() if not re.fullmatch(unknown, name)}
    del cfg["simul_type"]
    cfg["task"] |= {"alpha_root": "", "boundaries_root": "", "inferred_w2v_config": None, "precompute_mask_indices": False}
    cfg["criterion"]["loss_weights"] += [1.0, 1.0, 1.0]  # the model has the weights of these three
    cfg["criterion"]["log_keys"] += ["alpha_mean", "alpha_std"]
    return written
