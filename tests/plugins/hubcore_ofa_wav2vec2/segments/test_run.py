"""`segment_corpus`: it goes on where it stopped, by the same rule, and no file costs another."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from hubcore import hub
from hubcore.corpus import Manifest, ManifestEntry, build_manifest
from hubcore.errors import ExtractionError, OptionError
from hubcore_ofa_wav2vec2.segments import alpha_of, open_segments, segment_corpus
from hubcore_ofa_wav2vec2.segments.finders import ClusterFinder, Finder, PeakFinder, Task, draw_sample
from hubcore_ofa_wav2vec2.segments.run import Summary
from tests.paths import SPEECH


@pytest.fixture(scope="module")
def speech() -> Manifest:
    return build_manifest(SPEECH, valid_percent=0).train


def clusters() -> ClusterFinder:
    return ClusterFinder(hub.load("mfcc"), clusters=20)


FINDERS = {"peaks": PeakFinder, "kmeans": clusters}
METHODS = ["peaks", pytest.param("kmeans", marks=pytest.mark.slow)]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("method", FINDERS)
def test_real_speech_is_segmented(tmp_path: Path, speech: Manifest, method: str) -> None:
    summary = segment_corpus([speech], tmp_path, FINDERS[method]())
    assert (summary.written, summary.skipped, summary.failures) == (10, 0, ())
    assert summary.mean_alpha == pytest.approx(2 / 9, rel=0.02)
    assert summary.mean_segment_ms == pytest.approx(90, rel=0.02)
    segments = open_segments(tmp_path)
    assert all(entry.path in segments for entry in speech)
    counts = [(len(each.alpha), len(each.boundaries)) for each in (segments.read(e.path, samples=e.samples) for e in speech)]
    assert (summary.frames, summary.segments) == tuple(map(sum, zip(*counts, strict=True)))
    for entry in speech:
        assert torch.equal(segments[entry.path].alpha, alpha_of(segments[entry.path].boundaries))


def test_pt_files_are_plain_tensors_of_their_own(tmp_path: Path, speech: Manifest) -> None:
    segment_corpus([speech], tmp_path, PeakFinder())
    alpha = torch.load(tmp_path / "alpha/en_1.pt", weights_only=True)
    boundaries = torch.load(tmp_path / "boundaries/en_1.pt", weights_only=True)
    assert alpha.dtype == torch.float32 and boundaries.dtype == torch.int64 and boundaries[-1] == len(alpha)
    assert boundaries.untyped_storage().nbytes() == boundaries.nbytes
    assert sorted(os.listdir(tmp_path)) == ["alpha", "boundaries", "segments.json"]


@pytest.mark.parametrize("method", METHODS)
def test_the_same_again_gives_the_same_bytes(tmp_path: Path, speech: Manifest, method: str) -> None:
    reverse = Manifest(speech.root, speech.entries[::-1])
    segment_corpus([speech], tmp_path / "a", FINDERS[method]())
    segment_corpus([reverse], tmp_path / "b", FINDERS[method]())
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


@pytest.mark.slow
def test_several_processes_find_the_same(tmp_path: Path, speech: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hubcore_ofa_wav2vec2.segments.finders._CHUNK", 4)
    segment_corpus([speech], tmp_path / "a", PeakFinder())
    segment_corpus([speech], tmp_path / "b", PeakFinder(workers=2))
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


class Stops:
    """A finder that is interrupted after some utterances."""

    def __init__(self, inner: Finder, after: int) -> None:
        self._inner, self._after = inner, after

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)

    def find(self, tasks: list[Task]):  # type: ignore[no-untyped-def]
        for number, found in enumerate(self._inner.find(tasks)):
            if number == self._after:
                raise KeyboardInterrupt
            yield found


@pytest.mark.parametrize("method", METHODS)
def test_an_interrupted_run_goes_on(tmp_path: Path, speech: Manifest, method: str) -> None:
    segment_corpus([speech], tmp_path / "whole", FINDERS[method]())
    with pytest.raises(KeyboardInterrupt):
        segment_corpus([speech], tmp_path / "part", Stops(FINDERS[method](), 4))  # type: ignore[arg-type]
    told: list[tuple[int, int, str]] = []
    summary = segment_corpus([speech], tmp_path / "part", FINDERS[method](), report=lambda *done: told.append(done))
    assert (summary.written, summary.skipped) == (6, 4) and told == [(n, 10, "0 failed") for n in range(5, 11)]
    assert summary.mean_alpha == pytest.approx(2 / 9, rel=0.02)
    whole, part = (open_segments(tmp_path / name) for name in ("whole", "part"))
    assert all(torch.equal(whole[entry.path].boundaries, part[entry.path].boundaries) for entry in speech)
    again = segment_corpus([speech], tmp_path / "part", FINDERS[method]())
    assert (again.written, again.skipped) == (0, 10) and again.segments == summary.segments


def test_the_lock_of_another_machine_is_ignored_when_asked_for(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.sin(np.arange(16_000) ** 2 / 1e6), 16_000)
    manifest, out = Manifest(tmp_path, (ManifestEntry("a.wav", 16_000),)), tmp_path / "out"
    out.mkdir()
    holder = {"host": "node7", "pid": 12, "since": "2026-01-02 03:04:05"}
    (out / ".hubcore.lock").write_text(json.dumps(holder))
    with pytest.raises(ExtractionError, match=r"process 12 on node7.*--force-unlock"):
        segment_corpus([manifest], out, PeakFinder())
    assert segment_corpus([manifest], out, PeakFinder(), force_unlock=True).written == 1


def test_a_file_that_a_power_cut_emptied_is_made_again(tmp_path: Path, speech: Manifest) -> None:
    segment_corpus([speech], tmp_path, PeakFinder())
    before = contents(tmp_path)
    (tmp_path / "alpha/en_1.pt").write_bytes(b"")
    (tmp_path / "boundaries/it_2.pt").unlink()
    assert segment_corpus([speech], tmp_path, PeakFinder()).written == 2
    assert contents(tmp_path) == before


def test_another_manifest_is_segmented_by_the_same_rule(tmp_path: Path, speech: Manifest) -> None:
    half = Manifest(speech.root, speech.entries[:5])
    first = segment_corpus([half], tmp_path, PeakFinder())
    second = segment_corpus([speech], tmp_path, PeakFinder())
    assert second.tuning == first.tuning and (second.written, second.skipped) == (5, 5)
    alone = segment_corpus([Manifest(speech.root, speech.entries[5:])], tmp_path / "alone", PeakFinder())
    assert alone.tuning != first.tuning


@pytest.mark.parametrize(
    ("finder", "options", "difference"),
    [
        (PeakFinder(), {"mean_alpha": 0.2}, r"mean_alpha is 0\.222\d* there and 0\.2 here"),
        (PeakFinder(), {"seed": 1}, "seed is 42 there and 1 here"),
        (PeakFinder(0.5), {}, r"threshold is None there and 0\.5 here"),
        (ClusterFinder(hub.load("mfcc"), clusters=20), {}, "method is 'peaks' there and 'kmeans' here"),
    ],
)
def test_one_folder_holds_one_kind(
    tmp_path: Path, speech: Manifest, finder: Finder, options: dict[str, object], difference: str
) -> None:
    segment_corpus([speech], tmp_path, PeakFinder())
    with pytest.raises(ExtractionError, match=difference):
        segment_corpus([speech], tmp_path, finder, **options)  # type: ignore[arg-type]


@pytest.mark.slow
def test_other_weights_or_layers_are_another_kind(tmp_path: Path, speech: Manifest) -> None:
    upstream = hub.load("wav2vec2_tiny_prompts")
    segment_corpus([speech], tmp_path, ClusterFinder(upstream, layer=1, clusters=10))
    with pytest.raises(ExtractionError, match="layer is 1 there and 2 here"):
        segment_corpus([speech], tmp_path, ClusterFinder(upstream, layer=2, clusters=10))
    with pytest.raises(ExtractionError, match="clusters is 10 there and 11 here"):
        segment_corpus([speech], tmp_path, ClusterFinder(upstream, layer=1, clusters=11))


def test_segments_of_another_origin_are_not_added_to(tmp_path: Path, speech: Manifest) -> None:
    (tmp_path / "alpha").mkdir()
    with pytest.raises(ExtractionError, match=r"no segments\.json"):
        segment_corpus([speech], tmp_path, PeakFinder())


@pytest.mark.parametrize("text", ["", "{}", '{"version": 2, "settings": {}, "tuning": {}}', "[]", "nonsense"])
def test_settings_that_cannot_be_read_are_told(tmp_path: Path, speech: Manifest, text: str) -> None:
    (tmp_path / "segments.json").write_text(text)
    with pytest.raises(ExtractionError, match=r"segments\.json does not tell how"):
        segment_corpus([speech], tmp_path, PeakFinder())


def test_a_file_that_cannot_be_used_harms_no_other(tmp_path: Path) -> None:
    root = tmp_path / "audio"
    shutil.copytree(SPEECH, root, ignore=shutil.ignore_patterns("*.py", "*.md", "__pycache__"))
    soundfile.write(root / "phone.wav", np.zeros(8000), 8000)
    soundfile.write(root / "tiny.wav", np.zeros(399), 16000)
    soundfile.write(root / "changed.wav", np.zeros(9000), 16000)
    entries = [
        *build_manifest(root, valid_percent=0, min_seconds=1).train,
        ManifestEntry("changed.wav", 8000),
        ManifestEntry("gone.wav", 8000),
        ManifestEntry("phone.wav", 8000),
        ManifestEntry("tiny.wav", 399),
    ]
    for finder in (PeakFinder(), clusters()):
        summary = segment_corpus([Manifest(root, tuple(entries))], tmp_path / type(finder).__name__, finder)
        told = {failed.path: failed.error for failed in summary.failures}
        assert summary.written == 10 and sorted(told) == ["changed.wav", "gone.wav", "phone.wav", "tiny.wav"]
        assert "9000 samples, but the manifest says 8000" in told["changed.wav"]
        assert "does not exist" in told["gone.wav"] and "8000 Hz" in told["phone.wav"] and "399 samples" in told["tiny.wav"]


def test_names_that_collide_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    manifest = Manifest(SPEECH, (ManifestEntry("a/b.wav", 400), ManifestEntry("a/b.flac", 400)))
    with pytest.raises(ExtractionError, match=r"a/b\.wav and a/b\.flac would both be written to a/b\.pt"):
        segment_corpus([manifest], tmp_path / "out", PeakFinder())
    assert not (tmp_path / "out").exists()


def test_one_path_means_one_file(tmp_path: Path, speech: Manifest) -> None:
    other = Manifest(tmp_path, speech.entries)
    with pytest.raises(ExtractionError, match="A path must mean one file"):
        segment_corpus([speech, other], tmp_path / "out", PeakFinder())
    assert segment_corpus([speech, speech], tmp_path / "out", PeakFinder()).written == 10


def test_the_sample_depends_on_paths_and_seed_only() -> None:
    tasks = [Task(f"{n}.wav", Path(f"{n}.wav"), 16000) for n in range(100)]
    chosen = draw_sample(tasks, 490, 42)
    assert len(chosen) == 10 and draw_sample(tasks[::-1], 490, 42) == chosen
    assert draw_sample(tasks, 980, 42)[:10] == chosen and draw_sample(tasks, 490, 43) != chosen
    assert len(draw_sample(tasks, 1, 42)) == 1


def test_a_threshold_or_penalty_can_be_given(tmp_path: Path, speech: Manifest) -> None:
    few = segment_corpus([speech], tmp_path / "few", PeakFinder(3.0))
    many = segment_corpus([speech], tmp_path / "many", PeakFinder(0.0))
    assert few.mean_alpha < 2 / 9 < many.mean_alpha and few.tuning == {"threshold": 3.0}
    alone = segment_corpus([speech], tmp_path / "one", ClusterFinder(hub.load("mfcc"), clusters=20, penalty=1e6))
    assert alone.segments == 10 and alone.tuning == {"penalty": 1e6}


def test_impossible_options(tmp_path: Path, speech: Manifest) -> None:
    def run(**options: object) -> Summary:
        return segment_corpus([speech], tmp_path / "out", PeakFinder(), **options)  # type: ignore[arg-type]

    for alpha in (0, 1.1, float("nan")):
        with pytest.raises(OptionError, match="mean_alpha"):
            run(mean_alpha=alpha)
    with pytest.raises(ExtractionError, match="lists no file"):
        segment_corpus([Manifest(SPEECH, ())], tmp_path / "out", PeakFinder())
    for finder in (lambda: PeakFinder(-1), lambda: ClusterFinder(hub.load("mfcc"), penalty=-1), lambda: PeakFinder(workers=0)):
        with pytest.raises(OptionError):
            finder()
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_codebook_that_is_another_is_told(tmp_path: Path, speech: Manifest) -> None:
    segment_corpus([speech], tmp_path, clusters())
    shutil.copy(hub.load("wav2vec2_tiny_prompts").load_report.source, tmp_path / "codebook.safetensors")
    with pytest.raises(ExtractionError, match="not the codebook"):
        segment_corpus([speech], tmp_path, clusters())


@pytest.mark.slow
def test_settings_say_how_it_was_made(tmp_path: Path, speech: Manifest) -> None:
    segment_corpus([speech], tmp_path, ClusterFinder(hub.load("wav2vec2_tiny_prompts"), layer=-2, clusters=10, name="tiny"))
    settings = json.loads((tmp_path / "segments.json").read_text())["settings"]
    assert settings["upstream"] == "tiny" and len(settings["checkpoint_sha256"]) == 64
    assert settings["layer"] == len(hub.load("wav2vec2_tiny_prompts").layer_names) - 2
