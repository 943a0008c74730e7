"""`hubcore plot similarity`: CKA against the formulas of the papers, frame rates, memory, and the command."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from hubcore import hub
from hubcore.corpus import File, Utterance, find_utterances
from hubcore.errors import AudioError, ExtractionError, OptionError
from hubcore.extract import extract
from hubcore.tools.frames import ComputedFrames, Frames, StoredFrames
from hubcore.tools.similarity import CkaSum, similarity
from tests.paths import SPEECH
from tests.running import command

TINY = "wav2vec2_tiny_prompts"
call = partial(command, "plot", "similarity")


class Given:
    """Frames that are made up."""

    def __init__(self, name: str, stored: dict[str, Frames]) -> None:
        self.name, self._stored = name, stored
        self.layer_names = tuple(f"layer_{index}" for index in range(len(next(iter(stored.values())).states)))
        self.utterances = dict.fromkeys(stored)

    def read(self, utterance: str) -> Frames:
        return self._stored[utterance]


def steady(states: Sequence[Any], period: float) -> Frames:
    starts = np.arange(len(states[0])) * period
    return Frames(tuple(states), np.stack([starts, starts + period], 1))


def plain_hsic(x: Any, y: Any) -> float:
    """Song et al. 2012, equation 5, word by word in float64."""
    k, m = (states.astype(np.float64) @ states.astype(np.float64).T for states in (x, y))
    np.fill_diagonal(k, 0)
    np.fill_diagonal(m, 0)
    n, one = len(k), np.ones(len(k))
    inner = np.trace(k @ m) + (one @ k @ one) * (one @ m @ one) / ((n - 1) * (n - 2)) - 2 / (n - 2) * (one @ k @ m @ one)
    return float(inner / (n * (n - 3)))


def plain_cka(x: Any, y: Any) -> float:
    """Kornblith et al. 2019, section 3: the usual, biased one."""
    x, y = (states.astype(np.float64) - states.mean(0, dtype=np.float64) for states in (x, y))
    return float(np.sum((y.T @ x) ** 2) / np.sqrt(np.sum((x.T @ x) ** 2) * np.sum((y.T @ y) ** 2)))


def layers(seed: int, frames: int, widths: Sequence[int]) -> list[Any]:
    draw = np.random.default_rng(seed)
    common = draw.normal(size=(frames, 4))
    return [
        (common @ draw.normal(size=(4, width)) + draw.normal(size=(frames, width)) + 50).astype(np.float32) for width in widths
    ]


def test_a_batch_gives_the_formula_of_the_unbiased_estimate() -> None:
    every = layers(0, 60, [7, 90, 5, 12, 3])
    one, other = every[:2], every[2:]
    total = CkaSum()
    total.add(one, other)
    wanted = [[plain_hsic(x, y) / np.sqrt(plain_hsic(x, x) * plain_hsic(y, y)) for y in other] for x in one]
    assert total.values() == pytest.approx(np.array(wanted), abs=1e-8)


def test_batches_are_summed_before_they_are_divided() -> None:
    parts = [layers(seed, 50, [6, 8]) for seed in range(4)]
    total = CkaSum()
    for part in parts:
        total.add(part)
    x, y, own = (sum(plain_hsic(part[i], part[j]) for part in parts) for i, j in ((0, 0), (1, 1), (0, 1)))
    assert total.values()[0, 1] == pytest.approx(own / np.sqrt(x * y), abs=1e-8)
    assert total.values().diagonal() == pytest.approx([1, 1])


@pytest.mark.slow
def test_the_clips_give_the_usual_cka_of_all_their_frames() -> None:
    model = ComputedFrames(hub.load(TINY), find_utterances([SPEECH]))
    found = similarity(model)
    read = [model.read(name).states for name in model.utterances]
    states = [np.concatenate(layer) for layer in zip(*read, strict=True)]
    wanted = np.array([[plain_cka(x, y) for y in states] for x in states])
    assert found.values == pytest.approx(wanted, abs=0.02)
    assert found.values == pytest.approx(found.values.T) and found.values[0, -1] < 0.9
    assert found.frames == 10 * 103  # a tenth of a batch from each


def test_unrelated_wide_layers_are_not_alike_for_being_few() -> None:
    draw = np.random.default_rng(0)
    one, other = ({"a": steady([draw.normal(size=(200, 300))], 0.02)} for _ in range(2))
    assert plain_cka(one["a"].states[0], other["a"].states[0]) > 0.5
    assert abs(similarity(Given("one", one), Given("other", other)).values.item()) < 0.05  # type: ignore[arg-type]


def test_other_frame_rates_are_lined_up_by_time() -> None:
    draw = np.random.default_rng(0)
    slow = {name: draw.normal(size=(300, 5)) for name in "ab"}
    # The other model has two frames in the time of one, which say the same.
    one = Given("slow", {name: steady([states], 0.04) for name, states in slow.items()})
    doubled = {name: np.repeat(states, 2, 0) + 1e-3 * draw.normal(size=(600, 5)) for name, states in slow.items()}
    other = Given("fast", {name: steady([states], 0.02) for name, states in doubled.items()})
    for pair in ((one, other), (other, one)):
        found = similarity(*pair)  # type: ignore[arg-type]
        assert found.values.item() > 0.999 and found.frames == 600 and found.names == (pair[0].name, pair[1].name)
    shifted = Given("late", {name: steady([np.roll(states, 1, 0)], 0.04) for name, states in slow.items()})
    assert similarity(one, shifted).values.item() < 0.2  # type: ignore[arg-type]


def test_only_utterances_of_both_count_and_none_is_an_error() -> None:
    made = {name: steady(layers(0, 20, [3]), 0.02) for name in "ab"}
    assert similarity(Given("x", made), Given("y", {"b": made["b"]})).utterances == 1  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="no utterance in common"):
        similarity(Given("x", made), Given("y", {"c": made["b"]}))  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="fewer than 4 frames"):
        similarity(Given("x", {"a": steady(layers(0, 3, [3]), 0.02)}))  # type: ignore[arg-type]


def test_memory_is_that_of_a_batch_whatever_the_corpus() -> None:
    def peak(utterances: int) -> int:
        made = Given("x", dict.fromkeys(map(str, range(utterances)), steady(layers(0, 40, [8, 8]), 0.02)))
        tracemalloc.start()
        similarity(made, batch=64)  # type: ignore[arg-type]
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    assert peak(400) < 1.2 * peak(40)


def test_folders_and_upstreams_give_the_same(tmp_path: Path) -> None:
    extract([SPEECH / "en_1.flac", SPEECH / "it_1.flac"], hub.load(TINY), tmp_path / "stored")
    computed = ComputedFrames(hub.load(TINY), find_utterances([SPEECH / "en_1.flac", SPEECH / "it_1.flac"]))
    stored = StoredFrames(tmp_path / "stored")
    assert similarity(stored).values == pytest.approx(similarity(computed).values, abs=1e-4)
    assert similarity(stored, computed).values.diagonal() == pytest.approx(np.ones(5), abs=1e-4)


@pytest.mark.slow
def test_the_command_draws_and_prints(tmp_path: Path) -> None:
    clips = ["--corpus", SPEECH / "en_1.flac", "--corpus", SPEECH / "it_1.flac"]
    result = call(TINY, "fbank", *clips, "--layers", "last", "-o", tmp_path / "a.png", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["a"] == {"upstream": TINY, "layers": ["block_4"]} and found["b"] == {
        "upstream": "fbank",
        "layers": ["features"],
    }
    assert 0 < found["cka"][0][0] < 1 and found["utterances"] == 2
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    said = call("fbank", *clips, "-o", tmp_path / "b.svg").output
    assert "b.svg: CKA of fbank on" in said and "frames of 2 utterances" in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["fbank"], "Missing option '--out' / '-o', or --json."),
        (["fbank", "--json"], "fbank is no folder of `hubcore extract`. As an upstream it needs audio: --corpus PATH."),
        (["fbank", "-o", "{tmp}/a.gif"], "a.gif has an ending that cannot be drawn"),
        (["fbnk", "--json", "--corpus", "{clip}"], "no upstream is called 'fbnk'"),
        (["fbank", "--json", "--corpus", "{clip}", "--layers", "7"], "there is no layer 7"),
        (["fbank", "--json", "--corpus", "{tmp}/none.wav"], "none.wav does not exist"),
        (["--json"], "Missing argument 'A'"),
    ],
)
def test_what_cannot_be_compared_is_exit_code_2(arguments: Sequence[str], said: str, tmp_path: Path) -> None:
    result = call(*(argument.format(clip=SPEECH / "en_1.flac", tmp=tmp_path) for argument in arguments))
    assert result.exit_code == 2 and said in result.output, result.output
    assert not [*tmp_path.iterdir()]


def test_what_has_no_frames_or_is_too_long_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    extract([SPEECH / "en_1.flac"], hub.load("fbank"), tmp_path / "pooled", pool="mean")
    with pytest.raises(ExtractionError, match="one vector for each utterance"):
        StoredFrames(tmp_path / "pooled")
    soundfile.write(tmp_path / "a.wav", np.zeros(16000), 16000)
    monkeypatch.setattr("hubcore.tools.frames.MOST_SECONDS", 0.5)
    with pytest.raises(AudioError, match=r"a\.wav has 1 s"):
        ComputedFrames(hub.load("fbank"), [Utterance("a", File(str(tmp_path / "a.wav")))]).read("a")
