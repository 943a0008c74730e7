"""K-means in bounded memory: a random `Sample` of frames, k-means++ and Lloyd's steps on it, then mini-batches of all frames.

Shapes: `N` frames, `D` dim, `K` centroids.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hubcore.text import logger

_log = logger("units")
_AT_ONCE = 1 << 22
"""Numbers that are computed at once, so that memory does not grow with the number of frames."""

_ROUNDING = 1e-5
"""Products of float32 vectors are wrong by less than this part of their lengths: 80 times the rounding of one number."""


def nearest(frames: Tensor, centroids: Tensor) -> tuple[Tensor, Tensor]:
    """The number of the nearest centroid of each frame, `(N,)`, and its squared Euclidean distance, `(N,)`.

    Of two at the same distance it is the first, as in scikit-learn's `KMeans.predict`. Where two distances are within the
    rounding of float32, float64 decides, so that a unit depends neither on the frames beside it nor on the machine.

    Example:
        >>> nearest(torch.tensor([[0.0, 1.0], [4.0, 4.0]]), torch.tensor([[5.0, 5.0], [0.0, 0.0]]))
        (tensor([1, 0]), tensor([1., 2.]))
    """
    wide = centroids.double()
    half = wide.square().sum(1) / 2
    largest = (2 * half.max()).sqrt()
    found = []
    for part in frames.split(max(1, _AT_ONCE // max(centroids.shape))):
        scores = torch.addmm(half.to(part.dtype), part, centroids.T, alpha=-1)  # |c|^2 / 2 - x c
        lowest, label = scores.min(1)
        squares = part.square().sum(1)
        second = scores.scatter_(1, label[:, None], torch.inf).min(1).values
        close = (second - lowest <= _ROUNDING * largest * (squares.sqrt() + largest)).nonzero().flatten()
        if len(close):
            exact, label[close] = torch.addmm(half, part[close].double(), wide.T, alpha=-1).min(1)
            lowest[close] = exact.to(lowest.dtype)
        found.append((label, (squares + 2 * lowest).clamp(min=0)))
    labels, distances = zip(*found, strict=True)
    return torch.cat(labels), torch.cat(distances)


class Sample:
    """A uniform random sample of so many frames of a stream of unknown length (reservoir sampling: Vitter 1985, algorithm R).

    Example:
        >>> sample = Sample(100, np.random.default_rng(0))
        >>> for start in range(0, 10_000, 500):
        ...     sample.add(np.arange(start, start + 500, dtype=np.float32)[:, None])
        >>> sample.seen, sample.frames().shape, bool(3500 < sample.frames().mean() < 6500)
        (10000, (100, 1), True)
    """

    def __init__(self, size: int, generator: np.random.Generator) -> None:
        self.size, self.seen = size, 0
        self._generator = generator
        self._kept: NDArray[np.float32] | None = None

    def add(self, frames: NDArray[np.float32]) -> None:
        """Takes `(N, D)` further frames."""
        if self._kept is None:
            self._kept = np.zeros((self.size, frames.shape[1]), dtype=np.float32)  # pages are taken as they are filled
        first = min(len(frames), max(0, self.size - self.seen))
        self._kept[self.seen : self.seen + first] = frames[:first]
        places = self._generator.integers(0, np.arange(self.seen + first, self.seen + len(frames)) + 1)
        chosen = places < self.size
        self._kept[places[chosen]] = frames[first:][chosen]  # of two for one place the later one stays
        self.seen += len(frames)

    def frames(self) -> NDArray[np.float32]:
        """`(N, D)`, all frames where there are no more than the size."""
        return np.zeros((0, 0), np.float32) if self._kept is None else self._kept[: self.seen]


def plus_plus(frames: Tensor, clusters: int, generator: torch.Generator) -> Tensor:
    """First centroids `(K, D)`, frames far from each other (k-means++: Arthur and Vassilvitskii 2007), in random order.

    Each is the best of some frames that are drawn with a probability that grows with the square of their distance from those
    chosen before, as in scikit-learn.

    Example:
        >>> points = torch.tensor([[0.0], [0.1], [9.0], [9.1]])
        >>> sorted(round(float(one)) for one in plus_plus(points, 2, torch.Generator().manual_seed(0)))
        [0, 9]
    """
    trials = 2 + int(np.log(clusters))
    norms = frames.square().sum(1)
    chosen = [int(torch.randint(len(frames), (1,), generator=generator))]
    closest = _squares(frames, norms, torch.tensor(chosen))[0]
    while len(chosen) < clusters:
        total = closest.double().cumsum(0)
        draws = torch.rand(trials, dtype=torch.float64, generator=generator).to(total.device) * total[-1]
        candidates = torch.searchsorted(total, draws).clamp(max=len(frames) - 1)
        after = torch.minimum(closest, _squares(frames, norms, candidates))  # (trials, N)
        best = int(after.double().sum(1).argmin())
        closest = after[best]
        chosen.append(int(candidates[best]))
    return frames[torch.tensor(chosen)]


def _squares(frames: Tensor, norms: Tensor, chosen: Tensor) -> Tensor:
    """Squared distances of all frames from some of them, one row for each of these."""
    chosen = chosen.to(frames.device)
    return torch.addmm(norms, frames[chosen], frames.T, alpha=-2).add_(norms[chosen, None]).clamp_(min=0)


class KMeans:
    """Centroids, and steps that improve them.

    Example:
        >>> points = torch.tensor([[0.0], [1.0], [9.0], [11.0]])
        >>> kmeans = KMeans(points[1:3])
        >>> kmeans.lloyd(points), kmeans.lloyd(points), kmeans.centroids.flatten().tolist()
        (1.25, 0.625, [0.5, 10.0])
        >>> kmeans.step(torch.tensor([[13.0]])), kmeans.centroids.flatten().tolist()
        (9.0, [0.5, 11.0])
    """

    def __init__(self, centroids: Tensor) -> None:
        """From first centroids `(K, D)`."""
        self.centroids = centroids.clone()
        self.counts = torch.zeros(len(centroids), dtype=torch.float64, device=centroids.device)
        """`(K,)`: the number of frames that each is the mean of."""

    def lloyd(self, frames: Tensor) -> float:
        """Makes each centroid the mean of its frames among `(N, D)`; the mean squared distance before that.

        One that has no frame takes the place of the frame that is farthest from its own centroid.
        """
        sums, counts, squares = self._sums(frames)
        empty = (counts == 0).nonzero().flatten()
        if len(empty):
            far = squares.topk(min(len(empty), len(squares))).indices
            sums[empty[: len(far)]], counts[empty[: len(far)]] = frames[far].double(), 1
        held = counts > 0
        self.centroids[held] = (sums[held] / counts[held, None]).to(self.centroids.dtype)
        self.counts = counts
        return float(squares.double().mean())

    def step(self, frames: Tensor) -> float:
        """Moves each centroid towards its frames among `(N, D)`, as the mean of all it ever had; the distance before that.

        That is the step of mini-batch k-means (Sculley 2010), with its learning rate of one over the count.
        """
        sums, counts, squares = self._sums(frames)
        self.counts += counts
        rate = 1 / self.counts.clamp(min=1)
        moved = self.centroids.double()
        self.centroids = (moved + rate[:, None] * (sums - counts[:, None] * moved)).to(self.centroids.dtype)
        return float(squares.double().mean())

    def _sums(self, frames: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Sum and number of the frames of each centroid, and the squared distance of each frame."""
        labels, squares = nearest(frames, self.centroids)
        counts = torch.bincount(labels, minlength=len(self.centroids)).double()
        sums = torch.zeros_like(self.centroids, dtype=torch.float64)
        rows = max(1, _AT_ONCE // frames.shape[1])
        for part, label in zip(frames.split(rows), labels.split(rows), strict=True):
            sums.index_add_(0, label, part.double())
        return sums, counts, squares
