"""How a run is resumed: what is done, changed, damaged, killed."""

from __future__ import annotations

import dataclasses
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from hubcore import Card, UpstreamOutput
from hubcore.checkpoints.report import LoadReport
from hubcore.errors import ExtractionError
from hubcore.extract import Finished, extract
from tests.hubcore.extract.lab import ToyUpstream, failure_rows, manifest_rows, toy, tree


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
from hubcore.extract import extract
from tests.hubcore.extract.lab import toy
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
