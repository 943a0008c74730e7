"""Heads of HuBERT's pre-training in a checkpoint to start from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from hubcore.checkpoints import Checkpoint
from hubcore.pretrain.initialise import Start
from hubcore.pretrain.objective import Objective
from hubcore_hubert.checkpoint import HEADS, READER

SPECIAL = 4
"""Symbols that fairseq's dictionary begins with (<s>, <pad>, </s>, <unk>). They have embeddings there, and are never units."""


def _read(objective: Objective, checkpoint: Checkpoint, name: str, tensor: Tensor) -> Tensor:  # noqa: ARG001
    """A head in our shape: fairseq's label embeddings without its special symbols, if it has as many units as we have."""
    clusters: Sequence[int] = objective.config.clusters
    if name != "label_embeddings" or len(tensor) != sum(clusters) + SPECIAL * len(clusters):
        return tensor
    return torch.cat([part[SPECIAL:] for part in tensor.split([count + SPECIAL for count in clusters])])


def _check(path: Path, objective: Objective, values: dict[str, Tensor]) -> None:  # noqa: ARG001
    """Takes out the heads of other units, which begin afresh; the encoder and the mask embedding are taken over."""
    target, heads = objective.state_dict(), [name for name in values if not name.startswith(("model.", "mask_"))]
    if any(values[name].shape != target[name].shape for name in heads):
        for name in heads:
            del values[name]


START = Start(reader=READER, heads=HEADS, mark="label_embeddings", read=_read, check=_check)
"""For `hubcore.pretrain.initialise`."""
