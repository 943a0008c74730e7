"""Layers and batches of a bulk extraction."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from hubcore.corpus import find_utterances
from hubcore.errors import OptionError
from hubcore.extract import LayerChoice, choose_layers, measure
from hubcore.extract.batches import batches_of

NAMES = tuple(f"layer{i}" for i in range(13))


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("all", LayerChoice(tuple(range(13)), True)),
        ("last", LayerChoice((12,), False)),
        ("9", LayerChoice((9,), False)),
        (9, LayerChoice((9,), False)),
        ("-1", LayerChoice((12,), False)),
        ("0,6,12", LayerChoice((0, 6, 12), True)),
        ("12,0", LayerChoice((12, 0), True)),
        (" 0, 6", LayerChoice((0, 6), True)),
        ([3], LayerChoice((3,), True)),
        ((0, -1), LayerChoice((0, 12), True)),
        (np.int64(9), LayerChoice((9,), False)),
        (np.array(9), LayerChoice((9,), False)),
        ([np.int32(0), np.int64(-1)], LayerChoice((0, 12), True)),
        (np.array([0, 6]), LayerChoice((0, 6), True)),
        (range(2), LayerChoice((0, 1), True)),
        ("layer9", LayerChoice((9,), False)),
        ("layer9,0", LayerChoice((9, 0), True)),
        ("1-3", LayerChoice((1, 2, 3), True)),
        ("5-5", LayerChoice((5,), True)),
        ("0,10-12", LayerChoice((0, 10, 11, 12), True)),
        (["layer2", -1], LayerChoice((2, 12), True)),
    ],
)
def test_layers_that_can_be_chosen(choice: str | int | list[int], expected: LayerChoice) -> None:
    chosen = choose_layers(choice, NAMES)
    assert chosen == expected
    assert all(type(index) is int for index in chosen.indices), "they go into JSON"


@pytest.mark.parametrize(
    "choice",
    [
        "",
        "first",
        "1,",
        "1;2",
        "1.5",
        "0-13",
        "3-1",
        "1-",
        "0-99999999999",
        "layer13",
        "1-3,2",
        [],
        None,
        "13",
        "-14",
        13,
        "0,99",
        "3,3",
        "0,-13",
        [1.5],
        1.0,
        ["1"],
        np.array([0.5]),
    ],
)
def test_layers_that_cannot_be_chosen(choice: object) -> None:
    with pytest.raises(OptionError, match="layer"):
        choose_layers(choice, NAMES)  # type: ignore[arg-type]


def test_a_layer_that_does_not_exist_says_which_do() -> None:
    with pytest.raises(OptionError, match=r"layer 13.*13 hidden states, 0 \(layer0\) to 12 \(layer12\)"):
        choose_layers("13", NAMES)


def test_what_a_header_rules_out_fails_before_anything_is_computed(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "good.wav", np.zeros(800), 16000)
    soundfile.write(tmp_path / "short.wav", np.zeros(399), 16000)
    soundfile.write(tmp_path / "enough_at_8k.wav", np.zeros(200), 8000)
    (tmp_path / "empty.wav").touch()
    measured, failures = measure(find_utterances([tmp_path]), sample_rate=16000, min_samples=400)
    assert [item.name for item in measured] == ["good", "enough_at_8k"]
    messages = {failure.utterance: failure.error for failure in failures}
    assert messages.keys() == {"short", "empty"}
    assert str(tmp_path / "short.wav") in messages["short"]
    assert "399 samples (24.9 ms) at 16000 Hz" in messages["short"] and "400 samples" in messages["short"]
    assert sum(item.seconds for item in measured) == pytest.approx(0.075)


@settings(max_examples=25, deadline=None)
@given(lengths=st.lists(st.integers(400, 20000), min_size=1, max_size=12), cap=st.floats(0.01, 3))
def test_batches_hold_every_utterance_once_under_the_cap(
    lengths: list[int], cap: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("audio")
    for index, length in enumerate(lengths):
        soundfile.write(root / f"{index:02}.wav", np.zeros(length), 16000)
    measured, _ = measure(find_utterances([root]), sample_rate=16000, min_samples=400)
    batches = batches_of(measured, cap, sample_rate=16000)
    flat = [item for batch in batches for item in batch]
    assert sorted(item.name for item in flat) == [f"{index:02}" for index in range(len(lengths))]
    assert [item.samples for item in flat] == sorted(lengths, reverse=True)
    assert all(len(batch) == 1 or sum(item.samples for item in batch) <= cap * 16000 for batch in batches)
