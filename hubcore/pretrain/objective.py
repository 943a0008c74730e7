"""`Objective`: a model with its pre-training heads, which turns a batch of waveforms into losses. Inherit it.

The training loop (`hubcore.pretrain.loop`) knows no model. It trains any class of this kind, found by the entry points of the
group `hubcore.objectives`. Terms of the loss and figures are data: whatever an objective gives is added up, written, shown,
drawn and watched as it says itself.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from hubcore.errors import CheckpointError, OptionError


@dataclass(frozen=True)
class Batch:
    """Some utterances to learn from, each a 1-D waveform; nothing is padded.

    Example:
        >>> import torch
        >>> Batch([torch.zeros(16000)]).keys
        []
    """

    wavs: Sequence[Tensor]
    """1-D float32 waveforms at the model's rate."""
    keys: Sequence[str] = field(default_factory=list)
    """The utterances' paths below the manifest's root."""
    starts: Sequence[int] = field(default_factory=list)
    """The first sample of each waveform in its file, 0 where it was not cropped."""
    guidance: Sequence[Any] | None = None
    """Supervision of each whole file, from the objective's `open_guidance`; None where it takes none."""


@dataclass(frozen=True)
class Term:
    """One term of a loss.

    Example:
        >>> import torch
        >>> Term(torch.tensor(6.0)).per_target(3), Term(torch.tensor(6.0), 0.1, over="mean").per_target(3)
        (2.0, 6.0)
    """

    value: Tensor
    """Scalar with a gradient, before weighting."""
    weight: float = 1.0
    """Its factor in the loss."""
    over: Literal["sum", "mean"] = "sum"
    """Says that `value` is the sum over all targets, or the mean of one."""

    def per_target(self, size: int) -> float:
        """The term for one of `size` targets, before weighting."""
        value = float(self.value.detach())
        return value / max(size, 1) if self.over == "sum" else value


@dataclass(frozen=True)
class Losses:
    """The result of an objective for one batch.

    Example:
        >>> import torch
        >>> terms = {"contrastive": Term(torch.tensor(6.0)), "diversity": Term(torch.tensor(1.0), weight=0.5, over="mean")}
        >>> Losses(3, terms).total.item()
        7.5
    """

    sample_size: int
    """Number of targets (masked frames). With 0, `total` must be 0 and have a gradient of 0."""
    terms: Mapping[str, Term]
    """The summands of the loss, by name."""
    figures: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """Further numbers to show, name -> (value, weight): over several batches, the mean of the values by weight."""

    @functools.cached_property
    def total(self) -> Tensor:
        """Scalar with a gradient: the weighted terms, means `sample_size` times.

        `total / sample_size` is the loss of one target. Totals and sample sizes of several batches add up, and so do their
        gradients: that is how gradients are accumulated over batches and processes.
        """
        parts: dict[str, Any] = {"sum": 0, "mean": 0}
        for term in self.terms.values():
            parts[term.over] = parts[term.over] + term.weight * term.value
        total: Tensor = parts["sum"] + self.sample_size * parts["mean"]
        return total


@dataclass(frozen=True)
class Figure:
    """Display and limits of a figure.

    Example:
        >>> Figure("accuracy", "accuracy {:.3f}").live.format(0.5)
        'accuracy 0.500'
    """

    panel: str = ""
    """Title of the panel in which `hubcore plot RUN` draws it; not drawn if empty."""
    live: str = ""
    """Format in the line on the terminal, such as `accuracy {:.3f}`; empty to leave it out."""
    limits: Mapping[Literal["min_perplexity", "min_accuracy", "min_lead", "max_accuracy"], str] = field(default_factory=dict)
    """Keys of the recipe's `monitor` that limit it -> what the run says beyond the limit: usual causes, and what to change."""


class Objective(nn.Module):
    """A model that `hubcore.pretrain` can train.

    Args:
        model_config: the model's.
        config: an instance of `config_class`.

    Raises:
        OptionError: it is none.
    """

    upstream: ClassVar[str]
    """Entry-point name of the family that loads the result, such as `wav2vec2`."""
    model_configs: ClassVar[Mapping[str, Any]]
    """The family's `CONFIGS`: named model configs."""
    config_class: ClassVar[type[Any]]
    """A frozen dataclass: heads, masking, loss weights. Its fields are the keys of `objective:` in a recipe."""
    figures: ClassVar[Mapping[str, Figure]] = MappingProxyType({})
    """Display of the figures in its `Losses`."""
    guided_by: ClassVar[Literal["", "segments", "units"]] = ""
    """Key of the recipe's `data` that holds its supervision; empty if it learns from audio alone."""

    def __init__(self, model_config: Any, config: Any) -> None:
        super().__init__()
        if not isinstance(config, self.config_class):
            raise OptionError(
                f"config is a {type(config).__name__}. {type(self).__name__} takes a {self.config_class.__name__}."
            )
        self.model_config, self.config = self.fit_model_config(model_config, config), config

    @classmethod
    def fit_model_config(cls, model_config: Any, config: Any) -> Any:  # noqa: ARG003 - for those that override it
        """The model's config with whatever in it follows from the objective's; a run records that one."""
        return model_config

    @classmethod
    def open_guidance(cls, paths: Sequence[Path], model_config: Any, config: Any) -> Mapping[str, Any] | None:  # noqa: ARG003
        """Supervision of each utterance by its key, from the paths in the recipe's `data`; None where there are none.

        Where the result has a method `read(key, samples=...)`, that is called instead, and may refuse what is not of so many
        samples.
        """
        return None

    @classmethod
    def needs_guidance(cls, config: Any) -> bool:  # noqa: ARG003 - as below
        """True if the objective cannot do without supervision."""
        return False

    @classmethod
    def crops_to_shortest(cls, config: Any) -> bool:  # noqa: ARG003 - for those that override it
        """True to crop the waveforms of a batch to its shortest, as fairseq's collater does."""
        return False

    @property
    def skips_parameters(self) -> bool:
        """True if a step may leave parameters without a gradient (layer drop), which distributed training must know."""
        return True

    def variants(self) -> Mapping[str, Mapping[str, Any]]:
        """Ways to validate: a label (such as `lambda_0.5`; empty if there is one only) -> further arguments of `forward`."""
        return {"": {}}

    def forward(self, batch: Batch, *, update: int, seed: int) -> Losses:
        """The losses of a batch; a class may take further options, which it lists in `variants`.

        Args:
            batch: the utterances.
            update: how many optimizer steps were done before, for schedules such as the temperature's.
            seed: everything random here comes from it, so the same batch, update and seed give the same numbers, on any
                process. (Dropout comes from torch's global generator, which the loop seeds alike.)
        """
        raise NotImplementedError

    def load_weights(self, path: Path) -> tuple[list[str], list[str]]:
        """Takes over the weights of a checkpoint of any layout: names of what was taken, and of what stays fresh.

        Raises:
            CheckpointError: its encoder does not fit this model.
        """
        raise CheckpointError(
            f"{path} cannot be used: {type(self).__name__} cannot start from weights.", fix="Leave --init out."
        )
