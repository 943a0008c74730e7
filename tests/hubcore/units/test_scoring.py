"""Purity and PNMI: numbers made by hand, scikit-learn's, and which frame meets which phone."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from sklearn.metrics import mutual_info_score

from hubcore.errors import ExtractionError, OptionError
from hubcore.units import Units, score
from hubcore.units.alignment import Alignment, Segment
from hubcore.units.scoring import draw_scores, frame_middles, measure


def windows(count):
    """Frames of 25 ms each 20 ms."""
    starts = np.arange(count) * 0.02
    return np.stack([starts, starts + 0.025], axis=1)


def alignment(*spans):
    return Alignment(tuple(Segment(*span) for span in spans))


@pytest.mark.parametrize("seed", range(5))
def test_pnmi_is_that_of_scikit_learn_and_purities_those_of_a_loop(seed):
    drawn = np.random.default_rng(seed)
    phones, units = drawn.integers(0, 12, 3000), drawn.integers(0, 30, 3000)
    phones[drawn.random(3000) < 0.5] = 3
    units = np.where(drawn.random(3000) < 0.6, phones, units)
    names = [f"p{phone}" for phone in phones]
    spans = [(place * 0.02, (place + 1) * 0.02, name) for place, name in enumerate(names)]
    found = score({"a": Units(units)}, {"a": alignment(*spans)}, frame_stride=0.02)
    assert found.frames == 3000
    assert found.measures.pnmi == pytest.approx(mutual_info_score(phones, units) / mutual_info_score(phones, phones), abs=1e-12)
    by_unit = sum(max(np.sum((units == unit) & (phones == phone)) for phone in range(12)) for unit in range(30))
    by_phone = sum(max(np.sum((units == unit) & (phones == phone)) for unit in range(30)) for phone in range(12))
    assert found.measures[:2] == pytest.approx((by_unit / 3000, by_phone / 3000), abs=1e-12)


def test_measures_made_by_hand():
    # Four phones of equal share; one unit knows two of them together, and one the others.
    found = measure(np.array([[1, 0], [1, 0], [0, 1], [0, 1]]))
    assert found == pytest.approx((0.5, 1.0, 0.5))
    assert measure(np.array([[1, 1], [1, 1]])) == pytest.approx((0.5, 0.5, 0.0))
    assert math.isnan(measure(np.array([[3, 2]])).pnmi)


def test_the_phone_of_a_frame_is_the_one_at_its_middle():
    # Middles at 12.5, 32.5, 52.5 and 72.5 ms.
    given = alignment((0.0, 0.0325, "A"), (0.0325, 0.0525, "B"), (0.0525, 0.07, "C"))
    found = score({"a": Units(np.arange(4), times=windows(4))}, {"a": given})
    assert dict(zip(found.phones, found.counts.tolist(), strict=True)) == {"A": [1, 0, 0], "B": [0, 1, 0], "C": [0, 0, 1]}
    assert (found.unlabelled, found.units) == (1, (0, 1, 2))
    assert (found.aligned_seconds, found.covered_seconds) == pytest.approx((0.07, 0.085))


def test_deduplicated_units_score_as_those_of_each_frame():
    drawn = np.random.default_rng(0)
    units = drawn.integers(0, 3, 200)
    ends = np.sort(drawn.random(60)) * 4
    given = {"a": alignment(*((a, b, "ABCD"[drawn.integers(4)]) for a, b in itertools.pairwise(ends)))}
    first = np.flatnonzero(np.append(True, units[1:] != units[:-1]))
    durations = np.diff(np.append(first, 200))
    times = windows(200)
    runs = Units(units[first], durations, np.stack([times[first, 0], times[first + durations - 1, 1]], axis=1))
    whole, short = score({"a": Units(units, times=times)}, given), score({"a": runs}, given)
    assert whole.counts.tolist() == short.counts.tolist()
    assert whole.unlabelled == short.unlabelled
    assert np.allclose(frame_middles(runs, 0.0)[0], times.mean(1))


def test_one_run_and_no_units():
    middles, numbers = frame_middles(Units(np.array([7]), np.array([4]), np.array([[0.0, 0.08]])), 0.0)
    assert middles.tolist() == pytest.approx([0.01, 0.03, 0.05, 0.07])
    assert numbers.tolist() == [7] * 4
    assert len(frame_middles(Units(np.zeros(0, int), times=np.zeros((0, 2))), 0.0)[0]) == 0


def test_labels_are_changed_and_left_out():
    given = {"a": alignment((0.0, 0.02, "aa"), (0.02, 0.04, "ao"), (0.04, 0.06, "q"), (0.06, 0.08, "sil"))}
    found = score(
        {"a": Units(np.arange(4))}, given, frame_stride=0.02, change={"ao": "aa", "q": None, "sil": "pau"}, ignore=["pau"]
    )
    assert (found.phones, found.counts.tolist(), found.unlabelled) == (("aa",), [[1, 1]], 2)


def test_what_cannot_be_compared_is_refused():
    given = {"x/a": alignment((0.0, 0.02, "A"))}
    with pytest.raises(ExtractionError, match="names of units are like 'a', of alignments like 'x/a'"):
        score({"a": Units(np.arange(4))}, given, frame_stride=0.02)
    with pytest.raises(OptionError, match=r"the units of x/a have no times\. Give the frame stride"):
        score({"x/a": Units(np.arange(4))}, given)
    with pytest.raises(ExtractionError, match="no frame of the units has a label"):
        score({"x/a": Units(np.arange(4))}, given, frame_stride=0.02, ignore=["A"])
    for durations in ([-1, 1], [2**62, 2**62]):
        with pytest.raises(ExtractionError, match="durations of units that are below 0, or sum to"):
            score({"x/a": Units(np.arange(2), np.array(durations))}, given, frame_stride=0.02)


@pytest.mark.slow
def test_a_picture_has_a_panel_for_each_set_of_units_its_units_in_the_order_of_their_phones():
    given = {"a": alignment((0.0, 0.06, "A$"), (0.06, 0.08, "B"))}
    one = score({"a": Units(np.array([5, 5, 5, 2]))}, given, frame_stride=0.02)
    figure = draw_scores({"one": one, "two": one})
    panels = [axis for axis in figure.axes if axis.get_images() and axis.get_title()]
    assert [axis.get_title() for axis in panels] == [
        "one: PNMI 1.000, phone purity 1.000",
        "two: PNMI 1.000, phone purity 1.000",
    ]
    assert panels[0].get_images()[0].get_array().tolist() == [[1.0, 0.0], [0.0, 1.0]]
    assert [text.get_text() for text in panels[0].get_yticklabels()] == ["A$", "B"]
