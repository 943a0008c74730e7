"""`Stepper`: one update, from micro-batches to changed weights: seeds, precision, accumulation, clipping, AdamW.

Each micro-batch has a seed made from the run's seed, the update and its place in it. So one process that accumulates eight
makes the update that two processes make that accumulate four each, but for the order of sums.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hubcore.pretrain.data import Loaded
from hubcore.pretrain.metrics import MicroBatch
from hubcore.pretrain.objective import Batch, Losses, Objective
from hubcore.pretrain.processes import Processes
from hubcore.pretrain.recipe import Recipe
from hubcore.pretrain.seeds import derive_seed

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
_FIRST_SCALE = 128.0
"""fairseq's. A sum over all targets is a large number already."""
SMALLEST_SCALE = 1e-4
"""Below it, fp16 has failed. fairseq: `min_loss_scale`."""


@dataclass(frozen=True)
class Updated:
    """The effect of an update; the same in every process."""

    batches: list[MicroBatch]
    """Of all processes."""
    sample_size: int
    grad_norm: float
    lr: float
    overflow: bool
    """fp16 overflowed, so that weights stayed as they were."""
    scale: float
    flags: list[Any]
    """One of every process."""

    @property
    def weights(self) -> dict[str, float]:
        """Of each term of the loss."""
        return {name: weight for batch in self.batches for name, weight in sorted(batch.weights.items())}

    @property
    def loss(self) -> float:
        """The loss of one target."""
        return sum(batch.total for batch in self.batches) / max(self.sample_size, 1)

    @property
    def broken(self) -> bool:
        """True if the loss or its gradient is not a number, so that weights stayed as they were; not if fp16 overflowed."""
        return not self.overflow and not (math.isfinite(self.loss) and math.isfinite(self.grad_norm))

    @property
    def suspects(self) -> list[int]:
        """Places of the micro-batches that may have broken it: those whose own loss is NaN or infinite; all if none is."""
        lost = [batch.place for batch in self.batches if not math.isfinite(batch.total)]
        return lost or [batch.place for batch in self.batches]


class _Answering(nn.Module):
    """An objective whose forward returns the loss alone, a tensor, as DDP likes it; the rest stays here to be asked for."""

    def __init__(self, objective: Objective) -> None:
        super().__init__()
        self.objective = objective
        self.losses: Losses | None = None

    def forward(self, batch: Batch, update: int, seed: int) -> Tensor:
        losses: Losses = self.objective(batch, update=update, seed=seed)
        self.losses = losses
        return losses.total


