"""Options that OFA adds to the pre-training of wav2vec 2.0: how lambda is drawn, and what guides alpha. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from hubcore.fields import Between
from hubcore.pretrain.masked_config import NotNegative, Share
from hubcore_wav2vec2.pretrain.config import Wav2Vec2Objective

LambdDraw = Literal["uniform", "uniform-fr", "scale", "both"]


@dataclass(frozen=True)
class OfaWav2Vec2Objective(Wav2Vec2Objective):
    """The options of OFA wav2vec 2.0's pre-training (Chen, Meng, Lee 2023, section 2).

    Example:
        >>> OfaWav2Vec2Objective().lambd_draw
        'uniform'
    """

    lambd_draw: LambdDraw = "uniform"
    """Distribution of lambda, one draw for each batch: "uniform" from 0 to 1; "uniform-fr", so that the frame period is uniform
    from 20 to 90 ms; "scale" from 1 to 2; "both" from 0 to `upper_lambd`. The original: `mixup_distro`."""
    upper_lambd: Annotated[float, Between(0, 2, "(]")] = 1.0
    """Upper end of "both". The original: `upper_lambd`."""
    cardinality_weight: NotNegative = 0.0
    """Of the distance between the share of frames that fire and `target_ratio`. The original: `card_loss`."""
    target_ratio: Share = 0.25
    """That share. The original: `target_ratio`."""
    segmentation_weight: NotNegative = 0.05
    """Of the distance between summed alpha and the number of segments, at each boundary. The original: `seg_loss`."""
    frame_weight: NotNegative = 0.5
    """Of the distance between alpha and pseudo alpha. The original: `frame_loss`."""

    @property
    def needs_segments(self) -> bool:
        """True if boundaries and pseudo alpha are needed."""
        return self.segmentation_weight > 0 or self.frame_weight > 0
