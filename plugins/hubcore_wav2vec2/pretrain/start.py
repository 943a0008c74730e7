"""Heads of wav2vec 2.0's pre-training in a checkpoint to start from."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from hubcore.checkpoints import Checkpoint
from hubcore.errors import CheckpointLayoutError
from hubcore.pretrain.initialise import Start
from hubcore.pretrain.objective import Objective
from hubcore_wav2vec2.checkpoint import HEADS, READER


def _read(objective: Objective, checkpoint: Checkpoint, name: str, tensor: Tensor) -> Tensor:
    """A head in our shape: elsewhere the codebook has all groups on one axis."""
    if name != "quantizer.codebook":
        return tensor
    said = checkpoint.config.get("latent_groups", checkpoint.config.get("num_codevector_groups"))
    groups = said if isinstance(said, int) and said > 0 else objective.config.codebook_groups
    return tensor.unflatten(1, (groups, -1))[0] if tensor.shape[1] % groups == 0 else tensor


def _check(path: Path, objective: Objective, values: dict[str, Tensor]) -> None:
    """Refuses heads of another shape, and says which options made them."""
    codebook = values.get("quantizer.codebook")
    if codebook is None or codebook.ndim != 3 or "project_predictions.weight" not in values:
        return
    groups, entries, width = codebook.shape
    made = {"codebook_groups": groups, "codebook_entries": entries, "codebook_dim": groups * width}
    made["final_dim"] = len(values["project_predictions.weight"])
    wrong = {name: value for name, value in made.items() if getattr(objective.config, name) != value}
    if wrong:
        told = ", ".join(
            f"{name} {value} and this recipe has {getattr(objective.config, name)}" for name, value in wrong.items()
        )
        raise CheckpointLayoutError(
            f"{path} cannot start this run, for its heads are of another shape: it has {told}. Add "
            f"{' '.join(f'objective.{name}={value}' for name, value in wrong.items())}."
        )


START = Start(reader=READER, heads=HEADS, mark="quantizer.codebook", read=_read, check=_check)
"""For `hubcore.pretrain.initialise`."""
