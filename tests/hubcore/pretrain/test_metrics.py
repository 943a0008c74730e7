"""Rows, sums over updates, and the watch for collapses."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubcore.pretrain.metrics import MicroBatch, RowFile, Window, read_rows, rounded
from hubcore.pretrain.monitor import Monitor
from hubcore.pretrain.recipe import MonitorSection
from hubcore.pretrain.seeds import derive_seed
from hubcore_wav2vec2.pretrain.objective import FIGURES

batches = st.builds(
    MicroBatch,
    place=st.integers(0, 100),
    total=st.floats(-1e3, 1e3),
    sample_size=st.integers(0, 1000),
    samples=st.integers(0, 1000),
    terms=st.dictionaries(st.sampled_from("abc"), st.floats(-10, 10)),
    figures=st.dictionaries(st.sampled_from("xyz"), st.tuples(st.floats(-10, 10), st.floats(0, 10))),
)


@given(st.lists(batches, max_size=12), st.integers(0, 12))
@pytest.mark.slow
def test_a_window_that_was_saved_in_between_is_the_same(done: list[MicroBatch], at: int) -> None:
    whole, first = Window(), Window()
    for batch in done[:at]:
        first.add([batch])
    second = Window(json.loads(json.dumps(first.state())))
    for batch in done[at:]:
        second.add([batch])
    for batch in done:
        whole.add([batch])
    assert json.dumps(whole.row()) == json.dumps(second.row())


def test_figures_are_means_by_weight_whatever_process_they_come_from() -> None:
    one = MicroBatch(0, 10.0, 10, 0, {"error": 1.0}, {}, {"accuracy": (0.5, 10), "loss": (99.0, 1)})
    two = MicroBatch(1, 0.0, 30, 0, {"error": 2.0}, {}, {"accuracy": (0.1, 30), "rare": (7.0, 0)})
    rows = []
    for order in ([one, two], [two, one]):
        window = Window()
        window.add(order)
        rows.append(window.row())
    assert rows[0] == rows[1] == {"loss": 0.25, "error": 1.75, "accuracy": 0.2, "sample_size": 40}


def test_what_is_no_number_does_not_count() -> None:
    window = Window()
    window.add([MicroBatch(0, math.nan, 1, 0), MicroBatch(1, 2.0, 1, 0)])
    assert window.row()["loss"] == 2.0
    assert rounded(math.inf) is None and rounded(1.23456789) == 1.234568


def test_a_file_on_a_full_disk_can_be_closed(tmp_path: Path) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("this system has no device that is always full")
    file = RowFile(tmp_path / "metrics.jsonl")
    file._file.close()
    file._file = open(full, "ab")  # noqa: SIM115 - closed below
    with pytest.raises(OSError, match="No space left"):
        file.write({"update": 1})
    file.close()


def test_a_file_is_cut_back_to_what_the_checkpoint_knows(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    file = RowFile(path)
    file.write({"update": 1})
    size = file.sync()
    file.write({"update": 2})
    file.close()
    again = RowFile(path, size)
    again.write({"update": 3})
    again.close()
    assert read_rows(path) == [{"update": 1}, {"update": 3}]
    with pytest.raises(OSError, match="fewer than the 1000 bytes"):
        RowFile(path, 1000)
    assert read_rows(path) == [{"update": 1}, {"update": 3}]
    last = RowFile(path)
    with pytest.raises(ValueError, match="not JSON compliant"):
        last.write({"update": math.nan})
    last.close()


LIMITS = MonitorSection(grace_updates=10, patience=3, min_perplexity=5.0, min_accuracy=0.02, max_accuracy=0.99)


def verdict(rows: list[dict[str, float]], limits: MonitorSection = LIMITS) -> tuple[int, str] | None:
    monitor = Monitor(limits, FIGURES)
    for row in rows:
        monitor = Monitor(limits, FIGURES, json.loads(json.dumps(monitor.state())))
        complaint = monitor.judge(row)
        if complaint:
            return int(row["update"]), complaint
    return None


def rows_of(**figures: float) -> list[dict[str, float]]:
    return [{"update": update, **figures} for update in range(1, 30)]


@pytest.mark.parametrize(
    ("figures", "said"),
    [
        ({"code_perplexity": 4.9, "accuracy": 0.5}, "collapsed onto a few codes"),
        ({"code_perplexity": 50.0, "accuracy": 0.019}, "is not being learnt"),
        ({"code_perplexity": 50.0, "accuracy": 1.0}, "has become trivial"),
    ],
)
def test_a_collapse_is_told_after_grace_and_patience(figures: dict[str, float], said: str) -> None:
    found = verdict(rows_of(**figures))
    assert found is not None and found[0] == 13 and said in found[1]


def test_what_is_alive_or_recovers_goes_on() -> None:
    assert verdict(rows_of(code_perplexity=5.1, accuracy=0.3)) is None
    assert verdict(rows_of(loss=1.0)) is None, "an objective without these figures is not judged by them"
    mixed = [{**row, "code_perplexity": 1.0 if row["update"] % 3 else 9.0} for row in rows_of()]
    assert verdict(mixed) is None
    assert verdict(rows_of(code_perplexity=1.0), MonitorSection(patience=0, min_perplexity=5.0)) is None


def test_seeds_are_told_apart_and_fit_every_generator() -> None:
    seeds = {derive_seed(1, "a", update, place) for update in range(200) for place in range(50)}
    assert len(seeds) > 9990 and all(0 <= seed < 2**32 for seed in seeds)
    assert derive_seed(1, "1") != derive_seed("1", 1) != derive_seed(11)
    assert derive_seed(1, "micro-batch", 0, 0) == 1403662531, "other seeds would change every run"
