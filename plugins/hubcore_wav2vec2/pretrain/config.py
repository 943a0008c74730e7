"""Options of pre-training a wav2vec 2.0 encoder: masking, quantiser, contrastive task, loss weights. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from hubcore.fields import Above, AtLeast, Between, Probability, Size, check_fields, require

Compat = Literal["exact", "original"]
Positive = Annotated[float, Above(0)]
NotNegative = Annotated[float, AtLeast(0)]
Share = Annotated[float, Between(0, 1, "(]")]
SpanLength = Literal["static", "uniform", "normal", "poisson"]


@dataclass(frozen=True)
class Wav2Vec2Objective:
    """The options of wav2vec 2.0's pre-training task (Baevski et al. 2020, sections 3 and 4).

    Example:
        >>> Wav2Vec2Objective().num_negatives
        100
    """

    final_dim: Size = 256
    """Width in which predictions and targets are compared. fairseq: `final_dim`; 0 is `dim` there, and not allowed here."""
    codebook_groups: Size = 2
    """Codebooks, each of which gives one part of a target. fairseq: `latent_groups`."""
    codebook_entries: Annotated[int, Between(2, 65536)] = 320
    """Entries of each. fairseq: `latent_vars`."""
    codebook_dim: Size = 256
    """Width of a quantised target, all groups together. fairseq: `latent_dim`, where 0 is `final_dim`."""
    temperature: tuple[Positive, Positive, Share] = (2.0, 0.5, 0.999995)
    """Of the Gumbel softmax: at first, at last, factor at each update. fairseq: `latent_temp`."""
    mask_prob: Share = 0.65
    """Share of frames that masked spans would cover if they did not overlap. fairseq: `mask_prob`."""
    mask_length: Size = 10
    """Length of a span in frames. fairseq: `mask_length`."""
    mask_selection: SpanLength = "static"
    """Distribution of the lengths of spans. fairseq: `mask_selection`."""
    mask_other: NotNegative = 0.0
    """Second parameter of that distribution. fairseq: `mask_other`."""
    no_mask_overlap: bool = False
    """Keep spans apart. fairseq: `no_mask_overlap`."""
    mask_min_space: Annotated[int, AtLeast(0)] = 1
    """Frames between them in that case. fairseq: `mask_min_space`."""
    mask_dropout: Probability = 0.0
    """Share of masked frames that are given back. fairseq: `mask_dropout`."""
    num_negatives: Size = 100
    """Wrong answers for each target, from the other masked frames of the same utterance. fairseq: `num_negatives`."""
    logit_temperature: Positive = 0.1
    """Divides the cosine similarities. fairseq: `logit_temp`."""
    diversity_weight: float = 0.1
    """Of the codebook diversity term. fairseq: first of `loss_weights`."""
    features_penalty_weight: float = 10.0
    """Of the mean square of the convolutional features. fairseq: second of `loss_weights`."""
    feature_grad_scale: NotNegative = 0.1
    """Factor of the gradient that reaches the convolutions; 0 freezes them. fairseq: `feature_grad_mult`."""
    dropout_input: Probability = 0.1
    """Dropout of the frames that enter the transformer. fairseq: `dropout_input`."""
    dropout_features: Probability = 0.1
    """Dropout of the frames that are quantised. fairseq: `dropout_features`."""
    layerdrop: Probability = 0.05
    """Probability that a block is stepped over in training. fairseq: `encoder_layerdrop`."""
    compat: Compat = "exact"
    """"exact": every utterance counts as it is, masks and negatives come from its own valid frames. "original": what fairseq
    does with a batch cropped to its shortest utterance (the same number of masked frames in each)."""

    def __post_init__(self) -> None:
        check_fields(self)
        if self.mask_selection == "uniform":
            limit = 2 * self.mask_length
            require(self.mask_other <= limit, "mask_other", f"at most twice mask_length, {limit}", self.mask_other)
        groups, (first, last, _) = self.codebook_groups, self.temperature
        require(self.codebook_dim % groups == 0, "codebook_groups", f"a divisor of codebook_dim, {self.codebook_dim}", groups)
        require(last <= first, "temperature", "(at first, at last, factor), the last at most the first", self.temperature)

    def temperature_at(self, update: int) -> float:
        """The Gumbel softmax's temperature after `update` updates.

        Example:
            >>> Wav2Vec2Objective().temperature_at(0)
            2.0
        """
        first, last, factor = self.temperature
        return max(first * factor**update, last)
