"""From an open checkpoint to a model with weights: a plan that a family makes, and what carries it out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from hubcore.checkpoints.converted import Recipe, find_converted, keep_converted
from hubcore.checkpoints.layouts import Checkpoint, Rename, open_checkpoint
from hubcore.checkpoints.report import LoadReport

Config = TypeVar("Config", bound=Any)
Model = TypeVar("Model", bound=nn.Module)


@dataclass(frozen=True)
class WeightPlan(Generic[Config, Model]):
    """How the tensors of a checkpoint become the weights of a model; nothing has been read yet."""

    config: Config
    model: Model
    """The model, without memory behind its weights."""
    rows: tuple[tuple[str, str, Rename], ...]
    """Our name, the file's name, and what happens to the tensor, in the order of the model's state dict."""
    report: LoadReport

    def fill(self, checkpoint: Checkpoint) -> Model:
        """The model with its weights in float32; each storage of the file is read once."""
        tensors = checkpoint.read([theirs for _, theirs, _ in self.rows], dtype=torch.float32)
        state = {ours: row.convert(tensors[theirs]) if row.convert else tensors[theirs] for ours, theirs, row in self.rows}
        self.model.load_state_dict(state, strict=True, assign=True)
        return self.model

    def weights(self, checkpoint: Checkpoint) -> Iterator[tuple[str, Tensor]]:
        """The weights in float32, one in memory at a time."""
        for ours, theirs, row in self.rows:
            tensor = checkpoint.read([theirs], dtype=torch.float32)[theirs]
            yield ours, row.convert(tensor) if row.convert else tensor


def read_weights(
    path: Path,
    plan: Callable[[Checkpoint], WeightPlan[Config, Model]],
    *,
    config_class: type[Config],
    build: Callable[[Config], Model],
    reader: str,
) -> tuple[Config, Model, LoadReport]:
    """The config, the model with its weights in float32, and the report of a checkpoint, or of its converted copy.

    Args:
        path: file or folder.
        plan: the family's reading of an open checkpoint; it raises where weights are missing.
        config_class: the class of the config that a copy holds.
        build: makes the model that a config describes.
        reader: names what `plan` does, its version, and all it depends on beside the file; a copy belongs to one reader.
    """
    copy = find_converted(path, reader)
    if copy is not None:
        config = config_class(**copy.config)
        with torch.device("meta"):
            model = build(config)
        model.load_state_dict(copy.weights, strict=True, assign=True)
        return config, model, copy.report
    with open_checkpoint(path) as checkpoint:
        planned = plan(checkpoint)
        shapes = {name: tuple(value.shape) for name, value in planned.model.state_dict().items()}
        model = planned.fill(checkpoint)

    def again() -> Iterator[tuple[str, Tensor]]:
        with open_checkpoint(path) as reopened:
            yield from planned.weights(reopened)

    keep_converted(path, reader, Recipe(planned.config, shapes, again, planned.report))
    return planned.config, model, planned.report
