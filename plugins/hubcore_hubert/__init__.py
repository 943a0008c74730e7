"""HuBERT and what has its shape, as hubcore upstreams. Importing this package imports no torch until a name is used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hubcore.lazy import lazy_exports

if TYPE_CHECKING:
    from hubcore_hubert.checkpoint import READER as READER
    from hubcore_hubert.config import CONFIGS as CONFIGS
    from hubcore_hubert.config import HubertConfig as HubertConfig
    from hubcore_hubert.upstream import HubertUpstream as HubertUpstream

__getattr__, __dir__ = lazy_exports(__name__)
