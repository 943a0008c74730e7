"""A checkpoint of ours in the original's file format; transformers has no such model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from hubcore.errors import CheckpointLayoutError
from hubcore_ofa_wav2vec2.checkpoint import NAMES
from hubcore_ofa_wav2vec2.config import OfaWav2Vec2Config
from hubcore_wav2vec2.export import to_fairseq as wav2vec2_to_fairseq

_OPTIONS = {
    "lambd_draw": "mixup_distro",
    "upper_lambd": "upper_lambd",
    "cardinality_weight": "card_loss",
    "target_ratio": "target_ratio",
    "segmentation_weight": "seg_loss",
    "frame_weight": "frame_loss",
}


def to_fairseq(state: Mapping[str, Tensor], config: OfaWav2Vec2Config, objective: Mapping[str, Any]) -> dict[str, Any]:
    """Dictionary that `torch.save` must write for the original's fork of fairseq; see `hubcore_wav2vec2.export.to_fairseq`.

    That fork's CIF module is 512 wide whatever the config says, so it loads models of 512 convolutional channels only.
    """
    low, high = config.lambd_range
    drawn = "uniform" if (low, high) == (0.0, 1.0) else "scale" if low == 1.0 else "both"
    options = {"subsample": "cif", "mixup": config.mixing, "mixup_distro": drawn, "upper_lambd": high}
    options |= {theirs: objective[ours] for ours, theirs in _OPTIONS.items() if ours in objective}
    return wav2vec2_to_fairseq(state, config, objective, names=NAMES, more_options=options)


def to_transformers(state: Mapping[str, Tensor], config: OfaWav2Vec2Config, objective: Mapping[str, Any]) -> Any:
    """Always an error.

    Raises:
        CheckpointLayoutError: transformers has no OFA wav2vec 2.0.
    """
    raise CheckpointLayoutError(
        f"transformers has no OFA wav2vec 2.0, so these {len(state)} weights of {config.num_layers} blocks "
        f"({len(objective)} options) cannot be written for it. Export them as fairseq or safetensors."
    )
