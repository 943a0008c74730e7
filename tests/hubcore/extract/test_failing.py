"""What costs an utterance and what ends a run: broken audio, impossible options, a disk that takes no more."""

from __future__ import annotations

import dataclasses
import errno
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from hubcore import UpstreamOutput
from hubcore.errors import AudioError, ExtractionError, OptionError, PluginError
from hubcore.extract import NpyWriter, Summary, extract
from hubcore.extract import writers as writers_module
from tests.hubcore.extract.lab import ToyUpstream, failure_rows, manifest_rows, toy, tree, with_weight


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
