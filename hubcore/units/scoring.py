"""Units against phones: `score` counts frames, and gives phone purity, cluster purity and PNMI; `draw_scores` draws them.

The measures are those of the HuBERT paper (Hsu et al. 2021, section IV.B). Shapes: `P` phones, `U` units, `F` frames.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hubcore.errors import ExtractionError, OptionError
from hubcore.files import read_small
from hubcore.text import printable
from hubcore.tools.plotting import load_matplotlib
from hubcore.units.alignment import Alignment
from hubcore.units.files import Units

_MOST_FRAMES = 100_000_000  # of one utterance; a file may name any number
_LARGEST_MAP = 1 << 24  # bytes
_NO_CHANGE: Mapping[str, str | None] = {}


class Measures(NamedTuple):
    """Three numbers from 0 to 1 about how units and phones go together; more is better."""

    phone_purity: float
    """Share of frames whose phone is the most frequent one of their unit: the accuracy if each unit is read as that phone."""
    cluster_purity: float
    """Share of frames whose unit is the most frequent one of their phone. It falls with the number of units."""
    pnmi: float
    """Mutual information of phone and unit, divided by the entropy of the phones: the part of what there is to know about the
    phone of a frame that its unit tells. NaN if all frames have one phone."""


def measure(counts: NDArray[Any]) -> Measures:
    """The measures of frames `(P, U)` counted by phone and unit.

    Example:
        >>> measure(np.array([[30, 10, 0], [0, 0, 40]]))
        Measures(phone_purity=1.0, cluster_purity=0.875, pnmi=1.0)
    """
    joint = np.asarray(counts, dtype=np.float64) / np.sum(counts)
    phones, units = joint.sum(1), joint.sum(0)
    there = joint > 0
    information = float((joint[there] * np.log(joint[there] / np.outer(phones, units)[there])).sum())
    entropy = -float((phones[phones > 0] * np.log(phones[phones > 0])).sum())
    pnmi = min(max(information / entropy, 0.0), 1.0) if entropy else float("nan")  # rounding may leave this range
    return Measures(float(joint.max(0).sum()), float(joint.max(1).sum()), pnmi)


@dataclass(frozen=True, eq=False)
class Score:
    """Units of a corpus compared with its phones."""

    phones: tuple[str, ...]
    """Labels, the most frequent one first."""
    units: tuple[int, ...]
    """Units that occur, sorted."""
    counts: NDArray[np.int64]
    """`(P, U)` frames."""
    utterances: int
    """Utterances on both sides."""
    without_reference: tuple[str, ...]
    """Utterances that have units and no alignment."""
    without_units: tuple[str, ...]
    """Utterances that have an alignment and no units."""
    unlabelled: int
    """Frames where the alignment has no label, or one that is left out."""
    aligned_seconds: float
    """Length of the alignments that were compared."""
    covered_seconds: float
    """Length of the units of the same utterances."""

    @property
    def measures(self) -> Measures:
        """Purities and PNMI."""
        return measure(self.counts)

    @property
    def frames(self) -> int:
        """Frames that were counted."""
        return int(self.counts.sum())


def score(
    units: Mapping[str, Units],
    reference: Mapping[str, Alignment],
    *,
    frame_stride: float | None = None,
    change: Mapping[str, str | None] = _NO_CHANGE,
    ignore: Collection[str] = (),
) -> Score:
    """Counts the frames of each phone and unit. The phone of a frame is the one at its middle.

    Args:
        units: by utterance; a unit that stands for several frames counts as often.
        reference: by utterance.
        frame_stride: seconds from one frame to the next, for units without times, as in text and `.km`.
        change: a label for each one that is to be another, or None for one to be left out, such as TIMIT's 61 to 39.
        ignore: labels to leave out, after `change`.

    Raises:
        ExtractionError: no utterance is on both sides, or no frame has a label.
        OptionError: the units have no times and no `frame_stride` is given.

    Example:
        >>> from hubcore.units.alignment import Segment
        >>> made = {"a": Units(np.array([5, 5, 7])), "b": Units(np.array([5]))}
        >>> given = {"a": Alignment((Segment(0.0, 0.04, "AH"), Segment(0.04, 0.06, "T")))}
        >>> found = score(made, given, frame_stride=0.02)
        >>> found.measures.pnmi, found.phones, found.units, found.counts.tolist(), found.without_reference
        (1.0, ('AH', 'T'), (5, 7), [[2, 0], [0, 1]], ('b',))
    """
    both = [name for name in units if name in reference]
    if not both:
        left, right = (printable(next(iter(side), "none")) for side in (units, reference))
        what = f"no utterance has both units and an alignment: names of units are like {left!r}, of alignments like {right!r}."
        raise ExtractionError(what, fix="Name them alike: a file is called by its path below the folder, without its ending.")
    pairs: Counter[tuple[str, int]] = Counter()
    unlabelled, covered = 0, 0.0
    for name in both:
        one = units[name]
        if one.times is None and frame_stride is None:
            what = f"the units of {printable(name)} have no times."
            raise OptionError(what, "Give the frame stride, such as 0.02 (--frame-stride), or units as npz or Parquet.")
        moments, numbers = frame_middles(one, frame_stride or 0.0)
        covered += float(one.times[-1, 1]) if one.times is not None and len(moments) else len(moments) * (frame_stride or 0.0)
        for label, unit in zip(reference[name].labels_at(moments), numbers.tolist(), strict=True):
            label = change.get(label, label) if label is not None else None
            if label is None or label in ignore:
                unlabelled += 1
            else:
                pairs[label, unit] += 1
    if not pairs:
        raise ExtractionError("no frame of the units has a label.", fix="Compare the times of both, and what is left out.")
    frequency: Counter[str] = Counter()
    for (label, _), count in pairs.items():
        frequency[label] += count
    phones = sorted(frequency, key=lambda label: (-frequency[label], label))
    numbers_used = sorted({unit for _, unit in pairs})
    rows, columns = ({key: place for place, key in enumerate(keys)} for keys in (phones, numbers_used))
    counts = np.zeros((len(phones), len(numbers_used)), dtype=np.int64)
    for (label, unit), count in pairs.items():
        counts[rows[label], columns[unit]] = count
    return Score(
        phones=tuple(phones),
        units=tuple(numbers_used),
        counts=counts,
        utterances=len(both),
        without_reference=tuple(name for name in units if name not in reference),
        without_units=tuple(name for name in reference if name not in units),
        unlabelled=unlabelled,
        aligned_seconds=sum(reference[name].seconds for name in both),
        covered_seconds=covered,
    )


def frame_middles(units: Units, frame_stride: float) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """The middle of each frame in seconds `(F,)`, and its unit `(F,)`.

    A unit of several frames has the start of the first and the end of the last one; the next unit's start tells their stride.

    Raises:
        ExtractionError: durations are below 0, or too long to be any.

    Example:
        >>> times = np.array([[0.0, 0.045], [0.04, 0.065]])  # frames of 25 ms each 20 ms
        >>> middles, numbers = frame_middles(Units(np.array([5, 12]), np.array([2, 1]), times), 0.0)
        >>> middles.round(4).tolist(), numbers.tolist()
        ([0.0125, 0.0325, 0.0525], [5, 5, 12])
    """
    runs = np.ones(len(units.units), np.int64) if units.durations is None else units.durations
    total = float(runs.sum(dtype=np.float64))
    if total > _MOST_FRAMES or (runs < 0).any():
        what = f"an utterance has durations of units that are below 0, or sum to {total:.0f} frames."
        raise ExtractionError(what, fix="Make the units again with `hubcore units apply`.")
    numbers = np.repeat(units.units, runs)
    if units.times is None or not len(runs):
        return ((np.arange(len(numbers)) + 0.5) * frame_stride).astype(np.float64), numbers
    starts, ends = units.times.T
    shared = (ends - starts) / np.maximum(runs, 1)
    strides = np.append(np.diff(starts) / np.maximum(runs[:-1], 1), 0.0)
    strides[-1] = strides[-2] if len(runs) > 1 else shared[-1]
    widths = ends - starts - (runs - 1) * strides
    place = np.arange(len(numbers)) - np.repeat(np.cumsum(runs) - runs, runs)
    middles: NDArray[np.float64] = np.repeat(starts + widths / 2, runs) + place * np.repeat(strides, runs)
    return middles, numbers


def draw_scores(scores: Mapping[str, Score]) -> Any:
    """A `matplotlib.figure.Figure` of P(phone | unit), a panel for each set of units.

    Phones are sorted by frequency, units by their most frequent phone and how sure it is.

    Raises:
        HubcoreError: matplotlib is missing or broken.
    """
    columns = min(len(scores), 3)
    rows = -(-len(scores) // columns)
    height = max(2.5, 0.115 * max(len(one.phones) for one in scores.values()) + 0.9)
    figure = load_matplotlib("figure").Figure(figsize=(4.2 * columns + 0.8, height * rows), layout="constrained")
    axes = [*figure.subplots(rows, columns, squeeze=False).flat]
    image = None
    for (name, one), axis in zip(scores.items(), axes, strict=False):
        given_unit = one.counts / one.counts.sum(0)
        best = given_unit.argmax(0)
        order = np.lexsort((-given_unit.max(0), best))
        image = axis.imshow(given_unit[:, order], aspect="auto", interpolation="nearest", cmap="magma_r", vmin=0, vmax=1)
        title = f"{printable(name)}: PNMI {one.measures.pnmi:.3f}, phone purity {one.measures.phone_purity:.3f}"
        axis.set_title(title, fontsize=8, parse_math=False)
        axis.set_yticks(range(len(one.phones)), [printable(label) for label in one.phones], fontsize=6, parse_math=False)
        axis.set_xticks([])
        axis.set_xlabel(f"{len(one.units)} units", fontsize=8)
        axis.spines[:].set_visible(False)
    for axis in axes[len(scores) :]:
        axis.set_axis_off()
    figure.colorbar(image, ax=axes, label="P(phone | unit)", shrink=0.6, aspect=40)
    return figure


def read_changes(path: str | os.PathLike[str]) -> dict[str, str | None]:
    r"""Labels to be changed, as Kaldi's phone maps have them: the first column becomes the last one.

    A line of one column leaves a label out, as `q` in `phones.60-48-39.map`.

    Raises:
        OptionError: the file cannot be read, or is no text.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> path = Path(tempfile.mkdtemp(), "phones.map")
        >>> _ = path.write_text("aa aa aa\nao ao aa\nq\n")
        >>> read_changes(path)
        {'aa': 'aa', 'ao': 'aa', 'q': None}
    """
    try:
        lines = read_small(path, _LARGEST_MAP).decode("utf-8-sig").split("\n")
    except (OSError, ValueError) as error:
        raise OptionError(f"{printable(path)} cannot be read: {error}.", fix="Give a text of two columns.") from error
    rows = [words for line in lines if (words := line.split())]
    return {words[0]: words[-1] if len(words) > 1 else None for words in rows}
