"""Segments of speech on the frame grid of wav2vec 2.0, which OFA pre-training is guided by. Imports no torch until used.

`segment_corpus` finds them without any label, `open_segments` reads them, `compare_boundaries` judges them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hubcore.lazy import lazy_exports

if TYPE_CHECKING:
    from hubcore_ofa_wav2vec2.segments.grid import alpha_of as alpha_of
    from hubcore_ofa_wav2vec2.segments.grid import boundary_seconds as boundary_seconds
    from hubcore_ofa_wav2vec2.segments.grid import count_frames as count_frames
    from hubcore_ofa_wav2vec2.segments.quality import Quality as Quality
    from hubcore_ofa_wav2vec2.segments.quality import compare_boundaries as compare_boundaries
    from hubcore_ofa_wav2vec2.segments.quality import compare_corpora as compare_corpora
    from hubcore_ofa_wav2vec2.segments.run import Summary as Summary
    from hubcore_ofa_wav2vec2.segments.run import segment_corpus as segment_corpus
    from hubcore_ofa_wav2vec2.segments.store import Segment as Segment
    from hubcore_ofa_wav2vec2.segments.store import Segments as Segments
    from hubcore_ofa_wav2vec2.segments.store import open_segments as open_segments

__getattr__, __dir__ = lazy_exports(__name__)
