"""Options of pre-training a wav2vec 2.0 encoder: masking, quantiser, contrastive task, loss weights. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from hubcore.fields import Between, Probability, Size, require
from hubcore.pretrain.masked_config import MaskedObjective, Positive, Share


@dataclass(frozen=True, kw_only=True)
class Wav2Vec2Objective(MaskedObjective):
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
    num_negatives: Size = 100
    """Wrong answers for each target, from the other masked frames of the same utterance. fairseq: `num_negatives`."""
    diversity_weight: float = 0.1
    """Of the codebook diversity term. fairseq: first of `loss_weights`."""
    dropout_features: Probability = 0.1
    """Dropout of the frames that are quantised. fairseq: `dropout_features`."""

    def __post_init__(self) -> None:
        super().__post_init__()
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
