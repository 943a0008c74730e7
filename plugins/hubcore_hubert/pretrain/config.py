"""Options of pre-training a HuBERT encoder: labels, heads, masking, loss weights. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from hubcore.fields import AtLeast, Between, Size, require
from hubcore.pretrain.masked_config import MaskedObjective, NotNegative, Positive

Clusters = Annotated[int, Between(2, 1_000_000)]


@dataclass(frozen=True, kw_only=True)
class HubertObjective(MaskedObjective):
    """The options of HuBERT's pre-training task (Hsu et al. 2021, section II).

    Example:
        >>> HubertObjective(clusters=[100], label_rate=100).clusters
        (100,)
    """

    clusters: Annotated[tuple[Clusters, ...], AtLeast(1)] = (500,)
    """Number of units of each set of labels. fairseq: the lines of `dict.km.txt`."""
    label_rate: Positive = 50.0
    """Labels in a second of audio, of every set. fairseq: `label_rate`."""
    final_dim: Size = 256
    """Width in which frames and units are compared. fairseq: `final_dim`; 0 is `dim` there, and not allowed here."""
    untie_projections: bool = True
    """A projection of frames for each set of labels, instead of one for all. fairseq: `untie_final_proj`."""
    masked_weight: NotNegative = 1.0
    """Of the cross entropy of masked frames. fairseq: `pred_masked_weight`."""
    unmasked_weight: NotNegative = 0.0
    """Of that of the other frames. fairseq: `pred_nomask_weight`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        weights = self.masked_weight + self.unmasked_weight
        require(weights > 0, "masked_weight", "above 0 where unmasked_weight is 0", self.masked_weight)
