"""Pre-training of OFA wav2vec 2.0: `OfaWav2Vec2Pretraining` and its parts. The loop that drives it is `hubcore.pretrain`."""

from __future__ import annotations

from hubcore_ofa_wav2vec2.pretrain.config import OfaWav2Vec2Objective
from hubcore_ofa_wav2vec2.pretrain.guidance import Guide, draw_lambd, frame_loss, guide_for, segmentation_loss
from hubcore_ofa_wav2vec2.pretrain.objective import OfaWav2Vec2Pretraining

__all__ = [
    "Guide",
    "OfaWav2Vec2Objective",
    "OfaWav2Vec2Pretraining",
    "draw_lambd",
    "frame_loss",
    "guide_for",
    "segmentation_loss",
]
