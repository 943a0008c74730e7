"""`validate`: the figures of a validation set, in eval mode, for each of the objective's variants. Seeds never change."""

from __future__ import annotations

from typing import Any

import torch

from hubcore.pretrain.data import Place, read_ahead
from hubcore.pretrain.metrics import Window
from hubcore.pretrain.prepare import Data
from hubcore.pretrain.seeds import derive_seed
from hubcore.pretrain.steps import Stepper


def validate(stepper: Stepper, data: Data, update: int, *, workers: int) -> dict[str, Any]:
    """A row of figures, `valid/<variant>/<figure>`, the same whatever the number of processes."""
    objective, processes = stepper.objective, stepper.processes
    variants = objective.variants() or {"": {}}
    batches = data.epochs.epoch(0)
    places = [Place(0, position) for position in range(len(batches))][processes.rank :: processes.world]
    found: dict[str, Any] = {}
    was_training = objective.training
    objective.eval()
    try:
        contributions: dict[str, list[Any]] = {label: [] for label in variants}
        reading = read_ahead(data.reader, iter([(place, batches[place.position]) for place in places]), workers=workers)
        for place, loaded in zip(places, reading, strict=True):
            if loaded.stand_in:
                continue
            batch = stepper.to_device(loaded.batch)
            for label, options in variants.items():
                seed = derive_seed(stepper.recipe.run.seed, "validation", place.position)
                torch.manual_seed(seed)
                with torch.no_grad(), stepper.autocast():
                    losses = objective(batch, update=update, seed=seed, **options)
                contributions[label].append(stepper.contribution(place.position, loaded, losses))
        for label, own in contributions.items():
            window = Window()
            window.add(processes.gather(own))
            prefix = f"valid/{label}/" if label else "valid/"
            found.update({f"{prefix}{name}": value for name, value in window.row().items()})
    finally:
        objective.train(was_training)
    return found
