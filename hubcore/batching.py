"""Batches of items of similar duration, as indices: for a torch DataLoader, for extraction and for pre-training.

hubcore's models compute nothing for padding, so that what a batch costs is the sum of its durations.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from hubcore.errors import OptionError

_BUCKET_RATIO = 1.1
"""Items of one bucket differ in length by a tenth at most."""


def by_duration(
    seconds: Sequence[float], *, max_seconds: float, seed: int | None = None, epoch: int = 0
) -> list[tuple[int, ...]]:
    """Batches of similar durations, as indices into `seconds`: every index once, at most `max_seconds` together.

    An item that is longer than `max_seconds` is a batch of its own. The same arguments give the same batches on every
    machine, so that a run that stopped after n of them resumes with `batches[n:]`.

    Args:
        seconds: duration of each item.
        max_seconds: most of a batch, together.
        seed: if None, the longest come first, so that what does not fit into memory shows at once. Otherwise items that
            differ by up to a tenth, and then the batches, are shuffled.
        epoch: another number gives another order, where there is a seed.

    Raises:
        OptionError: a duration is not above 0, or `max_seconds` is not.

    Example:
        >>> by_duration([3.0, 9.0, 4.0, 2.0], max_seconds=8)
        [(1,), (2, 0), (3,)]
        >>> by_duration([3.0, 9.0, 4.0, 2.0], max_seconds=8, seed=1) == by_duration([3.0, 9.0, 4.0, 2.0], max_seconds=8, seed=1)
        True
    """
    lengths = np.asarray(seconds, dtype=np.float64)
    wrong = np.flatnonzero(~(np.isfinite(lengths) & (lengths > 0)))
    if lengths.ndim != 1 or len(wrong):
        where = f"item {wrong[0]} lasts {seconds[wrong[0]]!r}" if lengths.ndim == 1 else f"they have shape {lengths.shape}"
        raise OptionError(f"{where}. Each duration must be a number of seconds above 0.", "Leave out what has no audio.")
    if not max_seconds > 0:
        raise OptionError(f"max_seconds is {max_seconds!r}. It must be above 0.", "60 suits a base model on a laptop.")
    if seed is not None:
        return shuffled_batches(lengths, max_seconds, seed=seed, epoch=epoch)
    order = np.argsort(-lengths, kind="stable")
    return _taken(order, cut_batches(lengths[order].tolist(), max_seconds))


def shuffled_batches(lengths: npt.ArrayLike, most: float, *, seed: int, epoch: int) -> list[tuple[int, ...]]:
    """Batches of similar lengths in random order, of at most `most` together, in whatever unit both are.

    Example:
        >>> batches = shuffled_batches([10, 30, 11, 29], 60, seed=1, epoch=0)
        >>> sorted(index for batch in batches for index in batch)
        [0, 1, 2, 3]
    """
    rng = np.random.Generator(np.random.PCG64([seed, epoch]))
    sizes = np.asarray(lengths)
    buckets = np.floor(np.log(sizes) / math.log(_BUCKET_RATIO)).astype(np.int64)
    order = np.lexsort((rng.random(len(sizes)), buckets))
    batches = _taken(order, cut_batches(sizes[order].tolist(), most))
    return [batches[index] for index in np.argsort(rng.random(len(batches)), kind="stable").tolist()]


def cut_batches(lengths: Sequence[float], most: float) -> list[slice]:
    """Neighbours that together are at most `most` long, or a single longer one; one more of the next length would not fit.

    Example:
        >>> items = ["a", "b", "c", "d"]
        >>> [items[batch] for batch in cut_batches([9, 4, 3, 2], 8)]
        [['a'], ['b', 'c'], ['d']]
    """
    batches: list[slice] = []
    begin, room = 0, most
    for index, length in enumerate(lengths):
        if index > begin and length > room:
            batches.append(slice(begin, index))
            begin, room = index, most
        room -= length
    return [*batches, slice(begin, len(lengths))] if len(lengths) else []


def _taken(order: npt.NDArray[np.int64], batches: Sequence[slice]) -> list[tuple[int, ...]]:
    indices = order.tolist()
    return [tuple(indices[batch]) for batch in batches]
