"""`epoch_batches`: indices in batches of similar length, another order for each epoch."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

_RATIO = 1.1
"""Lengths of one bucket differ by a tenth at most."""


def epoch_batches(lengths: Sequence[int], *, seed: int, epoch: int, max_per_batch: int) -> list[tuple[int, ...]]:
    """The batches of an epoch as indices into `lengths`: every index once, similar lengths together, all in random order.

    The sum of a batch's lengths is at most `max_per_batch`, and one more utterance of such a length would not fit.

    Example:
        >>> batches = epoch_batches([10, 30, 11, 29], seed=1, epoch=0, max_per_batch=60)
        >>> sorted(index for batch in batches for index in batch)
        [0, 1, 2, 3]
    """
    rng = np.random.Generator(np.random.PCG64([seed, epoch]))
    sizes = np.asarray(lengths, dtype=np.int64)
    buckets = np.floor(np.log(sizes) / math.log(_RATIO)).astype(np.int64)
    order = np.lexsort((rng.random(len(sizes)), buckets))
    batches: list[tuple[int, ...]] = []
    batch: list[int] = []
    total = 0
    for index in order.tolist():
        size = int(sizes[index])
        if batch and total + size > max_per_batch:
            batches.append(tuple(batch))
            batch, total = [], 0
        batch.append(index)
        total += size
    batches.append(tuple(batch))
    return [batches[index] for index in np.argsort(rng.random(len(batches)), kind="stable").tolist()]
