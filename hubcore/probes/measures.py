"""Measures of a probe on its test part, each a function of weights of the utterances, so that a bootstrap can draw them.

Shapes: `N` utterances, `C` classes.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

HIGHER_IS_BETTER = {
    "accuracy": True,
    "macro F1": True,
    "EER": False,
    "CER": False,
    "PER": False,
    "MSE": False,
    "R2": True,
    "Pearson": True,
}
"""The measures, and the direction in which each is better."""
_REPLICATES = 1000
_TRIALS = 2 * 10**8
"""Trials of an equal error rate that a bootstrap looks at, in all its replicates."""


class Outcome(Protocol):
    """Labels of a test part beside what was predicted."""

    def __len__(self) -> int:
        """The number of utterances."""
        ...

    def measures(self, weights: Array) -> dict[str, float]:
        """Each measure, every utterance counted as often as its weight `(N,)` says."""
        ...


@dataclass(frozen=True, eq=False)
class Classified:
    """Classes.

    `EER` is that of trials of every utterance against every class, by the log-odds of the class; of two classes it is the
    usual equal error rate.

    Example:
        >>> scores = np.log([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.1, 0.9]])
        >>> found = Classified(np.array([0, 1, 1, 1]), scores).measures(np.ones(4))
        >>> {name: round(value, 3) for name, value in found.items()}
        {'accuracy': 0.75, 'macro F1': 0.733, 'EER': 0.0}
    """

    truth: NDArray[np.int64]
    """`(N,)` class of each."""
    scores: Array
    """`(N, C)` logarithms of probabilities."""

    @functools.cached_property
    def _ordered(self) -> tuple[NDArray[np.int64], NDArray[np.bool_], NDArray[np.int64]]:
        """The trials, best score first: the utterance of each, whether it is a target, and where equal scores end."""
        odds = self.scores - np.log(-np.expm1(np.minimum(self.scores, -1e-12)))  # no class is quite certain
        columns = odds[:, 1:] if odds.shape[1] == 2 else odds
        targets = self.truth[:, None] == np.arange(odds.shape[1] - columns.shape[1], odds.shape[1])
        order = np.argsort(-columns.ravel(), kind="stable")
        return order // columns.shape[1], targets.ravel()[order], _last_of_ties(columns.ravel()[order])

    def __len__(self) -> int:
        return len(self.truth)

    @property
    def trials(self) -> int:
        """The number of trials of the equal error rate."""
        return len(self._ordered[0])

    def measures(self, weights: Array) -> dict[str, float]:
        """Accuracy, macro F1 and equal error rate."""
        said, classes = self.scores.argmax(1), self.scores.shape[1]
        right = weights * (said == self.truth)
        hits = np.bincount(self.truth, right, classes)
        both = np.bincount(self.truth, weights, classes) + np.bincount(said, weights, classes)
        seen = both > 0
        items, targets, ends = self._ordered
        return {
            "accuracy": _share(float(right.sum()), float(weights.sum())),
            "macro F1": float((2 * hits[seen] / both[seen]).mean()) if seen.any() else np.nan,
            "EER": equal_error_rate(weights[items], targets, ends),
        }


def _last_of_ties(ordered: Array) -> NDArray[np.int64]:
    """The places after which a threshold can lie: where equal scores end."""
    return np.flatnonzero(np.append(np.diff(ordered) != 0, True))


def equal_error_rate(weights: Array, targets: NDArray[np.bool_], ends: NDArray[np.int64]) -> float:
    """The rate at which as many targets are rejected as others accepted, on straight lines between thresholds.

    Args:
        weights: of the trials, best score first.
        targets: True for trials that should be accepted.
        ends: the last trial of each score.

    Example:
        >>> equal_error_rate(np.ones(4), np.array([True, False, True, False]), np.arange(4))
        0.5
    """
    accepted = np.cumsum(np.stack([weights * targets, weights * ~targets]), axis=1)[:, ends]
    total = accepted[:, -1]
    if not total.all():
        return np.nan
    rejected, wrong = np.insert(1 - accepted[0] / total[0], 0, 1.0), np.insert(accepted[1] / total[1], 0, 0.0)
    at = int(np.argmax(wrong >= rejected))
    gap, step = rejected[at - 1] - wrong[at - 1], wrong[at] - wrong[at - 1] + rejected[at - 1] - rejected[at]
    return float(wrong[at - 1] + (wrong[at] - wrong[at - 1]) * gap / step)


@dataclass(frozen=True, eq=False)
class Regressed:
    """Numbers.

    Example:
        >>> found = Regressed(np.array([1.0, 2.0, 3.0]), np.array([1.0, 2.0, 4.0])).measures(np.ones(3))
        >>> {name: round(value, 3) for name, value in found.items()}
        {'MSE': 0.333, 'R2': 0.5, 'Pearson': 0.982}
    """

    truth: Array
    """`(N,)` labels."""
    said: Array
    """`(N,)` predictions."""

    def __len__(self) -> int:
        return len(self.truth)

    def measures(self, weights: Array) -> dict[str, float]:
        """Mean squared error, R2 and Pearson's correlation; the last is 0 where one of both does not vary."""
        total = float(weights.sum())
        if not total:
            return {"MSE": np.nan, "R2": np.nan, "Pearson": np.nan}
        x, y = (values - float(weights @ values) / total for values in (self.truth, self.said))
        spread, error = float(weights @ x**2), float(weights @ (self.truth - self.said) ** 2)
        both = spread * float(weights @ y**2)
        return {
            "MSE": error / total,
            "R2": 1 - error / spread if spread else np.nan,
            "Pearson": float(weights @ (x * y)) / both**0.5 if both > 1e-24 else 0.0,
        }


