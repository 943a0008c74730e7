"""Precision, recall, F1 and R-value, worked out by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from hubcore.corpus import ManifestEntry
from hubcore.errors import ExtractionError, OptionError
from hubcore_ofa_wav2vec2.segments import Quality, alpha_of, compare_boundaries, compare_corpora, open_segments


def test_perfect_boundaries() -> None:
    quality = compare_boundaries([3, 7, 10], [3, 7, 10], 0)
    assert (quality.precision, quality.recall, quality.f1, quality.over_segmentation, quality.r_value) == (1, 1, 1, 0, 1)


def test_the_figures_by_hand() -> None:
    # 3 of 4 found boundaries hit, of 6: P = .75, R = .5, F1 = .6, OS = 4/6 - 1 = -1/3.
    quality = Quality(hits=3, found=4, reference=6)
    assert (quality.precision, quality.recall, quality.f1) == (0.75, 0.5, pytest.approx(0.6))
    assert quality.over_segmentation == pytest.approx(-1 / 3)
    # r1 = sqrt(.5^2 + (1/3)^2) = .600925, r2 = (1/3 + .5 - 1) / sqrt 2 = -.117851, R = 1 - (.600925 + .117851) / 2.
    assert quality.r_value == pytest.approx(0.640612, abs=1e-6)


def test_the_r_value_does_not_reward_boundaries_everywhere() -> None:
    # A boundary at every frame of 21 hits all four: F1 is 1/3 and R = 1 - (4 + 4 / sqrt 2) / 2.
    everywhere = compare_boundaries(list(range(1, 22)), [4, 8, 12, 16, 21], 0)
    assert (everywhere.hits, everywhere.recall, everywhere.f1) == (4, 1, pytest.approx(1 / 3))
    assert everywhere.r_value == pytest.approx(1 - (4 + 4 / math.sqrt(2)) / 2)


@pytest.mark.parametrize(
    ("found", "reference", "tolerance", "hits"),
    [
        ([4, 20], [5, 20], 1, 1),
        ([4, 20], [5, 20], 0, 0),
        ([3, 20], [5, 20], 1, 0),
        ([4, 5, 20], [5, 20], 1, 1),  # one reference boundary is hit once
        ([5, 20], [4, 6, 20], 1, 1),
        ([4, 6, 20], [5, 7, 20], 1, 2),
        ([5, 6, 20], [4, 5, 20], 1, 2),  # pairs cross over rather than waste one
        ([20], [4, 20], 1, 0),
        ([4, 20], [20], 1, 0),
    ],
)
def test_pairs_within_the_tolerance(found: list[int], reference: list[int], tolerance: float, hits: int) -> None:
    quality = compare_boundaries(found, reference, tolerance)
    assert quality == Quality(hits, len(found) - 1, len(reference) - 1, 1), "the end is no boundary"


def test_what_is_undefined() -> None:
    nothing = compare_boundaries([5], [5])
    assert (nothing.precision, nothing.recall) == (1, 1) and math.isnan(nothing.r_value)
    too_many = compare_boundaries([2, 5], [5])
    assert (too_many.precision, too_many.recall, too_many.f1) == (0, 1, 0)
    none_found = compare_boundaries([5], [2, 5])
    assert (none_found.precision, none_found.recall, none_found.f1) == (0, 0, 0)
    told = json.loads(json.dumps(nothing.to_dict(), allow_nan=False))
    assert told["r_value"] is None and told["precision"] == 1


def corpus(folder: Path, **ends: list[int]) -> Path:
    for name, each in ends.items():
        for kind, tensor in {"alpha": alpha_of(torch.tensor(each)), "boundaries": torch.tensor(each)}.items():
            (folder / kind).mkdir(parents=True, exist_ok=True)
            torch.save(tensor, folder / kind / f"{name}.pt")
    return folder


def test_a_corpus_is_judged_as_a_whole(tmp_path: Path) -> None:
    found = open_segments(corpus(tmp_path / "found", a=[2, 5, 9], b=[4], c=[3]))
    reference = open_segments(corpus(tmp_path / "reference", a=[3, 9], b=[2, 4]))
    entries = [ManifestEntry(f"{name}.wav", 400) for name in "abc"]
    assert compare_corpora(found, reference, entries) == Quality(1, 2, 2, 2)
    assert compare_corpora(found, reference, entries, tolerance_ms=19.9).hits == 0
    assert compare_corpora(found, reference, entries, tolerance_ms=40).hits == 1
    with pytest.raises(ExtractionError, match="no utterance is both"):
        compare_corpora(found, reference, entries[2:])
    with pytest.raises(OptionError, match="tolerance"):
        compare_corpora(found, reference, entries, tolerance_ms=-1)


def test_another_number_of_frames_is_an_error(tmp_path: Path) -> None:
    found = open_segments(corpus(tmp_path / "found", a=[2, 9]))
    reference = open_segments(corpus(tmp_path / "reference", a=[3, 10]))
    with pytest.raises(ExtractionError, match=r"a\.wav: the boundaries end at frame 9, the reference boundaries at 10"):
        compare_corpora(found, reference, [ManifestEntry("a.wav", 400)])
