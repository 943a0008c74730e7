"""data2vec 2.0 and emotion2vec as hubcore upstreams. Importing this package imports no torch until a name is used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hubcore.lazy import lazy_exports

if TYPE_CHECKING:
    from hubcore_data2vec2.checkpoint import READER as READER
    from hubcore_data2vec2.config import CONFIGS as CONFIGS
    from hubcore_data2vec2.config import Data2Vec2Config as Data2Vec2Config
    from hubcore_data2vec2.model import build_model as build_model
    from hubcore_data2vec2.upstream import Data2Vec2Upstream as Data2Vec2Upstream

__getattr__, __dir__ = lazy_exports(__name__)
