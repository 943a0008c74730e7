"""Lists of audio files to train from: built from a folder, written and read in fairseq's format. Imports no torch."""

from __future__ import annotations

from hubcore.corpus.build import Built, LeftOut, build_manifest, is_valid, write_built
from hubcore.corpus.manifest import Manifest, ManifestEntry, read_manifest, write_manifest

__all__ = [
    "Built",
    "LeftOut",
    "Manifest",
    "ManifestEntry",
    "build_manifest",
    "is_valid",
    "read_manifest",
    "write_built",
    "write_manifest",
]
