"""Corpora: the utterances that folders and lists mean (`find_utterances`), and lists to train from, in fairseq's format.

Importing the package imports no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hubcore.lazy import lazy_exports

if TYPE_CHECKING:
    from hubcore.corpus.build import Built as Built
    from hubcore.corpus.build import LeftOut as LeftOut
    from hubcore.corpus.build import build_manifest as build_manifest
    from hubcore.corpus.build import is_valid as is_valid
    from hubcore.corpus.build import write_built as write_built
    from hubcore.corpus.find import find_utterances as find_utterances
    from hubcore.corpus.manifest import Manifest as Manifest
    from hubcore.corpus.manifest import ManifestEntry as ManifestEntry
    from hubcore.corpus.manifest import read_manifest as read_manifest
    from hubcore.corpus.manifest import write_manifest as write_manifest
    from hubcore.corpus.utterance import File as File
    from hubcore.corpus.utterance import Source as Source
    from hubcore.corpus.utterance import Utterance as Utterance

__getattr__, __dir__ = lazy_exports(__name__)
