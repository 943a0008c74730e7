"""Weights to start from: the encoder and, where the file has them, the heads of a checkpoint of any layout."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hubcore.checkpoints import Checkpoint, Names, Reader, Turn, open_checkpoint
from hubcore.checkpoints.layouts import NATIVE
from hubcore.checkpoints.weights import check_names
from hubcore.errors import CheckpointLayoutError
from hubcore.loading import import_class
from hubcore.pretrain.objective import Objective
from hubcore.registry.names import current_registry


@dataclass(frozen=True)
class Start:
    """Everything that a family states about checkpoints to start its pre-training from.

    Example:
        >>> from hubcore_wav2vec2.pretrain.start import START
        >>> START.mark
        'quantizer.codebook'
    """

    reader: Reader[Any, Any]
    """The plain family's. A file of `save_checkpoint` may be of any family whose config class is a kind of its."""
    heads: Names
    """Names of the heads of pre-training, beside the encoder."""
    mark: str
    """The head that only this objective has; in a foreign file without it, other heads are not taken."""
    read: Callable[[Objective, Checkpoint, str, Tensor], Tensor]
    """The head of that name, as it is in a foreign file, in our shape."""
    check: Callable[[Path, Objective, dict[str, Tensor]], None]
    """Refuses, or takes out, heads that have another shape than the objective's."""


def load_pretraining_weights(
    objective: Objective,
    path: Path,
    start: Start,
    *,
    readers: tuple[Reader[Any, Any], ...] = (),
    may_be_fresh: str = "\0",
) -> tuple[list[str], list[str]]:
    """Copies a checkpoint's weights into an objective: names of what was taken, and of what stays fresh.

    Args:
        objective: its encoder is `model`, its config `model_config`.
        path: the checkpoint.
        start: what the family says.
        readers: what reads it, if not `start.reader`; the first that claims it. If none does, the last says why.
        may_be_fresh: encoder weights whose name starts so may be missing, too.

    Raises:
        CheckpointLayoutError: the file's encoder is of another shape.
        MissingWeightsError: a weight of the encoder is missing.
    """
    target: dict[str, Tensor] = dict(objective.state_dict())
    readers = readers or (start.reader,)
    plain = start.reader.config_class
    fields = [field.name for field in dataclasses.fields(plain)]
    with open_checkpoint(path) as checkpoint:
        foreign = checkpoint.layout != NATIVE
        if not foreign:  # of this family or of one built on it
            _check_family(checkpoint, start.reader)
            rows: dict[str, tuple[str, Turn | None]] = {name: (name, None) for name in checkpoint.tensors}
            found = plain(**{name: checkpoint.config[name] for name in fields if name in checkpoint.config})
            _check_config(path, objective.model_config, found, plain, fields)
        else:
            reader = next((reader for reader in readers if reader.claims(checkpoint)), readers[-1])
            encoder = {f"model.{ours}": row for ours, row in reader.find_weights(checkpoint).items()}
            rows = encoder | _heads(checkpoint, start)
            if checkpoint.config:
                _check_config(path, objective.model_config, reader.read_config(checkpoint, None, []), plain, fields)
        values: dict[str, Tensor] = {}
        for ours, (theirs, turn) in rows.items():
            if ours not in target:
                continue
            tensor = checkpoint.read([theirs], dtype=torch.float32)[theirs]
            tensor = turn.read(tensor) if turn else tensor
            values[ours] = start.read(objective, checkpoint, ours, tensor) if foreign else tensor
        start.check(path, objective, values)
        needed = {
            name: tuple(value.shape)
            for name, value in target.items()
            if name in values or (name.startswith("model.") and not name.startswith(f"model.{may_be_fresh}"))
        }
        found_shapes = {name: (rows[name][0], tuple(value.shape)) for name, value in values.items()}
        check_names(path, needed, found_shapes, "the model of this recipe")
    with torch.no_grad():
        for name, value in values.items():
            target[name].copy_(value)
    return sorted(values), sorted(set(target) - set(values))


def _heads(checkpoint: Checkpoint, start: Start) -> dict[str, tuple[str, Turn | None]]:
    """Our name -> the file's name and turn, of the heads of pre-training; a prefix may stand before them."""
    found = start.reader.names.find(checkpoint.tensors)
    system, prefix = found if found else ("fairseq", "")
    beside = {name.removeprefix(prefix): name for name in checkpoint.tensors}
    heads = {ours: (beside[theirs], turn) for ours, (theirs, turn) in start.heads.read(system, beside).items()}
    # The final_proj of wav2vec 2.0 and that of HuBERT have one name; what else is there tells them apart.
    return {ours: row for ours, row in heads.items() if ours == "mask_embedding" or start.mark in heads}


def _check_family(checkpoint: Checkpoint, plain: Reader[Any, Any]) -> None:
    """Refuses our own file of a family that is not built on this one, such as HuBERT's for wav2vec 2.0."""
    families = (entry.family for entry in current_registry().entries)
    family = next((family for family in families if family is not None and family.class_name == checkpoint.kind), None)
    reader = getattr(import_class(family), "reader", None) if family is not None else plain
    if reader is None or not issubclass(reader.config_class, plain.config_class):
        raise CheckpointLayoutError(
            f"{checkpoint.path} is a checkpoint of {checkpoint.kind}, which is not of the {plain.family} family. Start from "
            "one that is."
        )


def _check_config(path: Path, wanted: Any, found: Any, plain: type[Any], fields: list[str]) -> None:
    # What a family built on the plain one adds is checked tensor by tensor.
    wanted, found = (plain(**{name: getattr(config, name) for name in fields}) for config in (wanted, found))
    wrong = wanted.differences(found)
    if wrong:
        raise CheckpointLayoutError(
            f"{path} cannot start this run, for its model is another one: {'; '.join(wrong)} (this recipe's value "
            "first). Give model: the values of the checkpoint."
        )
