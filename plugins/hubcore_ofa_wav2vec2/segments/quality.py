"""Agreement of boundaries with reference boundaries: precision, recall, F1 and R-value within a tolerance.

The R-value (Räsänen, Laine, Altosaar 2009) is 1 for perfect boundaries; unlike F1 it does not reward setting too many. The
end of an utterance is no boundary here: every segmentation has it.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Sequence
from dataclasses import asdict, astuple, dataclass
from typing import Any

from hubcore.corpus import ManifestEntry
from hubcore.errors import ExtractionError, OptionError
from hubcore.text import printable
from hubcore_ofa_wav2vec2.segments.grid import SAMPLE_RATE, STRIDE
from hubcore_ofa_wav2vec2.segments.store import Segments

_FRAME_MS = 1000 * STRIDE / SAMPLE_RATE


@dataclass(frozen=True)
class Quality:
    """Counts of boundaries inside utterances, and the figures that follow from them.

    Example:
        >>> quality = Quality(hits=6, found=8, reference=10)
        >>> quality.precision, quality.recall, round(quality.f1, 4), round(quality.r_value, 4)
        (0.75, 0.6, 0.6667, 0.7057)
    """

    hits: int = 0
    """Pairs of a boundary and a reference boundary within the tolerance, none in two pairs."""
    found: int = 0
    """Boundaries found."""
    reference: int = 0
    """Reference boundaries."""
    utterances: int = 0
    """Utterances that were compared."""

    def __add__(self, other: Quality) -> Quality:
        return Quality(*map(operator.add, astuple(self), astuple(other)))

    @property
    def precision(self) -> float:
        """Hits per boundary found; 1 if there is none, and none was to be found."""
        return self.hits / self.found if self.found else float(not self.reference)

    @property
    def recall(self) -> float:
        """Hits per reference boundary; 1 if there is none."""
        return self.hits / self.reference if self.reference else 1.0

    @property
    def f1(self) -> float:
        """The harmonic mean of precision and recall."""
        total = self.precision + self.recall
        return 2 * self.precision * self.recall / total if total else 0.0

    @property
    def over_segmentation(self) -> float:
        """Boundaries too many, as a share of the reference boundaries; NaN where there are none of those."""
        return self.found / self.reference - 1 if self.reference else math.nan

    @property
    def r_value(self) -> float:
        """1 less the mean distance to two ideals: every boundary and no more, and no boundary too many. NaN if undefined."""
        over, missed = self.over_segmentation, 1 - self.recall
        return 1 - (math.hypot(missed, over) + abs(-over - missed) / math.sqrt(2)) / 2

    def to_dict(self) -> dict[str, Any]:
        """Counts and figures as plain values, None for a figure that is undefined."""
        figures = {name: getattr(self, name) for name in ("precision", "recall", "f1", "over_segmentation", "r_value")}
        return {**asdict(self), **{name: None if math.isnan(value) else round(value, 6) for name, value in figures.items()}}


def compare_boundaries(found: Sequence[int], reference: Sequence[int], tolerance: float = 1.0) -> Quality:
    """The agreement of two rising lists of boundaries of one utterance, whose last ones are its end.

    As many pairs as possible are made of boundaries at most `tolerance` frames apart.

    Raises:
        ExtractionError: the ends differ, so that the lists are not of the same frames.

    Example:
        >>> compare_boundaries([4, 9, 20], [5, 12, 20])
        Quality(hits=1, found=2, reference=2, utterances=1)
    """
    if found[-1] != reference[-1]:
        what = f"the boundaries end at frame {found[-1]}, the reference boundaries at {reference[-1]}."
        raise ExtractionError(what, fix="Make the reference from the same files, on frames of 400 samples every 320.")
    ours, theirs = found[:-1], reference[:-1]
    hits = at = 0
    for boundary in ours:
        while at < len(theirs) and theirs[at] < boundary - tolerance:
            at += 1
        if at < len(theirs) and theirs[at] <= boundary + tolerance:
            hits, at = hits + 1, at + 1
    return Quality(hits, len(ours), len(theirs), 1)


def compare_corpora(
    found: Segments, reference: Segments, entries: Iterable[ManifestEntry], *, tolerance_ms: float = 20.0
) -> Quality:
    """The agreement over all utterances that both have.

    Args:
        found: the segments to judge.
        reference: what they ought to be.
        entries: the utterances.
        tolerance_ms: how far apart two boundaries may be that agree; frames are 20 ms.

    Raises:
        ExtractionError: no utterance is in both, or one has another number of frames in each.
        OptionError: an impossible tolerance.
    """
    if not 0 <= tolerance_ms < math.inf:
        raise OptionError(f"the tolerance is {tolerance_ms} ms. It must be 0 or more. 20 ms, one frame, is usual.")
    total = Quality()
    for entry in entries:
        if entry.path not in found or entry.path not in reference:
            continue
        ours, theirs = (each[entry.path].boundaries.tolist() for each in (found, reference))
        try:
            # A hair more than asked for, so that 20 ms is one frame whatever the rounding.
            total += compare_boundaries(ours, theirs, tolerance_ms / _FRAME_MS + 1e-9)
        except ExtractionError as error:
            raise ExtractionError(f"{printable(entry.path)}: {error}") from error
    if not total.utterances:
        what = "no utterance is both segmented and in the reference, by its path below the manifest's root."
        raise ExtractionError(what, fix="Give a reference made for this manifest.")
    return total
