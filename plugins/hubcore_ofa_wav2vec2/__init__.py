"""OFA wav2vec 2.0 as a hubcore upstream: one model, every frame rate. Imports no torch until a name is used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hubcore.lazy import lazy_exports

if TYPE_CHECKING:
    from hubcore_ofa_wav2vec2.cif import CifOutput as CifOutput
    from hubcore_ofa_wav2vec2.cif import Fired as Fired
    from hubcore_ofa_wav2vec2.cif import fire as fire
    from hubcore_ofa_wav2vec2.cif import integrate_and_fire as integrate_and_fire
    from hubcore_ofa_wav2vec2.config import CONFIGS as CONFIGS
    from hubcore_ofa_wav2vec2.config import DEFAULT_LAMBD as DEFAULT_LAMBD
    from hubcore_ofa_wav2vec2.config import OfaWav2Vec2Config as OfaWav2Vec2Config
    from hubcore_ofa_wav2vec2.lambd import AdaptiveLambda as AdaptiveLambda
    from hubcore_ofa_wav2vec2.lambd import mix as mix
    from hubcore_ofa_wav2vec2.model import AlphaPredictor as AlphaPredictor
    from hubcore_ofa_wav2vec2.model import OfaWav2Vec2Model as OfaWav2Vec2Model
    from hubcore_ofa_wav2vec2.model import build_model as build_model
    from hubcore_ofa_wav2vec2.upstream import OfaWav2Vec2Upstream as OfaWav2Vec2Upstream
    from hubcore_ofa_wav2vec2.upstream import upsample as upsample

__getattr__, __dir__ = lazy_exports(__name__)
