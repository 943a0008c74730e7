"""Pre-training of OFA wav2vec 2.0: `OfaWav2Vec2Pretraining` and its parts. The loop that drives it is `hubcore.pretrain`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hubcore.lazy import lazy_exports

if TYPE_CHECKING:
    from hubcore_ofa_wav2vec2.pretrain.config import OfaWav2Vec2Objective as OfaWav2Vec2Objective
    from hubcore_ofa_wav2vec2.pretrain.guidance import Guide as Guide
    from hubcore_ofa_wav2vec2.pretrain.guidance import draw_lambd as draw_lambd
    from hubcore_ofa_wav2vec2.pretrain.guidance import frame_loss as frame_loss
    from hubcore_ofa_wav2vec2.pretrain.guidance import guide_for as guide_for
    from hubcore_ofa_wav2vec2.pretrain.guidance import segmentation_loss as segmentation_loss
    from hubcore_ofa_wav2vec2.pretrain.objective import OfaWav2Vec2Pretraining as OfaWav2Vec2Pretraining

__getattr__, __dir__ = lazy_exports(__name__)
