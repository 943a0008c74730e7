"""Segments of speech on the frame grid of wav2vec 2.0, which OFA pre-training is guided by. Imports no torch until used.

`segment_corpus` finds them without any label, `open_segments` reads them in any layout, `compare_boundaries` judges them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hubcore.lazy import lazy_exports

if TYPE_CHECKING:
    from hubcore_ofa_wav2vec2.segments.grid import alpha_of, boundary_seconds, count_frames
    from hubcore_ofa_wav2vec2.segments.quality import Quality, compare_boundaries, compare_corpora
    from hubcore_ofa_wav2vec2.segments.run import Summary, segment_corpus
    from hubcore_ofa_wav2vec2.segments.store import Segment, Segments, open_segments

_MODULE_OF = {
    "Quality": "quality",
    "Segment": "store",
    "Segments": "store",
    "Summary": "run",
    "alpha_of": "grid",
    "boundary_seconds": "grid",
    "compare_boundaries": "quality",
    "compare_corpora": "quality",
    "count_frames": "grid",
    "open_segments": "store",
    "segment_corpus": "run",
}

__all__ = [
    "Quality",
    "Segment",
    "Segments",
    "Summary",
    "alpha_of",
    "boundary_seconds",
    "compare_boundaries",
    "compare_corpora",
    "count_frames",
    "open_segments",
    "segment_corpus",
]

__getattr__, __dir__ = lazy_exports(__name__, _MODULE_OF)
