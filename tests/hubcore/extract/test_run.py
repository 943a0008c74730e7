"""Bulk extraction with a toy upstream: what is written, what fails, and how a run goes on."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from click.testing import CliRunner
from torch import Tensor

import hubcore
from hubcore import Card, UpstreamOutput, hub
from hubcore.audio import load_audio
from hubcore.checkpoints.report import LoadReport
from hubcore.cli import main
from hubcore.corpus import build_manifest, write_built
from hubcore.errors import AudioError, ExtractionError, OptionError, PluginError
from hubcore.extract import ROW_KEYS, Finished, Forecast, NpyWriter, Summary, extract
from hubcore.extract import writers as writers_module
from tests.toys import Energies

DATA = Path(__file__).parents[2] / "data"


class ToyUpstream(Energies):
    """Three layers of width 2: mean and peak of each 10 ms, times 1, 10 and 100."""

    def __init__(self, widths: Sequence[int] = (2, 2, 2), scale: float = 1.0) -> None:
        super().__init__(("one", "ten", "hundred"), widths, stride=160, min_samples=400)
        self.scale = scale
        self.calls: list[tuple[int, tuple[int, ...]]] = []
        self.card = Card(name="toy_card", upstream="toy", license="none needed", note="an untrained toy")

    def forward(self, wavs: Any, lengths: Any = None, *, layers: Any = None) -> UpstreamOutput:
        self.calls.append((len(wavs), self.check_layers(layers)))
        return super().forward(wavs, lengths, layers=layers)

    def energies(self, windows: Tensor) -> Tensor:
        return torch.stack([windows.mean(1), windows.abs().amax(1)], dim=1) * self.scale


def toy(**options: Any) -> ToyUpstream:
    return ToyUpstream(**options).eval()


def with_weight() -> ToyUpstream:
    upstream = toy()
    upstream.weight = torch.nn.Parameter(torch.zeros(1))
    return upstream


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Five readable files of different lengths, one of them in a folder."""
    random = np.random.default_rng(0)
    root = tmp_path / "audio"
    (root / "inner").mkdir(parents=True)
    for name, samples in (("a.wav", 8000), ("b.flac", 12000), ("c.wav", 4000), ("d.wav", 16000), ("inner/e.wav", 500)):
        soundfile.write(root / name, random.uniform(-0.5, 0.5, samples), 16000)
    return root


def manifest_rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]


def failure_rows(folder: Path) -> list[dict[str, Any]]:
    path = folder / "failures.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def expected(path: Path, layers: Sequence[int]) -> np.ndarray:
    with torch.inference_mode():
        output = toy()([load_audio(path)], layers=layers)
    return torch.stack([state[0] for state in output.hidden_states]).numpy()


# What is written ------------------------------------------------------------------------------------------------------


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


# What fails -----------------------------------------------------------------------------------------------------------


