"""`describe_run`: what a run would do, for `--dry-run`: audio, batches, parameters, disk, schedule."""

from __future__ import annotations

import os
from typing import Any

from hubcore.pretrain.prepare import Prepared


def describe_run(prepared: Prepared) -> dict[str, Any]:
    """Figures of a run, without training: the objective is built on the CPU to count its parameters."""
    recipe = prepared.recipe
    options, corpus = recipe.optimization, prepared.train.corpus
    world = int(os.environ.get("WORLD_SIZE", "1"))
    group = world * options.accumulate
    batches = len(prepared.train.epochs.epoch(0))
    objective = prepared.build()
    parameters = sum(parameter.numel() for parameter in objective.parameters())
    trained = sum(parameter.numel() for parameter in objective.parameters() if parameter.requires_grad)
    used = sum(prepared.train.epochs.lengths)
    tensors = sum(tensor.numel() * tensor.element_size() for tensor in objective.state_dict().values())
    checkpoint = tensors + 8 * trained
    last = max(min(options.warmup_updates, options.max_updates) - 1, 0)
    rates = [options.learning_rate(update) for update in (0, last)]
    return {
        "objective": f"{prepared.objective_class.__module__}.{prepared.objective_class.__name__}",
        "loads_with": prepared.upstream_class,
        "utterances": len(corpus.utterances),
        "too_short": len(corpus.too_short),
        "hours": round(corpus.samples / prepared.sample_rate / 3600, 3),
        "hours_an_epoch": round(used / prepared.sample_rate / 3600, 3),
        "batches_an_epoch": batches,
        "utterances_a_batch": round(len(corpus.utterances) / batches, 1),
        "processes": world,
        "micro_batches_an_update": group,
        "hours_an_update": round(used / prepared.sample_rate / 3600 / batches * group, 4),
        "updates": options.max_updates,
        "epochs": round(options.max_updates * group / batches, 2),
        "highest_lr": max(*rates, options.lr if options.max_updates > options.warmup_updates else 0.0),
        "parameters": parameters,
        "checkpoint_bytes": checkpoint,
        "kept_bytes": checkpoint * (recipe.run.keep_last + 1),
        "valid_utterances": len(prepared.valid.corpus.utterances) if prepared.valid else 0,
    }
