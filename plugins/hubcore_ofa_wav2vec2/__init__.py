"""OFA wav2vec 2.0 as a hubcore upstream: one model, every frame rate. Imports no torch until a name is used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hubcore.lazy import lazy_exports

if TYPE_CHECKING:
    from hubcore_ofa_wav2vec2.cif import CifOutput, Fired, fire, integrate_and_fire
    from hubcore_ofa_wav2vec2.config import CONFIGS, DEFAULT_LAMBD, OfaWav2Vec2Config
    from hubcore_ofa_wav2vec2.lambd import AdaptiveLambda, mix
    from hubcore_ofa_wav2vec2.model import AlphaPredictor, OfaWav2Vec2Model, build_model
    from hubcore_ofa_wav2vec2.upstream import OfaWav2Vec2Upstream, upsample

_MODULE_OF = {
    "AdaptiveLambda": "lambd",
    "AlphaPredictor": "model",
    "CONFIGS": "config",
    "CifOutput": "cif",
    "DEFAULT_LAMBD": "config",
    "Fired": "cif",
    "OfaWav2Vec2Config": "config",
    "OfaWav2Vec2Model": "model",
    "OfaWav2Vec2Upstream": "upstream",
    "build_model": "model",
    "fire": "cif",
    "integrate_and_fire": "cif",
    "mix": "lambd",
    "upsample": "upstream",
}

__all__ = [
    "CONFIGS",
    "DEFAULT_LAMBD",
    "AdaptiveLambda",
    "AlphaPredictor",
    "CifOutput",
    "Fired",
    "OfaWav2Vec2Config",
    "OfaWav2Vec2Model",
    "OfaWav2Vec2Upstream",
    "build_model",
    "fire",
    "integrate_and_fire",
    "mix",
    "upsample",
]

__getattr__, __dir__ = lazy_exports(__name__, _MODULE_OF)
