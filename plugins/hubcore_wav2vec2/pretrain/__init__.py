"""Pre-training of wav2vec 2.0: `Wav2Vec2Pretraining` and its parts. The loop that drives it is `hubcore.pretrain`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hubcore.lazy import lazy_exports

if TYPE_CHECKING:
    from hubcore_wav2vec2.pretrain.config import Wav2Vec2Objective as Wav2Vec2Objective
    from hubcore_wav2vec2.pretrain.contrastive import Contrast as Contrast
    from hubcore_wav2vec2.pretrain.contrastive import contrast as contrast
    from hubcore_wav2vec2.pretrain.contrastive import draw_negatives as draw_negatives
    from hubcore_wav2vec2.pretrain.objective import Answers as Answers
    from hubcore_wav2vec2.pretrain.objective import Draws as Draws
    from hubcore_wav2vec2.pretrain.objective import Wav2Vec2Pretraining as Wav2Vec2Pretraining
    from hubcore_wav2vec2.pretrain.quantizer import GumbelQuantizer as GumbelQuantizer
    from hubcore_wav2vec2.pretrain.quantizer import Quantized as Quantized
    from hubcore_wav2vec2.pretrain.quantizer import gumbel_noise as gumbel_noise

__getattr__, __dir__ = lazy_exports(__name__)
