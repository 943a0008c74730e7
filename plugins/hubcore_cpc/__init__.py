"""Contrastive predictive coding as a hubcore upstream. Importing this package imports no torch until a name is used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hubcore.lazy import lazy_exports

if TYPE_CHECKING:
    from hubcore_cpc.checkpoint import READER as READER
    from hubcore_cpc.config import CONFIGS as CONFIGS
    from hubcore_cpc.config import CpcConfig as CpcConfig
    from hubcore_cpc.upstream import CpcUpstream as CpcUpstream

__getattr__, __dir__ = lazy_exports(__name__)
