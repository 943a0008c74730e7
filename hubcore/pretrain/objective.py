"""What an objective is: a model with its pre-training heads, that turns a batch of waveforms into losses.

The training loop (`hubcore.pretrain.loop`) knows no model. It drives any class that meets `Objective`, found by the entry
points of the group `hubcore.objectives`; `hubcore_wav2vec2.pretrain` and `hubcore_ofa_wav2vec2.pretrain` are the first two.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

from torch import Tensor


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
    """What the objective's `open_guidance` gave for each whole file; None where it takes none."""


@dataclass(frozen=True)
class Losses:
    """What an objective computed for one batch.

    `total / sample_size` is the loss of one target. Totals and sample sizes of several batches add up, and so do their
    gradients: that is how gradients are accumulated over batches and processes.
    """

    total: Tensor
    """Scalar with a gradient: the sum over all targets, extra terms included `sample_size` times their weight."""
    sample_size: int
    """Number of targets (masked frames). 0 if the batch had none: `total` is then 0 and has a gradient of 0."""
    terms: Mapping[str, Tensor]
    """Each loss term without gradient, as it is before weighting: a sum over targets, such as `contrastive`, or, where the
    config has `<term>_weight`, a mean, such as `diversity`."""
    figures: Mapping[str, tuple[float, float]]
    """What to show, name -> (value, weight): over several batches, the mean of the values by weight."""


class Objective(Protocol):
    """A `torch.nn.Module` that can be pre-trained by `hubcore.pretrain`."""

    upstream: ClassVar[str]
    """Entry-point name of the family that loads the result, such as `wav2vec2`."""
    model_configs: ClassVar[Mapping[str, Any]]
    """The family's `CONFIGS`: named model configs."""
    config_class: ClassVar[type[Any]]
    """A frozen dataclass: heads, masking, loss weights. Its fields are the keys of `objective:` in a recipe."""

    def __init__(self, model_config: Any, config: Any) -> None:
        """Fresh weights, from torch's global generator."""

    @staticmethod
    def open_guidance(paths: Sequence[Path]) -> Mapping[str, Any] | None:
        """What supervises each utterance by its key, or None if this objective takes nothing but audio.

        Where it has a method `read(key, samples=...)`, that is called instead, and may refuse what is not of so many samples.
        """

    @property
    def skips_parameters(self) -> bool:
        """Whether a step may leave parameters without a gradient (layer drop), which distributed training must know."""

    def variants(self) -> Mapping[str, Mapping[str, Any]]:
        """What to validate: a label (such as `lambda_0.5`; empty if there is one only) -> further arguments of `forward`."""

    def forward(self, batch: Batch, *, update: int, seed: int, **options: Any) -> Losses:
        """The losses of a batch.

        Args:
            batch: the utterances.
            update: how many optimizer steps were done before, for schedules such as the temperature's.
            seed: everything random here comes from it, so the same batch, update and seed give the same numbers, on any
                process. (Dropout comes from torch's global generator, which the loop seeds alike.)
            **options: those of `variants`.
        """

    def load_weights(self, path: Path) -> tuple[list[str], list[str]]:
        """Takes over the weights of a checkpoint of any layout: names of what was taken, and of what stays fresh.

        Raises:
            CheckpointError: its encoder does not fit this model.
        """
