"""Lists of audio files to train from: built from a folder, written and read in fairseq's format. Imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hubcore.lazy import lazy_exports

if TYPE_CHECKING:
    from hubcore.corpus.build import Built as Built
    from hubcore.corpus.build import LeftOut as LeftOut
    from hubcore.corpus.build import build_manifest as build_manifest
    from hubcore.corpus.build import is_valid as is_valid
    from hubcore.corpus.build import write_built as write_built
    from hubcore.corpus.manifest import Manifest as Manifest
    from hubcore.corpus.manifest import ManifestEntry as ManifestEntry
    from hubcore.corpus.manifest import read_manifest as read_manifest
    from hubcore.corpus.manifest import write_manifest as write_manifest

__getattr__, __dir__ = lazy_exports(__name__)