class Stepper:
    """Makes updates of an objective, which may come on any device, in any mode."""

    def __init__(self, objective: Objective, recipe: Recipe, processes: Processes) -> None:
        self.recipe, self.processes = recipe, processes
        self.objective = objective.to(processes.device)
        self._answering = _Answering(self.objective)
        self._wrapped = processes.wrap(self._answering, skips_parameters=objective.skips_parameters)
        self.names: dict[Tensor, str] = {parameter: name for name, parameter in self.objective.named_parameters()}
        self._parameters = [parameter for parameter in self.names if parameter.requires_grad]
        options = recipe.optimization
        self.optimizer = torch.optim.AdamW(
            self._parameters, lr=options.lr, betas=options.betas, eps=options.eps, weight_decay=options.weight_decay
        )
        device = processes.device.type
        self._dtype = _DTYPES.get(options.precision)
        self._scaler = torch.amp.GradScaler(device, init_scale=_FIRST_SCALE, enabled=options.precision == "fp16")

    def scaler_state(self) -> dict[str, Any]:
        """The loss scale, for a checkpoint; empty unless fp16 is used."""
        state: dict[str, Any] = self._scaler.state_dict()
        return state

    def load_scaler_state(self, state: Mapping[str, Any]) -> None:
        """Takes over the loss scale of a checkpoint."""
        if state and self._scaler.is_enabled():
            self._scaler.load_state_dict(dict(state))

    def seed_for(self, update: int, place: int) -> int:
        """The seed of a micro-batch."""
        return derive_seed(self.recipe.run.seed, "micro-batch", update, place)

    def update(self, update: int, batches: Iterator[Loaded], flag: Callable[[], Any] = lambda: None) -> Updated:
        """One update, after `update` others: `accumulate` micro-batches of this process, and as many of each other one.

        `flag` is asked once the gradients are there; every process gets all answers.
        """
        count, world, rank = self.recipe.optimization.accumulate, self.processes.world, self.processes.rank
        self._wrapped.train()
        self.optimizer.zero_grad(set_to_none=True)
        own = [self._accumulate(update, place * world + rank, next(batches), last=place == count - 1) for place in range(count)]
        shared = self.processes.gather([(own, flag())])
        done = sorted((batch for part, _ in shared for batch in part), key=lambda one: one.place)
        size = sum(batch.sample_size for batch in done)
        lr = self.recipe.optimization.learning_rate(update)
        norm, overflow = 0.0, False
        if size:
            norm, overflow = self._step(size, lr, finite=math.isfinite(sum(batch.total for batch in done)))
        scale = float(self._scaler.get_scale())
        return Updated(done, size, norm, lr, overflow, scale, [flag for _, flag in shared])

    def _accumulate(self, update: int, place: int, loaded: Loaded, *, last: bool) -> MicroBatch:
        seed = self.seed_for(update, place)
        with self.processes.accumulating(self._wrapped, last=last):
            torch.manual_seed(seed)
            with self.autocast():
                total = self._wrapped(self.to_device(loaded.batch), update, seed)
            losses, self._answering.losses = self._answering.losses, None
            if losses is None:
                raise RuntimeError("the objective's forward was not called")
            self._scaler.scale(total.float() * (0 if loaded.stand_in else 1)).backward()
        return self.contribution(place, loaded, losses)

    def contribution(self, place: int, loaded: Loaded, losses: Losses) -> MicroBatch:
        """The plain numbers of a micro-batch; those of a stand-in count nothing."""
        weights = {name: term.weight for name, term in losses.terms.items()}
        if loaded.stand_in:
            return MicroBatch(place, 0.0, 0, 0, weights=weights, unreadable=loaded.unreadable)
        size, total = losses.sample_size, float(losses.total.detach())
        terms = {name: term.per_target(size) for name, term in losses.terms.items()}
        figures = {name: (float(value), float(weight)) for name, (value, weight) in losses.figures.items()}
        return MicroBatch(place, total, size, loaded.samples, terms, weights, figures, loaded.unreadable)

    def _step(self, size: int, lr: float, *, finite: bool) -> tuple[float, bool]:
        """Divides by the number of targets, clips, steps: the norm before clipping, and whether fp16 overflowed."""
        self._set_rates(lr)
        self._scaler.unscale_(self.optimizer)
        gradients = [parameter.grad for parameter in self._parameters if parameter.grad is not None]
        # DDP has averaged over processes what is to be a sum.
        factor = self.processes.world / size
        for gradient in gradients:
            gradient.mul_(factor)
        limit = self.recipe.optimization.clip_norm or math.inf
        norm = float(nn.utils.clip_grad_norm_(self._parameters, limit))
        if not self._scaler.is_enabled():
            if finite and math.isfinite(norm):
                self.optimizer.step()
            return norm, False
        before = self._scaler.get_scale()
        if finite or not math.isfinite(norm):  # with a norm that is not finite it takes no step, but notes the overflow
            self._scaler.step(self.optimizer)
        self._scaler.update()
        return norm, self._scaler.get_scale() < before

    def _set_rates(self, lr: float) -> None:
        """Sets learning rate and eps; in fairseq's form, eps depends on how many steps a parameter has made."""
        options = self.recipe.optimization
        groups: dict[float, list[Tensor]] = {}
        for parameter in self._parameters:
            eps = options.eps
            if options.eps_form == "fairseq":  # parameters that layer drop left out have made fewer
                step = int(self.optimizer.state[parameter]["step"]) + 1 if parameter in self.optimizer.state else 1
                eps /= math.sqrt(1 - options.betas[1] ** step)
            groups.setdefault(eps, []).append(parameter)
        common = self.optimizer.param_groups[0]
        self.optimizer.param_groups = [{**common, "params": part, "lr": lr, "eps": eps} for eps, part in groups.items()]

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """The precision that the forward pass computes with."""
        if self._dtype is None:
            return contextlib.nullcontext()
        return torch.autocast(self.processes.device.type, dtype=self._dtype)

    def to_device(self, batch: Batch) -> Batch:
        """The batch with its waveforms where the weights are."""
        device = self.processes.device
        return dataclasses.replace(batch, wavs=[wav.to(device, non_blocking=True) for wav in batch.wavs])
