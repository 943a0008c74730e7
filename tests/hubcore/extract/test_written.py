"""What an extraction writes: arrays, rows, names, the order, the forecast."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from click.testing import CliRunner

import hubcore
from hubcore import UpstreamOutput, hub
from hubcore.audio import load_audio
from hubcore.checkpoints.report import LoadReport
from hubcore.cli import main
from hubcore.corpus import build_manifest, write_built
from hubcore.errors import ExtractionError
from hubcore.extract import ROW_KEYS, Forecast, extract
from hubcore.extract import writers as writers_module
from tests.hubcore.extract.lab import ToyUpstream, expected, manifest_rows, toy, tree

DATA = Path(__file__).parents[2] / "data"


@pytest.mark.parametrize(
    ("layers", "indices", "stacked"),
    [("all", (0, 1, 2), True), ("last", (2,), False), ("1", (1,), False), ("0,2", (0, 2), True), ("2,0", (2, 0), True)],
)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_arrays_hold_what_the_upstream_gives_alone(
    corpus: Path, tmp_path: Path, layers: str, indices: tuple[int, ...], stacked: bool, dtype: str
) -> None:
    out = tmp_path / "out"
    summary = extract([corpus], toy(), out, layers=layers, dtype=dtype, batch_seconds=1.5)
    assert [row["utterance"] for row in summary.rows] == ["a", "b", "c", "d", "inner/e"]
    assert (summary.skipped, summary.failures) == (0, ())
    for path in corpus.rglob("*.*"):
        name = path.relative_to(corpus).with_suffix("").as_posix()
        array = np.load(out / "features" / f"{name}.npy")
        alone = expected(path, indices)
        assert array.dtype == dtype and array.ndim == (3 if stacked else 2)
        np.testing.assert_array_equal(array, (alone if stacked else alone[0]).astype(dtype))


def test_manifest_rows_are_complete_and_true(corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    summary = extract([corpus], toy(), out, layers="0,2", dtype="float16")
    rows = manifest_rows(out)
    assert rows == list(summary.rows)
    assert sorted(row["utterance"] for row in rows) == ["a", "b", "c", "d", "inner/e"]
    for row in rows:
        assert tuple(row) == ROW_KEYS
        info = soundfile.info(row["source"])
        assert row["seconds"] == pytest.approx(info.duration)
        array = np.load(out / row["file"])
        assert (list(array.shape), array.dtype) == (row["shape"], row["dtype"])
        assert row["shape"] == [2, row["frames"], 2] and row["frames"] == info.frames // 160
        assert row["layers"] == [0, 2]
        assert (row["upstream"], row["checkpoint_sha256"], row["hubcore_version"]) == ("toy_card", None, hubcore.__version__)
        assert (row["frame_stride"], row["first_sample"], row["receptive_field"], row["sample_rate"]) == (160, 0, 160, 16000)
    assert sorted(tree(out)) == sorted(["manifest.jsonl", "plan.jsonl", "run.json", *(row["file"] for row in rows)])


@pytest.mark.parametrize("name", ["mel", "fbank", "wav2vec2_tiny_prompts"])
@pytest.mark.slow
def test_a_row_tells_when_its_frames_were(name: str, tmp_path: Path) -> None:
    upstream = hub.load(name)
    for samples in (upstream.min_samples, 8000):
        soundfile.write(tmp_path / f"{samples}.wav", np.sin(np.arange(samples) / 9), 16000)
    for row in extract([tmp_path], upstream, tmp_path / "out", layers="last").rows:
        starts = row["first_sample"] + row["frame_stride"] * torch.arange(row["frames"], dtype=torch.float64)
        times = torch.stack([starts, starts + row["receptive_field"]], 1) / 16000
        torch.testing.assert_close(times, upstream([load_audio(row["source"])]).frame_times()[0])


def test_features_are_on_the_disk_before_their_rows(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    monkeypatch.setattr(writers_module, "sync", lambda _: done.append("features"))
    monkeypatch.setattr("hubcore.extract.finished.sync", lambda _: done.append("rows"))
    count = len(extract([corpus], toy(), tmp_path / "out", batch_seconds=1e-3).rows)
    del done[:4]  # run.json and plan.jsonl, and their names
    assert done[: 2 * count] == ["features", "rows"] * count > []


def test_rows_are_in_the_order_of_the_input_in_a_resumed_run_too(corpus: Path, tmp_path: Path) -> None:
    names = ["a", "b", "c", "d", "inner/e"]
    extract([corpus / "d.wav", corpus / "b.flac"], toy(), tmp_path / "out", batch_seconds=0.1)
    assert [row["utterance"] for row in manifest_rows(tmp_path / "out")] == ["d", "b"]
    assert [row["utterance"] for row in extract([corpus], toy(), tmp_path / "out").rows] == ["a", "c", "inner/e"]
    assert [row["utterance"] for row in manifest_rows(tmp_path / "out")] == names
    extract([corpus], toy(), tmp_path / "once", batch_seconds=0.1)
    assert (tmp_path / "out/manifest.jsonl").read_bytes() == (tmp_path / "once/manifest.jsonl").read_bytes()


def test_a_folder_of_an_earlier_version_is_added_to(corpus: Path, tmp_path: Path) -> None:
    extract([corpus / "a.wav"], toy(), tmp_path / "out")
    (row,) = manifest_rows(tmp_path / "out")
    older = {key: value for key, value in row.items() if key not in ("first_sample", "receptive_field")}
    (tmp_path / "out/manifest.jsonl").write_text(json.dumps(older) + "\n")
    assert extract([corpus], toy(), tmp_path / "out").skipped == 1
    assert [row["first_sample"] for row in manifest_rows(tmp_path / "out")] == [None, 0, 0, 0, 0]


def test_a_list_that_manifest_wrote_is_read(corpus: Path, tmp_path: Path) -> None:
    built = build_manifest(corpus, valid_percent=0.3, seed=2)
    write_built(built, tmp_path / "lists")
    summary = extract([tmp_path / "lists" / "valid.tsv"], toy(), tmp_path / "out")
    assert built.valid is not None and len(built.valid) == 2
    assert [row["utterance"] for row in summary.rows] == [os.path.splitext(entry.path)[0] for entry in built.valid]
    extract([tmp_path / "lists" / "train.tsv"], toy(), tmp_path / "out")
    assert {row["utterance"] for row in manifest_rows(tmp_path / "out")} == {"a", "b", "c", "d", "inner/e"}


def test_a_list_with_a_file_that_is_gone_costs_that_file(corpus: Path, tmp_path: Path) -> None:
    list_file = tmp_path / "list.tsv"
    list_file.write_text(f"{corpus}\nd.wav\t16000\ngone.wav\t16000\na.wav\t8000\n")
    summary = extract([list_file], toy(), tmp_path / "out")
    assert [row["utterance"] for row in summary.rows] == ["d", "a"]
    assert [failure.utterance for failure in summary.failures] == ["gone"]


@pytest.mark.parametrize("text", ["a.wav\t16000\n", "/corpus\n", "/corpus\na.wav 16000\n"])
def test_a_list_that_manifest_did_not_write_says_how_to_make_one(text: str, tmp_path: Path) -> None:
    (tmp_path / "list.tsv").write_text(text)
    with pytest.raises(ExtractionError, match=r"list.tsv.*hubcore manifest"):
        extract([tmp_path / "list.tsv"], toy(), tmp_path / "other")


def test_python_and_the_command_line_take_the_same_default_layers(corpus: Path, tmp_path: Path) -> None:
    upstream = hub.load("wav2vec2_tiny_prompts", layers=[1, -1])
    extract([corpus / "a.wav"], upstream, tmp_path / "out")
    arguments = ["extract", str(corpus), "-u", "wav2vec2_tiny_prompts", "-O", "layers=1,4", "-o", str(tmp_path / "out")]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0 and "4 written" in result.output, result.output
    assert {tuple(row["layers"]) for row in manifest_rows(tmp_path / "out")} == {(1, 4)}


def test_a_class_without_a_card_is_named_by_its_class(corpus: Path, tmp_path: Path) -> None:
    upstream = toy()
    upstream.card = None
    assert {row["upstream"] for row in extract([corpus], upstream, tmp_path / "out").rows} == {"ToyUpstream"}


def test_the_checkpoint_is_recorded_by_its_sha256(corpus: Path, tmp_path: Path) -> None:
    upstream = toy()
    upstream.load_report = LoadReport(source="x.pt", layout="toy", sha256="ab" * 32)
    assert extract([corpus], upstream, tmp_path / "1").rows[0]["checkpoint_sha256"] == "ab" * 32
    weights = tmp_path / "weights.pt"
    weights.write_bytes(b"weights")
    upstream.load_report = LoadReport(source=str(weights), layout="toy")
    assert extract([corpus], upstream, tmp_path / "2").rows[0]["checkpoint_sha256"] == hashlib.sha256(b"weights").hexdigest()


def test_only_the_layers_asked_for_are_computed_in_batches_under_the_cap(corpus: Path, tmp_path: Path) -> None:
    upstream = toy()
    extract([corpus], upstream, tmp_path / "out", layers="1", batch_seconds=1.5)
    assert upstream.calls == [(1, (1,)), (3, (1,)), (1, (1,))]


def test_other_rates_are_resampled(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.sin(np.arange(8000) / 9), 8000)
    (row,) = extract([tmp_path / "a.wav"], toy(), tmp_path / "out").rows
    assert (row["seconds"], row["frames"]) == (1.0, 100)


def test_speech_in_five_languages(tmp_path: Path) -> None:
    summary = extract([DATA / "speech"], toy(), tmp_path, layers="last")
    assert len(summary.rows) == 10 and not summary.failures
    assert summary.audio_seconds == pytest.approx(29.99, abs=0.1)
    assert summary.speed > 1


def test_progress_is_reported_from_nothing_to_everything(
    corpus: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (corpus / "empty.wav").touch()
    seen: list[tuple[float, float, str]] = []
    with caplog.at_level("INFO", "hubcore.extract"):
        summary = extract([corpus], toy(), tmp_path / "out", batch_seconds=1.0, report=lambda *how_far: seen.append(how_far))
    assert seen[0][0] == 0 and seen[0][2] == "0 x real time, 1 of 6 utterances, 1 failed"
    assert seen[-1][0] == seen[-1][1] == pytest.approx(40500 / 16000 / 3600)
    assert seen[-1][2].endswith(" x real time, 6 of 6 utterances, 1 failed")
    assert seen == sorted(set(seen)) and len(seen) == 1 + 3, "once before the first batch, and after each"
    written = sum(path.stat().st_size for path in (tmp_path / "out").rglob("*.npy"))
    (told,) = caplog.messages
    assert told == "6 utterances, 2.5 s, about 6.3 KiB to write" and 0.95 < written / (6.3 * 1024) < 1.05
    assert len(summary.rows) == 5


@pytest.mark.parametrize(("format", "files"), [("npy", 5), ("safetensors", 1)])
def test_a_dry_run_writes_nothing_and_foresees_what_a_run_writes(format: str, files: int, corpus: Path, tmp_path: Path) -> None:
    (corpus / "empty.wav").touch()
    out = tmp_path / "out"
    summary = extract([corpus], toy(), out, format=format, dry_run=True)
    assert summary.forecast and not out.exists() and [failure.utterance for failure in summary.failures] == ["empty"]
    assert (summary.forecast.utterances, summary.forecast.files) == (5, files)
    done = extract([corpus], toy(), out, format=format)
    assert summary.forecast.seconds == pytest.approx(done.audio_seconds)
    assert summary.forecast.bytes == pytest.approx(sum(path.stat().st_size for path in out.glob("*/**/*.*")), rel=0.2)
    assert extract([corpus], toy(), out, dry_run=True).forecast == Forecast(0, 0, 0, 0)


def test_options_of_a_call_are_passed_and_recorded(corpus: Path, tmp_path: Path) -> None:
    class Warm(ToyUpstream):
        def forward(self, wavs: Any, lengths: Any = None, *, layers: Any = None, warmth: float = 1.0) -> UpstreamOutput:
            out = super().forward(wavs, lengths, layers=layers)
            return dataclasses.replace(out, hidden_states=tuple(state * warmth for state in out.hidden_states))

    row, *_ = extract([corpus], Warm().eval(), tmp_path / "out", call_options={"warmth": 2.0}).rows
    assert row["options"] == {"warmth": 2.0}
    plain, *_ = extract([corpus], toy(), tmp_path / "plain").rows
    np.testing.assert_array_equal(np.load(tmp_path / "out" / row["file"]), 2 * np.load(tmp_path / "plain" / plain["file"]))
    with pytest.raises(ExtractionError, match=r"options is \{'warmth': 2.0\} there and \{'warmth': 3.0\} here"):
        extract([corpus], Warm().eval(), tmp_path / "out", call_options={"warmth": 3.0})
