"""WavLM as hubcore upstreams. Importing this package imports no torch until a name is used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hubcore.lazy import lazy_exports

if TYPE_CHECKING:
    from hubcore_wavlm.checkpoint import READER as READER
    from hubcore_wavlm.config import CONFIGS as CONFIGS
    from hubcore_wavlm.config import WavLMConfig as WavLMConfig
    from hubcore_wavlm.model import build_model as build_model
    from hubcore_wavlm.upstream import WavLMUpstream as WavLMUpstream

__getattr__, __dir__ = lazy_exports(__name__)
