"""Pre-training of wav2vec 2.0: `Wav2Vec2Pretraining` and its parts. The loop that drives it is `hubcore.pretrain`."""

from __future__ import annotations

from hubcore_wav2vec2.pretrain.config import Wav2Vec2Objective
from hubcore_wav2vec2.pretrain.contrastive import Contrast, contrast
from hubcore_wav2vec2.pretrain.masking import draw_masks, draw_negatives
from hubcore_wav2vec2.pretrain.objective import Answers, Draws, Wav2Vec2Pretraining, per_target, scale_gradient
from hubcore_wav2vec2.pretrain.quantizer import GumbelQuantizer, Quantized, gumbel_noise

__all__ = [
    "Answers",
    "Contrast",
    "Draws",
    "GumbelQuantizer",
    "Quantized",
    "Wav2Vec2Objective",
    "Wav2Vec2Pretraining",
    "contrast",
    "draw_masks",
    "draw_negatives",
    "gumbel_noise",
    "per_target",
    "scale_gradient",
]
