"""wav2vec 2.0, XLS-R, MMS and OmniASR as hubcore upstreams. Importing this package imports no torch until a name is used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hubcore.lazy import lazy_exports

if TYPE_CHECKING:
    from hubcore_wav2vec2.config import CONFIGS as CONFIGS
    from hubcore_wav2vec2.config import Wav2Vec2Config as Wav2Vec2Config
    from hubcore_wav2vec2.model import Wav2Vec2Model as Wav2Vec2Model
    from hubcore_wav2vec2.model import build_model as build_model
    from hubcore_wav2vec2.upstream import Wav2Vec2Upstream as Wav2Vec2Upstream

__getattr__, __dir__ = lazy_exports(__name__)
