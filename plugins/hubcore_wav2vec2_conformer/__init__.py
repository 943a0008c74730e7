"""wav2vec 2.0 with conformer blocks, as hubcore upstreams. Importing this package imports no torch until a name is used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hubcore.lazy import lazy_exports

if TYPE_CHECKING:
    from hubcore_wav2vec2_conformer.checkpoint import READER as READER
    from hubcore_wav2vec2_conformer.config import CONFIGS as CONFIGS
    from hubcore_wav2vec2_conformer.config import Wav2Vec2ConformerConfig as Wav2Vec2ConformerConfig
    from hubcore_wav2vec2_conformer.upstream import Wav2Vec2ConformerUpstream as Wav2Vec2ConformerUpstream

__getattr__, __dir__ = lazy_exports(__name__)
