"""Masked frames: random spans, drawn as fairseq's `compute_mask_indices` draws them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hubcore.pretrain.masked_config import SpanLength


def draw_masks(
    lengths: Sequence[int],
    rng: np.random.RandomState,
    *,
    mask_prob: float,
    mask_length: int,
    mask_selection: SpanLength = "static",
    mask_other: float = 0.0,
    min_masks: int = 2,
    no_overlap: bool = False,
    min_space: int = 1,
    mask_dropout: float = 0.0,
    same_count: bool = False,
    equal_lengths: bool = False,
) -> list[NDArray[np.bool_]]:
    """The masked frames of each utterance, `(F_i,)` bool each, among its own frames only.

    With the same `rng` state these are fairseq's masks, number for number: a `RandomState(seed)` here is `np.random.seed(seed)`
    there.

    Args:
        lengths: frames of each utterance.
        rng: where randomness comes from.
        mask_prob: share of frames that the spans would cover if they did not overlap. fairseq: `mask_prob`.
        mask_length: length of a span, or its mean.
        mask_selection: distribution of span lengths. fairseq: `mask_type`.
        mask_other: lower end ("uniform") or standard deviation ("normal") of span lengths.
        min_masks: fewest spans in an utterance.
        no_overlap: keeps spans `min_space` frames apart.
        min_space: see there.
        mask_dropout: share of masked frames given back.
        same_count: takes masked frames away until all utterances have equally many. fairseq: `require_same_masks`.
        equal_lengths: draws the number of spans once for all utterances, as fairseq does for a batch without padding.

    Example:
        >>> [mask] = draw_masks([50], np.random.RandomState(0), mask_prob=0.65, mask_length=10)
        >>> mask.shape, bool(mask.any())
        ((50,), True)
    """

    def spans_for(size: int) -> int:
        # A fraction of a span becomes a whole one with that probability.
        return max(min_masks, int(mask_prob * size / mask_length + rng.rand()))

    longest = max(lengths)
    for_all = spans_for(longest)  # drawn even where it is not used: the stream of random numbers must stay in step
    chosen: list[NDArray[np.int64]] = []
    for size in lengths:
        count = for_all if equal_lengths else spans_for(size)
        sizes = _span_lengths(count, size, rng, mask_length, mask_selection, mask_other)
        if no_overlap:
            frames = _apart(size, sizes, rng, min_space)
        else:
            least = min(sizes)
            if size - least <= count:
                least = size - count - 1
            starts = rng.choice(size - least, count, replace=False)
            frames = np.concatenate([start + np.arange(span) for start, span in zip(starts, sizes, strict=True)])
        chosen.append(np.unique(frames[frames < size]).astype(np.int64))
    fewest = min(len(frames) for frames in chosen)
    masks = []
    for size, frames in zip(lengths, chosen, strict=True):
        if same_count and len(frames) > fewest:
            frames = rng.choice(frames, fewest, replace=False)
        if mask_dropout > 0:
            holes = int(np.rint(len(frames) * mask_dropout))
            frames = rng.choice(frames, len(frames) - holes, replace=False)
        mask = np.zeros(size, dtype=np.bool_)
        mask[frames] = True
        masks.append(mask)
    return masks


def _span_lengths(
    count: int, size: int, rng: np.random.RandomState, mean: int, selection: SpanLength, other: float
) -> NDArray[np.int64]:
    drawn: Any
    if selection == "static":
        drawn = np.full(count, mean)
    elif selection == "uniform":
        drawn = rng.randint(int(other), mean * 2 + 1, size=count)
    elif selection == "normal":
        drawn = np.maximum(1, np.rint(rng.normal(mean, other, size=count)))
    else:
        drawn = np.rint(rng.poisson(mean, size=count))
    lengths: NDArray[np.int64] = drawn.astype(np.int64)
    if lengths.sum() == 0:
        lengths[0] = min(mean, size - 1)
    return lengths


def _apart(size: int, lengths: NDArray[np.int64], rng: np.random.RandomState, min_space: int) -> NDArray[np.int64]:
    """Frames of spans that do not touch: the longest first, each into a free stretch chosen by its length."""
    free = [(0, size)]
    shortest = int(min(lengths))
    taken: list[NDArray[np.int64]] = [np.empty(0, dtype=np.int64)]
    for span in sorted((int(length) for length in lengths), reverse=True):
        room = np.array([end - begin if end - begin >= span + min_space else 0 for begin, end in free])
        if room.sum() == 0:
            break
        begin, end = free.pop(int(rng.choice(len(free), p=room / room.sum())))
        start = int(rng.randint(begin, end - span))
        taken.append(np.arange(start, start + span))
        if start - begin - min_space >= shortest:
            free.append((begin, start - min_space + 1))
        if end - start - span - min_space > shortest:
            free.append((start + span + min_space, end))
    return np.concatenate(taken)