def add_bad_files(root: Path) -> set[str]:
    soundfile.write(root / "short.wav", np.zeros(399), 16000)
    soundfile.write(root / "nan.wav", np.full(8000, np.nan), 16000, subtype="FLOAT")
    (root / "empty.wav").touch()
    (root / "text.wav").write_text("not audio")
    whole = (root / "d.wav").read_bytes()
    (root / "cut.wav").write_bytes(whole[: len(whole) // 2])
    whole = (root / "b.flac").read_bytes()
    (root / "cut.flac.flac").write_bytes(whole[:-500])
    return {"short.wav", "nan.wav", "empty.wav", "text.wav", "cut.wav", "cut.flac.flac"}


def test_bad_files_are_listed_and_harm_no_other(corpus: Path, tmp_path: Path) -> None:
    alone = extract([corpus], toy(), tmp_path / "alone")
    bad = add_bad_files(corpus)
    out = tmp_path / "out"
    summary = extract([corpus], toy(), out)
    assert {Path(failure.source).name for failure in summary.failures} == bad
    assert all(str(Path(failure.source)) in failure.error for failure in summary.failures)
    assert failure_rows(out) == [dataclasses.asdict(failure) for failure in summary.failures]
    assert [row["utterance"] for row in summary.rows] == [row["utterance"] for row in alone.rows]
    features = {name: data for name, data in tree(out).items() if name.endswith(".npy")}
    assert features == {name: data for name, data in tree(tmp_path / "alone").items() if name.endswith(".npy")}


class FragileUpstream(ToyUpstream):
    """Fails for any batch that has a loud utterance, as a model that runs out of memory would."""

    def forward(self, wavs: Any, lengths: Any = None, *, layers: Any = None) -> UpstreamOutput:
        self.calls.append((len(wavs), ()))
        if any(float(wav.abs().max()) > 0.9 for wav in wavs):
            raise RuntimeError("out of memory")
        return super().forward(wavs, lengths, layers=layers)


def test_a_batch_that_fails_is_retried_one_by_one(corpus: Path, tmp_path: Path) -> None:
    soundfile.write(corpus / "loud.wav", np.full(6000, 0.95), 16000)
    upstream = FragileUpstream().eval()
    summary = extract([corpus], upstream, tmp_path / "out")
    assert len(summary.rows) == 5
    (failure,) = summary.failures
    assert failure.error == f"{corpus / 'loud.wav'}: RuntimeError: out of memory"
    attempts = [size for size, layers in upstream.calls if layers == ()]
    assert attempts == [6, 1, 1, 1, 1, 1, 1]
    assert not (tmp_path / "out" / "features" / "loud.npy").exists()


def test_an_audio_error_of_the_model_names_the_file(tmp_path: Path) -> None:
    class NoFrames(ToyUpstream):
        def forward(self, wavs: Any, lengths: Any = None, *, layers: Any = None) -> UpstreamOutput:
            output = super().forward(wavs, lengths, layers=layers)
            return dataclasses.replace(output, lengths=torch.zeros_like(output.lengths))

    soundfile.write(tmp_path / "a.wav", np.zeros(800), 16000)
    summary = extract([tmp_path / "a.wav"], NoFrames().eval(), tmp_path / "out")
    assert summary.failures[0].error.startswith(f"{tmp_path / 'a.wav'}: it gives no frame.")


@pytest.mark.parametrize(
    ("scale", "dtype", "said"), [(1e4, "float16", "beyond the 65504 of float16"), (1e38, "float32", "finite")]
)
def test_values_that_cannot_be_stored_fail(corpus: Path, tmp_path: Path, scale: float, dtype: str, said: str) -> None:
    soundfile.write(corpus / "silent.wav", np.zeros(800), 16000)
    summary = extract([corpus], toy(scale=scale), tmp_path / "out", dtype=dtype)
    assert [row["utterance"] for row in summary.rows] == ["silent"]
    assert len(summary.failures) == 5 and all(said in failure.error for failure in summary.failures)


@pytest.mark.parametrize(
    ("options", "kind", "said"),
    [
        ({"layers": "7"}, OptionError, "layer 7"),
        ({"dtype": "int8"}, OptionError, "float32 or float16"),
        ({"batch_seconds": 0}, OptionError, "above 0"),
        ({"batch_seconds": float("nan")}, OptionError, "above 0"),
    ],
)
def test_impossible_options_leave_nothing_behind(
    corpus: Path, tmp_path: Path, options: dict[str, Any], kind: type[Exception], said: str
) -> None:
    with pytest.raises(kind, match=said):
        extract([corpus], toy(), tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_layers_of_different_width_do_not_stack(corpus: Path, tmp_path: Path) -> None:
    upstream = toy(widths=(2, 3, 2))
    with pytest.raises(ExtractionError, match=r"widths 2, 3, 2\..*layers=0,2, then layers=1\."):
        extract([corpus], upstream, tmp_path / "out")
    assert len(extract([corpus], upstream, tmp_path / "out", layers="0,2").rows) == 5


def test_train_mode_is_refused(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(ExtractionError, match=r"train mode.*eval\(\)"):
        extract([corpus], with_weight().train(), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_train_mode_means_nothing_without_parameters(corpus: Path, tmp_path: Path) -> None:
    assert len(extract([corpus], ToyUpstream(), tmp_path / "out").rows) == 5


def test_a_missing_path_stops_before_anything_is_written(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="gone"):
        extract([corpus, tmp_path / "gone"], toy(), tmp_path / "out")
    assert not (tmp_path / "out").exists()


# How it goes on -------------------------------------------------------------------------------------------------------


def test_what_is_done_is_not_done_again(corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = extract([corpus], toy(), out)
    before = tree(out)
    upstream = toy()
    again = extract([corpus], upstream, out)
    assert (len(first.rows), len(again.rows), again.skipped, upstream.calls) == (5, 0, 5, [])
    assert tree(out) == before
    soundfile.write(corpus / "new.wav", np.zeros(800), 16000)
    more = extract([corpus], toy(), out)
    assert ([row["utterance"] for row in more.rows], more.skipped) == (["new"], 5)


def test_a_failure_is_tried_again_and_forgotten_once_mended(corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (corpus / "x.wav").touch()
    assert len(extract([corpus], toy(), out).failures) == 1
    assert len(extract([corpus], toy(), out).failures) == len(failure_rows(out)) == 1
    soundfile.write(corpus / "x.wav", np.zeros(800), 16000)
    summary = extract([corpus], toy(), out)
    assert [row["utterance"] for row in summary.rows] == ["x"] and not summary.failures
    assert not (out / "failures.jsonl").exists()


@pytest.mark.parametrize("damage", ["removed", "truncated", "emptied"])
def test_a_feature_file_that_is_not_whole_is_made_again(corpus: Path, tmp_path: Path, damage: str) -> None:
    out = tmp_path / "out"
    extract([corpus], toy(), out)
    before = tree(out)
    victim = out / "features" / "a.npy"
    if damage == "removed":
        victim.unlink()
    else:
        victim.write_bytes(victim.read_bytes()[: 100 if damage == "truncated" else 0])
    summary = extract([corpus], toy(), out)
    assert ([row["utterance"] for row in summary.rows], summary.skipped) == (["a"], 4)
    assert {name: data for name, data in tree(out).items() if name != "manifest.jsonl"} == {
        name: data for name, data in before.items() if name != "manifest.jsonl"
    }
    names = [row["utterance"] for row in manifest_rows(out)]
    assert sorted(names) == ["a", "b", "c", "d", "inner/e"], "no row twice"


def test_a_torn_last_line_is_no_row(corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    extract([corpus], toy(), out)
    before = tree(out)
    manifest = out / "manifest.jsonl"
    manifest.write_bytes(manifest.read_bytes()[:-7])
    summary = extract([corpus], toy(), out)
    assert [row["utterance"] for row in summary.rows] == ["inner/e"]
    assert tree(out) == before


@pytest.mark.parametrize("line", ["not json", "[]", '{"utterance": "a"}', "null", ""])
def test_a_manifest_that_is_none_is_an_error(corpus: Path, tmp_path: Path, line: str) -> None:
    out = tmp_path / "out"
    extract([corpus], toy(), out)
    manifest = out / "manifest.jsonl"
    manifest.write_text(f"{line}\n" + manifest.read_text())
    before = tree(out)
    with pytest.raises(ExtractionError, match=r"manifest\.jsonl, line 1"):
        extract([corpus], toy(), out)
    assert tree(out) == before


@dataclasses.dataclass(frozen=True)
class ToyConfig:
    power: int = 1


def changed(**attributes: Any) -> ToyUpstream:
    upstream = toy()
    for name, value in attributes.items():
        setattr(upstream, name, value)
    return upstream


OTHERS: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({"layers": "last"}, {}, "layers is 0,1,2 (one array) there and 2 (a single layer) here"),
    ({"layers": "0,1"}, {}, "layers is 0,1,2"),
    ({"layers": [2]}, {}, "2 (one array) here"),
    ({"dtype": "float16"}, {}, "dtype is 'float32' there and 'float16' here"),
    ({}, {"card": Card(name="other", upstream="toy", license="none needed")}, "upstream is 'toy_card' there and 'other' here"),
    ({}, {"load_report": LoadReport(source="x.pt", layout="toy", sha256="ab" * 32)}, "checkpoint_sha256 is None there"),
    ({}, {"config": ToyConfig()}, "config_sha256 is None there"),
    ({}, {"frame_stride": 320}, "frame_stride is 160 there and 320 here"),
    ({}, {"hidden_sizes": (3,) * 3}, "width is 2 there and 3 here"),
    ({}, {"sample_rate": 8000}, "sample_rate is 16000 there and 8000 here"),
]


@pytest.mark.parametrize(("options", "attributes", "said"), OTHERS, ids=[said for _, _, said in OTHERS])
def test_a_folder_made_with_other_settings_is_not_added_to(
    corpus: Path, tmp_path: Path, options: dict[str, Any], attributes: dict[str, Any], said: str
) -> None:
    out = tmp_path / "out"
    extract([corpus], toy(), out)
    before = tree(out)
    with pytest.raises(ExtractionError, match=re.escape(said)):
        extract([corpus], changed(**attributes), out, **options)
    assert tree(out) == before


def test_a_config_is_known_by_its_values(corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (row, *_) = extract([corpus], changed(config=ToyConfig()), out).rows
    assert len(row["config_sha256"]) == 16
    assert extract([corpus], changed(config=ToyConfig()), out).skipped == 5
    for other in (ToyConfig(power=2), None):
        with pytest.raises(ExtractionError, match="config_sha256 is"):
            extract([corpus], changed(config=other), out)
    assert extract([corpus], changed(config=object()), tmp_path / "2").rows[0]["config_sha256"] is None


def hugging_face_folder(folder: Path, weights: bytes, config: str = "{}") -> Path:
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(weights)
    (folder / "config.json").write_text(config)
    (folder / "README.md").write_text(folder.name)
    return folder


def test_two_checkpoint_folders_do_not_mix(corpus: Path, tmp_path: Path) -> None:
    def loaded(folder: Path) -> ToyUpstream:
        upstream = toy()
        upstream.load_report = LoadReport(source=str(folder), layout="Hugging Face")
        return upstream

    out = tmp_path / "out"
    one = hugging_face_folder(tmp_path / "one", b"weights")
    (row, *_) = extract([corpus], loaded(one), out).rows
    assert len(row["checkpoint_sha256"]) == 64
    copy = hugging_face_folder(tmp_path / "copy", b"weights")
    assert extract([corpus], loaded(copy), out).skipped == 5, "the same weights elsewhere"
    for name, weights, config in (("other", b"WEIGHTS", "{}"), ("rescaled", b"weights", '{"a": 1}')):
        with pytest.raises(ExtractionError, match="checkpoint_sha256 is"):
            extract([corpus], loaded(hugging_face_folder(tmp_path / name, weights, config)), out)


@pytest.mark.parametrize("change", ["length", "time"])
def test_a_source_that_was_replaced_is_done_again(corpus: Path, tmp_path: Path, change: str) -> None:
    out = tmp_path / "out"
    source = corpus / "a.wav"
    (before,) = (row for row in extract([corpus], toy(), out).rows if row["utterance"] == "a")
    status = source.stat()
    assert (before["source_bytes"], before["source_mtime_ns"]) == (status.st_size, status.st_mtime_ns)
    soundfile.write(source, np.full(9000 if change == "length" else 8000, 0.25), 16000)
    os.utime(source, ns=(0, status.st_mtime_ns + (change == "time")))
    assert (source.stat().st_size == status.st_size) == (change == "time")
    summary = extract([corpus], toy(), out)
    assert ([row["utterance"] for row in summary.rows], summary.skipped) == (["a"], 4)
    assert float(np.load(out / "features" / "a.npy")[0].max()) == 0.25
    assert len(manifest_rows(out)) == 5
    assert extract([corpus], toy(), out).skipped == 5


def test_a_source_that_is_not_asked_for_may_be_gone(corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    extract([corpus], toy(), out)
    (corpus / "a.wav").unlink()
    assert extract([corpus], toy(), out).skipped == 4
    assert len(manifest_rows(out)) == 5


def test_a_name_that_meant_another_file_is_an_error(corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    extract([corpus], toy(), out)
    soundfile.write(tmp_path / "a.wav", np.zeros(800), 16000)
    with pytest.raises(ExtractionError, match=r"'a' of .* was made from"):
        extract([tmp_path / "a.wav"], toy(), out)


def test_a_corpus_that_was_moved_is_not_done_again(corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    extract([corpus], toy(), out)
    before = tree(out)
    elsewhere = corpus.rename(tmp_path / "elsewhere")
    (elsewhere / "a.wav").unlink()
    summary = extract([elsewhere], toy(), out)
    assert (summary.skipped, summary.rows, summary.failures) == (4, (), ()) and tree(out) == before
    (elsewhere / "a.wav").symlink_to("missing")
    summary = extract([elsewhere], toy(), out)
    assert (summary.skipped, [failure.utterance for failure in summary.failures]) == (4, ["a"])


def test_ctrl_c_leaves_a_state_that_goes_on(corpus: Path, tmp_path: Path) -> None:
    class Interrupted(ToyUpstream):
        def forward(self, wavs: Any, lengths: Any = None, *, layers: Any = None) -> UpstreamOutput:
            if len(self.calls) == 2:
                raise KeyboardInterrupt
            return super().forward(wavs, lengths, layers=layers)

    clean = tmp_path / "clean"
    extract([corpus], toy(), clean, batch_seconds=0.6)
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        extract([corpus], Interrupted().eval(), out, batch_seconds=0.6)
    assert len(manifest_rows(out)) == 2
    assert not (out / ".partial").exists()
    summary = extract([corpus], toy(), out, batch_seconds=0.6)
    assert (len(summary.rows), summary.skipped) == (3, 2)
    assert tree(out) == tree(clean)


SLOW_RUN = """
import sys, time
from pathlib import Path
sys.path[:0] = {path!r}
from tests.hubcore.extract.test_run import toy, extract
import hubcore.extract.writers as writers
save = writers.np.save
def slow(stream, *args, **options):
    stream.write(b"x" * 10); stream.flush(); time.sleep(0.03); stream.seek(0)
    save(stream, *args, **options); stream.flush(); time.sleep(0.03)
writers.np.save = slow
print("ready", flush=True)
extract([Path(sys.argv[1])], toy(), Path(sys.argv[2]), batch_seconds=1.0)
"""


@pytest.mark.slow
def test_kill_9_at_any_moment_then_a_run_gives_what_one_clean_run_gives(tmp_path: Path) -> None:
    root = tmp_path / "audio"
    root.mkdir()
    random = np.random.default_rng(1)
    for index in range(12):
        soundfile.write(root / f"{index:02}.wav", random.uniform(-0.5, 0.5, 3000 + 500 * index), 16000)
    clean, out = tmp_path / "clean", tmp_path / "out"
    extract([root], toy(), clean, batch_seconds=1.0)
    script = tmp_path / "slow.py"
    script.write_text(SLOW_RUN.format(path=[str(Path(__file__).parents[3]), *sys.path]))
    kills = 0
    for delay in (0.0, 0.15, 0.3):
        process = subprocess.Popen(
            [sys.executable, str(script), str(root), str(out)],
            stdout=subprocess.PIPE,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        time.sleep(delay)
        kills += process.poll() is None
        process.kill()
        process.wait()
        process.stdout.close()
        assert process.returncode == -signal.SIGKILL
        for path in out.glob("features/*.npy"):
            assert path.read_bytes() == (clean / path.relative_to(out)).read_bytes(), "never half-written"
        if (out / "manifest.jsonl").exists():
            rows = Finished(out).read()
            assert all((out / row["file"]).is_file() for row in rows.values())
    assert kills == 3
    extract([root], toy(), out, batch_seconds=1.0)
    assert tree(out) == tree(clean)


def test_two_runs_into_one_folder_do_not_mix(corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"

    class Nested(ToyUpstream):
        def forward(self, wavs: Any, lengths: Any = None, *, layers: Any = None) -> UpstreamOutput:
            with pytest.raises(ExtractionError, match="another extraction"):
                extract([corpus], toy(), out)
            return super().forward(wavs, lengths, layers=layers)

    assert len(extract([corpus], Nested().eval(), out).rows) == 5


# When the disk refuses ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("batch_seconds", "kept"), [(0.6, ["d", "b"]), (60.0, ["d", "b", "a"])])
def test_a_full_disk_ends_the_run_and_what_is_written_is_kept(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch_seconds: float, kept: list[str]
) -> None:
    out = tmp_path / "out"
    save, calls = np.save, []

    def full(stream: Any, array: Any, **options: Any) -> None:
        calls.append(1)
        if len(calls) > len(kept):
            stream.write(b"half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        save(stream, array, **options)

    monkeypatch.setattr(writers_module.np, "save", full)
    with pytest.raises(ExtractionError, match=r"No space left on device.*same command again"):
        extract([corpus], toy(), out, batch_seconds=batch_seconds)
    assert [row["utterance"] for row in manifest_rows(out)] == kept and len(list(out.rglob("*.npy"))) == len(kept)
    assert len(calls) == len(kept) + 1, "nothing is tried after that"
    assert not (out / ".partial").exists()
    monkeypatch.undo()
    assert extract([corpus], toy(), out).skipped == len(kept)


def test_an_output_path_that_is_a_file_is_an_extraction_error(corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(ExtractionError, match="out cannot be used"):
        extract([corpus], toy(), tmp_path / "out")
    assert (tmp_path / "out").read_text() == "mine"


def test_a_name_that_cannot_be_written_costs_one_utterance(corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / "features" / "a.npy" / "x").mkdir(parents=True)
    (out / "features" / "inner").write_text("in the way")
    soundfile.write(corpus / f"{'n' * 252}.au", np.zeros(800), 16000, format="AU")
    summary = extract([corpus], toy(), out)
    assert sorted(row["utterance"] for row in summary.rows) == ["b", "c", "d"]
    said = {failure.utterance[:7]: failure.error for failure in summary.failures}
    assert sorted(said) == ["a", "inner/e", "n" * 7]
    assert "a.npy cannot be written: Is a directory" in said["a"]
    assert "cannot be written: Not a directory" in said["inner/e"] or "File exists" in said["inner/e"]
    assert "cannot be written: File name too long" in said["n" * 7]
    assert all(failure.source in failure.error for failure in summary.failures)
    assert not (out / ".partial").exists() and manifest_rows(out) == list(summary.rows)


@pytest.mark.parametrize("place", ["features", ".partial"])
def test_a_folder_that_nothing_can_be_written_to_is_an_extraction_error(corpus: Path, tmp_path: Path, place: str) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / place).write_text("in the way of all")
    with pytest.raises(ExtractionError, match=r"cannot be (written|used)"):
        extract([corpus], toy(), out)


@pytest.mark.parametrize("error", [SystemExit(3), GeneratorExit(), KeyError("x")])
@pytest.mark.parametrize("method", ["__init__", "holds", "write", "close"])
def test_a_writer_that_ends_the_program_fails_its_utterance_or_is_named(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, method: str
) -> None:
    def broken(*_: object) -> None:
        raise error

    out, kind = tmp_path / "out", type(error).__name__
    if method == "holds":
        extract([corpus], toy(), out)
    monkeypatch.setattr(NpyWriter, method, broken)
    if method == "write":
        assert [kind in failure.error for failure in extract([corpus], toy(), out).failures] == [True] * 5
    else:
        with pytest.raises(PluginError, match=rf"NpyWriter.*{method.strip('_').replace('init', 'made')}.*{kind}"):
            extract([corpus], toy(), out)


def test_an_upstream_that_ends_the_program_fails_its_utterance(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ToyUpstream, "forward", lambda *_, **__: sys.exit(3))
    assert ["SystemExit: 3" in failure.error for failure in extract([corpus], toy(), tmp_path / "out").failures] == [True] * 5


def test_a_run_removes_what_a_killed_run_left(corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "out/.partial-0").mkdir(parents=True)
    (tmp_path / "out/.partial-0/1.npy").write_bytes(b"half")
    extract([corpus], toy(), tmp_path / "out")
    assert not list((tmp_path / "out").glob(".partial*"))


def test_a_writer_knows_whole_files(tmp_path: Path) -> None:
    writer = NpyWriter(tmp_path)
    file = writer.write("a", np.zeros((2, 3), np.float32))
    assert writer.holds(file, (2, 3), "float32")
    assert not writer.holds(file, (3, 3), "float32") and not writer.holds("features/b.npy", (2, 3), "float32")


def test_a_summary_of_nothing_divides_by_nothing() -> None:
    assert Summary(Path("x"), (), 0, (), 0.0, {}).speed == 0.0
