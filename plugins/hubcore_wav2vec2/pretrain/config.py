"""What pre-training adds to a wav2vec 2.0 encoder: masking, quantiser, contrastive task, loss weights. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal, get_args

from hubcore.errors import OptionError

Compat = Literal["exact", "original"]
SpanLength = Literal["static", "uniform", "normal", "poisson"]


@dataclass(frozen=True)
class Wav2Vec2Objective:
    """The options of wav2vec 2.0's pre-training task (Baevski et al. 2020, sections 3 and 4).

    Example:
        >>> Wav2Vec2Objective().num_negatives
        100
    """

    final_dim: int = 256
    """Width in which predictions and targets are compared. fairseq: `final_dim`; 0 is `dim` there, and not allowed here."""
    codebook_groups: int = 2
    """Codebooks, each of which gives one part of a target. fairseq: `latent_groups`."""
    codebook_entries: int = 320
    """Entries of each. fairseq: `latent_vars`."""
    codebook_dim: int = 256
    """Width of a quantised target, all groups together. fairseq: `latent_dim`, where 0 is `final_dim`."""
    temperature: tuple[float, float, float] = (2.0, 0.5, 0.999995)
    """Of the Gumbel softmax: at first, at last, factor at each update. fairseq: `latent_temp`."""
    mask_prob: float = 0.65
    """Share of frames that masked spans would cover if they did not overlap. fairseq: `mask_prob`."""
    mask_length: int = 10
    """Length of a span in frames. fairseq: `mask_length`."""
    mask_selection: SpanLength = "static"
    """How the lengths of spans are drawn. fairseq: `mask_selection`."""
    mask_other: float = 0.0
    """Second parameter of that distribution. fairseq: `mask_other`."""
    no_mask_overlap: bool = False
    """Whether spans must not overlap. fairseq: `no_mask_overlap`."""
    mask_min_space: int = 1
    """Frames between them in that case. fairseq: `mask_min_space`."""
    mask_dropout: float = 0.0
    """Share of masked frames that are given back. fairseq: `mask_dropout`."""
    num_negatives: int = 100
    """Wrong answers for each target, from the other masked frames of the same utterance. fairseq: `num_negatives`."""
    logit_temperature: float = 0.1
    """Divides the cosine similarities. fairseq: `logit_temp`."""
    diversity_weight: float = 0.1
    """Of the codebook diversity term. fairseq: first of `loss_weights`."""
    features_penalty_weight: float = 10.0
    """Of the mean square of the convolutional features. fairseq: second of `loss_weights`."""
    feature_grad_scale: float = 0.1
    """Factor of the gradient that reaches the convolutions; 0 freezes them. fairseq: `feature_grad_mult`."""
    dropout_input: float = 0.1
    """Dropout of the frames that enter the transformer. fairseq: `dropout_input`."""
    dropout_features: float = 0.1
    """Dropout of the frames that are quantised. fairseq: `dropout_features`."""
    layerdrop: float = 0.05
    """Probability that a block is stepped over in training. fairseq: `encoder_layerdrop`."""
    compat: Compat = "exact"
    """"exact": every utterance counts as it is, masks and negatives come from its own valid frames. "original": what fairseq
    does with a batch cropped to its shortest utterance (the same number of masked frames in each)."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "temperature", tuple(float(value) for value in self.temperature))
        for field in fields(self):
            value, kind = getattr(self, field.name), str(field.type)
            wrong = (
                (kind == "int" and (isinstance(value, bool) or not isinstance(value, int)))
                or (kind == "float" and (isinstance(value, bool) or not isinstance(value, int | float)))
                or (kind == "bool" and not isinstance(value, bool))
            )
            if wrong:
                raise OptionError(f"{field.name} must be of type {kind}, but is {value!r} instead.")
        at_least = {"final_dim": 1, "codebook_groups": 1, "codebook_entries": 2, "codebook_dim": 1, "mask_length": 1}
        for name, least in {**at_least, "num_negatives": 1, "mask_min_space": 0}.items():
            if getattr(self, name) < least:
                raise OptionError(f"{name} must be at least {least}, but is {getattr(self, name)} instead.")
        for name in ("mask_dropout", "dropout_input", "dropout_features", "layerdrop"):
            if not 0 <= getattr(self, name) < 1:
                raise OptionError(f"{name} must be a probability from 0 to below 1, but is {getattr(self, name)} instead.")
        if not 0 < self.mask_prob <= 1:
            raise OptionError(f"mask_prob must be above 0 and at most 1, but is {self.mask_prob} instead.")
        if self.mask_other < 0 or (self.mask_selection == "uniform" and self.mask_other > 2 * self.mask_length):
            raise OptionError(
                f"mask_other must be at least 0, and for uniform spans at most twice mask_length={self.mask_length}, but is "
                f"{self.mask_other} instead."
            )
        if self.codebook_dim % self.codebook_groups:
            raise OptionError(
                f"codebook_groups must divide codebook_dim={self.codebook_dim}, but is {self.codebook_groups} instead."
            )
        if len(self.temperature) != 3 or not 0 < self.temperature[1] <= self.temperature[0] or not 0 < self.temperature[2] <= 1:
            raise OptionError(
                f"temperature is {self.temperature}. It must be (at first, at last, factor), the last temperature above 0 and "
                "at most the first, the factor above 0 and at most 1."
            )
        if self.logit_temperature <= 0 or self.feature_grad_scale < 0:
            raise OptionError("logit_temperature must be above 0, and feature_grad_scale at least 0.")
        for name, allowed in (("compat", get_args(Compat)), ("mask_selection", get_args(SpanLength))):
            if getattr(self, name) not in allowed:
                raise OptionError(f"{name} must be one of {', '.join(allowed)}, but is {getattr(self, name)!r} instead.")

    def temperature_at(self, update: int) -> float:
        """The Gumbel softmax's temperature after `update` updates.

        Example:
            >>> Wav2Vec2Objective().temperature_at(0)
            2.0
        """
        first, last, factor = self.temperature
        return max(first * factor**update, last)
