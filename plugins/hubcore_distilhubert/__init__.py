"""DistilHuBERT as a hubcore upstream. Importing this package imports no torch until a name is used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hubcore.lazy import lazy_exports

if TYPE_CHECKING:
    from hubcore_distilhubert.checkpoint import READER as READER
    from hubcore_distilhubert.config import CONFIGS as CONFIGS
    from hubcore_distilhubert.config import DistilHubertConfig as DistilHubertConfig
    from hubcore_distilhubert.upstream import DistilHubertUpstream as DistilHubertUpstream

__getattr__, __dir__ = lazy_exports(__name__)
