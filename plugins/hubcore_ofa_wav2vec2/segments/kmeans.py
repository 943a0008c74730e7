"""Boundaries between runs of like frames: k-means over a hidden layer, and segments that pay for being many.

Each frame is described by its distances to the cluster centres. Dynamic programming then finds the segments, each with one
centre, that make the sum of distances plus a penalty for every segment smallest (Kamper and van Niekerk 2021, whose
duration penalty is the same up to a constant). The penalty is tuned to a corpus. Shapes: `T` frames, `D` dim, `K` clusters,
`N` segments, `B` batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hubcore.errors import OptionError

Distances = NDArray[np.float32]
"""`(T, K)` cost of giving a frame to a cluster."""

_BATCH = 4096
"""Frames of a step of k-means."""
_STEPS = 200
_BATCH_OF_UTTERANCES = 32


@dataclass(frozen=True)
class Codebook:
    """Cluster centres of features, and what made the features comparable.

    Example:
        >>> features = torch.tensor([[0.0], [0.1], [5.0], [5.1]])
        >>> codebook = Codebook.fit(features, clusters=2, seed=0)
        >>> codebook.distances(features).argmin(1)[[0, 1]].tolist() == codebook.distances(features).argmin(1)[[2, 3]].tolist()
        False
    """

    mean: Tensor
    """`(D,)` mean of each dimension."""
    deviation: Tensor
    """`(D,)` standard deviation of each dimension."""
    centres: Tensor
    """`(K, D)` of features less their mean, by their deviation."""

    @classmethod
    def fit(cls, features: Tensor, clusters: int, seed: int) -> Codebook:
        """Finds `clusters` centres of `features` `(T, D)` by mini-batch k-means; the same features give the same centres.

        Raises:
            OptionError: fewer frames than clusters.
        """
        if not 1 <= clusters <= len(features):
            what = f"{clusters} clusters cannot be found in {len(features)} frames. Some hundreds each are usual."
            raise OptionError(what, fix="Lower --clusters, or give more audio.")
        features = features.float()
        mean = features.mean(0)
        deviation = features.std(0, correction=0)
        deviation = torch.where(deviation > 0, deviation, torch.ones_like(deviation))
        scaled = (features - mean) / deviation
        generator = torch.Generator().manual_seed(seed)
        return cls(mean, deviation, _improve(scaled, _spread(scaled, clusters, generator), generator))

    def distances(self, features: Tensor) -> Distances:
        """`(T, K)` squared distances to the centres of features `(T, D)`, by the number of dimensions."""
        scaled = (features.float().cpu() - self.mean) / self.deviation
        return (_squared(scaled, self.centres) / scaled.shape[1]).numpy()


def best_boundaries(distances: Sequence[Distances], penalty: float) -> list[Tensor]:
    """The `(N,)` int64 boundaries of each utterance that cost least, a segment costing `penalty`.

    Example:
        >>> frames = np.array([[0, 1], [0, 1], [0.4, 0.6], [1, 0], [1, 0]], dtype=np.float32)
        >>> [boundaries.tolist() for boundaries in best_boundaries([frames, frames], 0.5)]
        [[3, 5], [3, 5]]
    """
    found: list[Tensor] = []
    for start in range(0, len(distances), _BATCH_OF_UTTERANCES):
        found += _trace([np.asarray(each) for each in distances[start : start + _BATCH_OF_UTTERANCES]], penalty)
    return found


def tune_penalty(distances: Sequence[Distances], mean_alpha: float) -> float:
    """The penalty at which these utterances together have `mean_alpha` segments a frame, as nearly as bisection finds.

    Example:
        >>> frames = np.array([[0, 1], [0, 1], [1, 0], [1, 0]], dtype=np.float32)
        >>> penalty = tune_penalty([frames], 0.5)
        >>> best_boundaries([frames], penalty)[0].tolist()
        [2, 4]
    """
    if not distances:
        raise OptionError("there is no utterance to tune the penalty on.", fix="See what failed, or pass --penalty.")
    frames = sum(len(each) for each in distances)
    by_length = sorted(distances, key=len)

    def excess(penalty: float) -> float:
        return sum(len(each) for each in best_boundaries(by_length, penalty)) / frames - mean_alpha

    low, high = 0.0, 1.0
    while excess(high) > 0 and high < 1e9:
        low, high = high, 2 * high
    for _ in range(20):
        middle = (low + high) / 2
        if excess(middle) > 0:
            low = middle
        else:
            high = middle
    return min((low, high), key=lambda penalty: abs(excess(penalty)))


def _spread(scaled: Tensor, clusters: int, generator: torch.Generator) -> Tensor:
    """`(K, D)` frames far from each other, each drawn in proportion to its squared distance from those before (k-means++)."""
    pick = torch.randperm(len(scaled), generator=generator)[: max(20 * clusters, _BATCH)]
    pool = scaled[pick]
    chosen = [0]
    nearest = _squared(pool, pool[:1])[:, 0].double()
    for _ in range(1, clusters):
        total = nearest.cumsum(0)
        if not float(total[-1]) > 0:  # fewer different frames than clusters
            chosen.append(len(chosen) % len(pool))
            continue
        at = torch.rand(1, generator=generator, dtype=torch.float64) * total[-1]
        chosen.append(min(int(torch.searchsorted(total, at)), len(pool) - 1))
        nearest = torch.minimum(nearest, _squared(pool, pool[chosen[-1:]])[:, 0].double())
    return pool[chosen].clone()


def _improve(scaled: Tensor, centres: Tensor, generator: torch.Generator) -> Tensor:
    """The centres after steps on random batches, each centre the mean of all frames that it was ever given (Sculley 2010)."""
    counts = torch.zeros(len(centres))
    for _ in range(_STEPS):
        batch = scaled[torch.randint(len(scaled), (min(_BATCH, len(scaled)),), generator=generator)]
        nearest = _squared(batch, centres).argmin(1)
        sums = torch.zeros_like(centres).index_add_(0, nearest, batch)
        given = torch.bincount(nearest, minlength=len(centres)).to(counts)
        counts += given
        step = torch.where(counts > 0, given / counts.clamp(min=1), 0)[:, None]
        centres = centres + step * (sums / given.clamp(min=1)[:, None] - centres)
    return centres


def _squared(left: Tensor, right: Tensor) -> Tensor:
    """`(T, K)` squared distances of `(T, D)` and `(K, D)`."""
    products = left @ right.T
    return (left.square().sum(1)[:, None] - 2 * products + right.square().sum(1)).clamp(min=0)


def _trace(distances: list[Distances], penalty: float) -> list[Tensor]:
    """`best_boundaries` of utterances that fit into memory together."""
    lengths = [len(each) for each in distances]
    batch, longest, clusters = len(lengths), max(lengths), distances[0].shape[1]
    padded = np.zeros((longest, batch, clusters), dtype=np.float32)
    for index, each in enumerate(distances):
        padded[: len(each), index] = each
    cost = padded[0].astype(np.float64)  # (B, K), of the best segments so far whose last has this cluster
    stays = np.ones((longest, batch, clusters), dtype=bool)  # whether frame t goes on with the segment of frame t - 1
    best = np.zeros((longest, batch), dtype=np.int64)  # the cluster that it is cheapest to come from
    rows = np.arange(batch)
    ends = cost.argmin(1)  # the cluster of the last segment of each utterance, once its last frame is reached
    for frame in range(1, longest):
        best[frame] = cost.argmin(1)
        leave = cost[rows, best[frame]] + penalty
        np.less_equal(cost, leave[:, None], out=stays[frame])
        cost = np.minimum(cost, leave[:, None]) + padded[frame]
        finished = np.equal(lengths, frame + 1)
        ends[finished] = cost[finished].argmin(1)
    found = []
    for index, length in enumerate(lengths):
        cluster = int(ends[index])
        boundaries = [length]
        for frame in range(length - 1, 0, -1):
            if not stays[frame, index, cluster]:
                boundaries.append(frame)
                cluster = int(best[frame, index])
        found.append(torch.tensor(boundaries[::-1]))
    return found
