"""w2v-BERT 2.0 as hubcore upstreams. Importing this package imports no torch until a name is used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hubcore.lazy import lazy_exports

if TYPE_CHECKING:
    from hubcore_w2v_bert.checkpoint import READER as READER
    from hubcore_w2v_bert.config import CONFIGS as CONFIGS
    from hubcore_w2v_bert.config import W2vBertConfig as W2vBertConfig
    from hubcore_w2v_bert.upstream import W2vBertUpstream as W2vBertUpstream

__getattr__, __dir__ = lazy_exports(__name__)
