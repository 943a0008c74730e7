"""Options that every pre-training by masked frames has: spans, the way into the encoder, the penalty. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from hubcore.fields import Above, AtLeast, Between, Probability, Size, check_fields, require

Compat = Literal["exact", "original"]
Positive = Annotated[float, Above(0)]
NotNegative = Annotated[float, AtLeast(0)]
Share = Annotated[float, Between(0, 1, "(]")]
SpanLength = Literal["static", "uniform", "normal", "poisson"]


@dataclass(frozen=True, kw_only=True)
class MaskedObjective:
    """The options of masking and of the encoder in training, which an objective's config inherits.

    Example:
        >>> MaskedObjective().mask_length
        10
    """

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
    """Share of masked frames that are given back. fairseq: `mask_dropout`, of wav2vec 2.0 only."""
    logit_temperature: Positive = 0.1
    """Divides the cosine similarities. fairseq: `logit_temp`."""
    features_penalty_weight: float = 10.0
    """Of the mean square of the convolutional features. fairseq: the last of `loss_weights`."""
    feature_grad_scale: NotNegative = 0.1
    """Factor of the gradient that reaches the convolutions; 0 freezes them. fairseq: `feature_grad_mult`."""
    dropout_input: Probability = 0.1
    """Dropout of the frames that enter the transformer. fairseq: `dropout_input`."""
    layerdrop: Probability = 0.05
    """Probability that a block is stepped over in training. fairseq: `encoder_layerdrop`."""
    compat: Compat = "exact"
    """"exact": every utterance counts as it is, masks come from its own frames. "original": what fairseq does with a batch
    cropped to its shortest utterance (the same number of masked frames in each)."""

    def __post_init__(self) -> None:
        check_fields(self)
        if self.mask_selection == "uniform":
            limit = 2 * self.mask_length
            require(self.mask_other <= limit, "mask_other", f"at most twice mask_length, {limit}", self.mask_other)
