"""Weights to start from: the encoder and, where the file has them, the heads of a checkpoint of any layout."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hubcore.checkpoints import Checkpoint, Reader, Turn, open_checkpoint
from hubcore.checkpoints.layouts import NATIVE
from hubcore.checkpoints.weights import check_names
from hubcore.errors import CheckpointLayoutError
from hubcore.loading import import_class
from hubcore.pretrain.objective import Objective
from hubcore.registry.names import current_registry
from hubcore_wav2vec2.checkpoint import HEADS, READER
from hubcore_wav2vec2.config import Wav2Vec2Config

_FIELDS = tuple(field.name for field in dataclasses.fields(Wav2Vec2Config))


def load_pretraining_weights(
    objective: Objective, path: Path, *, readers: tuple[Reader[Any, Any], ...] = (READER,), may_be_fresh: str = "\0"
) -> tuple[list[str], list[str]]:
    """Copies a checkpoint's weights into an objective: names of what was taken, and of what stays fresh.

    Args:
        objective: its encoder is `model`, its config `model_config`.
        path: the checkpoint.
        readers: what reads it; the first that claims it. If none does, the last says why.
        may_be_fresh: encoder weights whose name starts so may be missing, too.

    Raises:
        CheckpointLayoutError: the file's encoder is of another shape.
        MissingWeightsError: a weight of the encoder is missing.
    """
    target: dict[str, Tensor] = dict(objective.state_dict())
    with open_checkpoint(path) as checkpoint:
        if checkpoint.layout == NATIVE:  # of this family or of one built on it
            _check_family(checkpoint)
            rows: dict[str, tuple[str, Turn | None]] = {name: (name, None) for name in checkpoint.tensors}
            found = Wav2Vec2Config(**{name: checkpoint.config[name] for name in _FIELDS if name in checkpoint.config})
            _check_config(path, objective.model_config, found)
        else:
            reader = next((reader for reader in readers if reader.claims(checkpoint)), readers[-1])
            rows = {f"model.{ours}": row for ours, row in reader.find_weights(checkpoint).items()} | _heads(checkpoint)
            if checkpoint.config:
                _check_config(path, objective.model_config, reader.read_config(checkpoint, None, []))
        values: dict[str, Tensor] = {}
        for ours, (theirs, turn) in rows.items():
            if ours not in target:
                continue
            tensor = checkpoint.read([theirs], dtype=torch.float32)[theirs]
            tensor = turn.read(tensor) if turn else tensor
            if ours == "quantizer.codebook" and checkpoint.layout != NATIVE:  # elsewhere all groups are on one axis
                said = checkpoint.config.get("latent_groups", checkpoint.config.get("num_codevector_groups"))
                groups = said if isinstance(said, int) and said > 0 else objective.config.codebook_groups
                tensor = tensor.unflatten(1, (groups, -1))[0] if tensor.shape[1] % groups == 0 else tensor
            values[ours] = tensor
        _check_heads(path, objective, values)
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


def _heads(checkpoint: Checkpoint) -> dict[str, tuple[str, Turn | None]]:
    """Our name -> the file's name and turn, of the heads of pre-training; a prefix may stand before them."""
    found = READER.names.find(checkpoint.tensors)
    system, prefix = found if found else ("fairseq", "")
    beside = {name.removeprefix(prefix): name for name in checkpoint.tensors}
    heads = {ours: (beside[theirs], turn) for ours, (theirs, turn) in HEADS.read(system, beside).items()}
    # HuBERT's final_proj goes by the name of ours, but has no codebook beside it.
    return {ours: row for ours, row in heads.items() if ours == "mask_embedding" or "quantizer.codebook" in heads}


def _check_family(checkpoint: Checkpoint) -> None:
    """Refuses our own file of a family that is not built on this one, such as HuBERT's."""
    families = (entry.family for entry in current_registry().entries)
    family = next((family for family in families if family is not None and family.class_name == checkpoint.kind), None)
    reader = getattr(import_class(family), "reader", None) if family is not None else READER
    if reader is None or not issubclass(reader.config_class, Wav2Vec2Config):
        raise CheckpointLayoutError(
            f"{checkpoint.path} is a checkpoint of {checkpoint.kind}, which is not of the wav2vec 2.0 family. Start from one "
            "that is."
        )


def _check_heads(path: Path, objective: Objective, values: Mapping[str, Tensor]) -> None:
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


def _check_config(path: Path, wanted: Wav2Vec2Config, found: Wav2Vec2Config) -> None:
    wrong = _plain(wanted).differences(_plain(found))
    if wrong:
        raise CheckpointLayoutError(
            f"{path} cannot start this run, for its model is another one: {'; '.join(wrong)} (this recipe's value "
            "first). Give model: the values of the checkpoint."
        )


def _plain(config: Wav2Vec2Config) -> Wav2Vec2Config:
    """The config without what a family built on wav2vec 2.0 adds; its shapes are checked tensor by tensor."""
    return Wav2Vec2Config(**{name: getattr(config, name) for name in _FIELDS})
