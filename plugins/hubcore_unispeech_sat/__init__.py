"""UniSpeech-SAT as hubcore upstreams. Importing this package imports no torch until a name is used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hubcore.lazy import lazy_exports

if TYPE_CHECKING:
    from hubcore_unispeech_sat.checkpoint import READER as READER
    from hubcore_unispeech_sat.config import CONFIGS as CONFIGS
    from hubcore_unispeech_sat.config import UniSpeechSatConfig as UniSpeechSatConfig
    from hubcore_unispeech_sat.upstream import UniSpeechSatUpstream as UniSpeechSatUpstream

__getattr__, __dir__ = lazy_exports(__name__)
