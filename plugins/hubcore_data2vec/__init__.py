"""data2vec audio as hubcore upstreams. Importing this package imports no torch until a name is used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hubcore.lazy import lazy_exports

if TYPE_CHECKING:
    from hubcore_data2vec.checkpoint import READER as READER
    from hubcore_data2vec.config import CONFIGS as CONFIGS
    from hubcore_data2vec.config import Data2VecConfig as Data2VecConfig
    from hubcore_data2vec.model import build_model as build_model
    from hubcore_data2vec.upstream import Data2VecUpstream as Data2VecUpstream

__getattr__, __dir__ = lazy_exports(__name__)