@dataclass(frozen=True, eq=False)
class Transcribed:
    """Texts, by their edits: insertions, deletions and substitutions over the length of what is right.

    Example:
        >>> Transcribed("CER", np.array([1.0, 0.0]), np.array([4.0, 6.0])).measures(np.ones(2))
        {'CER': 0.1}
    """

    name: str
    """`CER` or `PER`."""
    edits: Array
    """`(N,)` edits of each."""
    lengths: Array
    """`(N,)` tokens that each should have."""

    def __len__(self) -> int:
        return len(self.edits)

    def measures(self, weights: Array) -> dict[str, float]:
        """The error rate."""
        return {self.name: _share(float(weights @ self.edits), float(weights @ self.lengths))}


def _share(part: float, whole: float) -> float:
    return part / whole if whole else np.nan


def edits(right: Sequence[object], said: Sequence[object]) -> int:
    """The fewest insertions, deletions and substitutions that turn one sequence into the other.

    Example:
        >>> edits("kitten", "sitting")
        3
    """
    row = list(range(len(said) + 1))
    for number, one in enumerate(right, 1):
        corner, row[0] = row[0], number
        for place, other in enumerate(said, 1):
            corner, row[place] = row[place], min(row[place] + 1, row[place - 1] + 1, corner + (one != other))
    return row[-1]


class Score(NamedTuple):
    """A measure on the test part, the mean of all seeds."""

    value: float
    """The measure."""
    low: float
    """The lower end of its 95 % interval."""
    high: float
    """The upper end."""
    chance: float
    """The measure of an answer that knows nothing of the features."""

    def plain(self) -> dict[str, float | None]:
        """The numbers as plain data; None for one that is not defined, such as R2 where labels do not vary."""
        return {name: value if math.isfinite(value) else None for name, value in self._asdict().items()}


def scores_of(outcomes: Sequence[Outcome], groups: Sequence[Sequence[str]], chances: Sequence[Outcome]) -> dict[str, Score]:
    """Measures over all seeds, with intervals from a bootstrap that draws groups with replacement.

    Args:
        outcomes: that of each seed.
        groups: for each of them, the group of each utterance.
        chances: the outcome of answers without features, for each seed.

    Example:
        >>> right, wrong = (Regressed(np.arange(8.0), np.arange(8.0) * k) for k in (1, -1))
        >>> scores_of([right], ["abcdefgh"], [wrong])["Pearson"]
        Score(value=1.0, low=1.0, high=1.0, chance=-1.0)
    """
    names = sorted({group for one in groups for group in one})
    place = {group: index for index, group in enumerate(names)}
    places = [np.array([place[group] for group in one]) for one in groups]
    trials = sum(getattr(outcome, "trials", len(outcome)) for outcome in outcomes)
    replicates = int(np.clip(_TRIALS // max(trials, 1), 100, _REPLICATES))
    drawn = np.random.default_rng(0).multinomial(len(names), np.full(len(names), 1 / len(names)), size=replicates)
    values = _means([outcome.measures(np.ones(len(outcome))) for outcome in outcomes])
    chance = _means([outcome.measures(np.ones(len(outcome))) for outcome in chances])
    found = [
        _means([one.measures(draw[where].astype(np.float64)) for one, where in zip(outcomes, places, strict=True)])
        for draw in drawn
    ]
    scores = {}
    for name, value in values.items():
        many = np.array([one[name] for one in found])
        many = many[np.isfinite(many)]
        low, high = np.quantile(many, [0.025, 0.975]).tolist() if len(many) else (np.nan, np.nan)
        scores[name] = Score(value, low, high, chance[name])
    return scores


def _means(found: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of each measure over the seeds in which it is defined."""
    means = {}
    for name in found[0]:
        values = [one[name] for one in found if np.isfinite(one[name])]
        means[name] = float(np.mean(values)) if values else np.nan
    return means
