"""Whisper's encoder as a hubcore upstream. Importing this package imports no torch until a name is used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hubcore.lazy import lazy_exports

if TYPE_CHECKING:
    from hubcore_whisper.checkpoint import READER as READER
    from hubcore_whisper.config import CONFIGS as CONFIGS
    from hubcore_whisper.config import WhisperConfig as WhisperConfig
    from hubcore_whisper.upstream import WhisperUpstream as WhisperUpstream

__getattr__, __dir__ = lazy_exports(__name__)
