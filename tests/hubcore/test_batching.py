"""Batches of similar durations: all of them, none too long, the same each time."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hubcore.batching import by_duration, shuffled_batches
from hubcore.errors import OptionError

lengths_and_cap = st.lists(st.integers(1, 500), min_size=1, max_size=80).flatmap(
    lambda lengths: st.tuples(st.just(lengths), st.integers(max(lengths), 3000))
)


@given(lengths_and_cap, st.integers(0, 2**31), st.integers(0, 50))
@settings(max_examples=150, deadline=None)
def test_an_epoch_has_every_utterance_once_and_no_batch_is_too_large(
    given_lengths: tuple[list[int], int], seed: int, epoch: int
) -> None:
    lengths, cap = given_lengths
    plan = shuffled_batches(lengths, cap, seed=seed, epoch=epoch)
    assert sorted(index for batch in plan for index in batch) == list(range(len(lengths)))
    assert all(batch and sum(lengths[index] for index in batch) <= cap for batch in plan)
    assert plan == shuffled_batches(lengths, cap, seed=seed, epoch=epoch)


@given(lengths_and_cap, st.integers(0, 2**31))
@settings(max_examples=50, deadline=None)
def test_batches_are_full_and_of_similar_lengths(given_lengths: tuple[list[int], int], seed: int) -> None:
    lengths, cap = given_lengths
    plan = shuffled_batches(lengths, cap, seed=seed, epoch=0)
    totals = [sum(lengths[index] for index in batch) for batch in plan]
    # Only the batch with the longest utterances may have room for another one.
    assert sum(total + max(lengths) < cap - max(lengths) for total in totals) <= 1
    # Batches overlap in length by one bucket at most, whose lengths differ by a tenth.
    buckets = np.floor(np.log(lengths) / math.log(1.1))
    spans = sorted((buckets[list(batch)].min(), buckets[list(batch)].max()) for batch in plan)
    assert all(longest <= shortest for (_, longest), (shortest, _) in itertools.pairwise(spans))


def test_epochs_and_seeds_differ() -> None:
    lengths = [100 + n for n in range(60)]
    plans = [shuffled_batches(lengths, 500, seed=s, epoch=e) for s, e in ((1, 0), (1, 1), (2, 0))]
    assert plans[0] != plans[1] != plans[2] != plans[0]
    first, second = ({tuple(sorted(batch)) for batch in plan} for plan in plans[:2])
    assert len(first & second) < len(first) / 2, "batches are of other utterances, not only in another order"


@given(st.lists(st.floats(0.01, 40.0), max_size=40), st.floats(0.5, 60.0), st.sampled_from([None, 3]))
@settings(max_examples=100, deadline=None)
def test_durations_are_each_taken_once_and_batches_hold_what_fits(seconds: list[float], most: float, seed: int | None) -> None:
    batches = by_duration(seconds, max_seconds=most, seed=seed)
    assert sorted(itertools.chain.from_iterable(batches)) == list(range(len(seconds)))
    assert all(len(batch) == 1 or sum(seconds[index] for index in batch) <= most * (1 + 1e-9) for batch in batches)
    if seed is None:
        assert [seconds[index] for batch in batches for index in batch] == sorted(seconds, reverse=True)


def test_a_data_loader_takes_them_and_goes_on_where_it_stopped() -> None:
    wavs = [torch.zeros(100 * count) for count in (5, 2, 9, 2, 4)]
    batches = by_duration([len(wav) / 100 for wav in wavs], max_seconds=9, seed=1)
    loaders = [torch.utils.data.DataLoader(wavs, batch_sampler=part, collate_fn=list) for part in (batches, batches[1:])]  # type: ignore[arg-type,var-annotated]
    whole, rest = ([[len(wav) for wav in batch] for batch in loader] for loader in loaders)
    assert whole[1:] == rest and sorted(itertools.chain.from_iterable(whole)) == [200, 200, 400, 500, 900]
    assert by_duration([1.0] * 50, max_seconds=2, seed=1) != by_duration([1.0] * 50, max_seconds=2, seed=1, epoch=1)


@pytest.mark.parametrize(
    ("seconds", "most", "message"),
    [([1.0, 0.0], 5, "item 1 lasts 0.0"), ([math.nan], 5, "item 0"), ([[1.0]], 5, "shape"), ([1.0], 0, "max_seconds is 0")],
)
def test_impossible_durations_are_errors(seconds: Any, most: float, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        by_duration(seconds, max_seconds=most)
