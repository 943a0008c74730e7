"""`open_segments`: every layout is read, and what contradicts itself or the audio is told."""

from __future__ import annotations

import multiprocessing
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from hubcore.corpus import read_manifest
from hubcore.errors import CheckpointError, ExtractionError
from hubcore_ofa_wav2vec2.segments import Segments, alpha_of, boundary_seconds, count_frames, open_segments
from hubcore_ofa_wav2vec2.segments.store import SETTINGS, name_of
from tests.paths import GOLD

DATASET = GOLD / "ofa_dataset"


def put(root: Path, name: str, alpha: Tensor | object, boundaries: Tensor | object) -> None:
    for kind, value in {"alpha": alpha, "boundaries": boundaries}.items():
        file = root / kind / f"{name}.pt"
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.save(value, file)


def segments_of(*ends: int) -> tuple[Tensor, Tensor]:
    boundaries = torch.tensor(ends)
    return alpha_of(boundaries), boundaries


@pytest.mark.parametrize("pair", [False, True])
@pytest.mark.parametrize("manifest", ["aligned", "ragged"])
def test_the_originals_dataset_is_read(manifest: str, pair: bool) -> None:
    pseudo = DATASET / "pseudo"
    segments = open_segments((pseudo / "alpha", pseudo / "boundaries") if pair else pseudo)
    entries = read_manifest(DATASET / f"manifest/{manifest}.tsv", root=DATASET / "LibriSpeech").entries
    assert all(entry.path in segments for entry in entries)
    gold = np.load(GOLD / "ofa_losses.npz")["eval_aligned/in/alpha"]
    for row, entry in enumerate(entries):
        segment = segments.read(entry.path, samples=entry.samples)
        assert len(segment.alpha) == count_frames(entry.samples) == segment.boundaries[-1]
        assert torch.equal(segment.alpha, alpha_of(segment.boundaries))
        name = name_of(entry.path)
        for kind, tensor in segment._asdict().items():
            assert torch.equal(torch.load(pseudo / kind / f"{name}.pt", weights_only=True), tensor)
        if manifest == "aligned":
            assert np.array_equal(gold[row], segment.alpha.numpy())


def test_the_grid() -> None:
    assert [count_frames(n) for n in (0, 399, 400, 719, 720, 11237, 30411, 51203)] == [0, 0, 1, 1, 2, 34, 94, 159]
    alpha = alpha_of(torch.tensor([1, 4, 7]))
    assert alpha.dtype == torch.float32 and torch.equal(alpha[1:4], torch.full((3,), np.float32(1 / 3)))
    assert boundary_seconds(torch.tensor([3])).item() == pytest.approx(0.0625)


def test_names_of_files() -> None:
    assert [name_of(path) for path in ("a/b.flac", "v1.0/a.b.flac", "v1.0/b", "a/.b", "a.wav")] == [
        "a/b",
        "v1.0/a.b",
        "v1.0/b",
        "a/.b",
        "a",
    ]


def test_a_dotted_path_is_found_by_its_own_name_and_by_the_originals(tmp_path: Path) -> None:
    put(tmp_path, "v1.0/a.b", *segments_of(2, 5))
    put(tmp_path, "w1", *segments_of(3))
    segments = open_segments(tmp_path)
    assert segments["v1.0/a.b.flac"].boundaries.tolist() == [2, 5]
    assert segments["w1.0/x.flac"].boundaries.tolist() == [3]
    assert "v1.0/z.flac" not in segments and "w1.0/x.flac" in segments
    with pytest.raises(ExtractionError, match=r"v1\.0/z\.flac: .*v1\.0/z\.pt and .*v1\.pt is missing"):
        segments["v1.0/z.flac"]


def test_two_files_that_could_be_meant_are_refused(tmp_path: Path) -> None:
    put(tmp_path, "a.b", *segments_of(2))
    put(tmp_path, "a", *segments_of(3))
    with pytest.raises(ExtractionError, match=r"two files could belong to a\.b\.flac"):
        open_segments(tmp_path)["a.b.flac"]
    assert open_segments(tmp_path)["a.flac"].boundaries.tolist() == [3]
    (tmp_path / SETTINGS).write_text("{}")  # made here, so that only the ending is taken off
    assert open_segments(tmp_path)["a.b.flac"].boundaries.tolist() == [2]
    assert open_segments((tmp_path / "alpha", tmp_path / "boundaries"))["a.b.flac"].boundaries.tolist() == [2]


def test_two_paths_that_lead_to_one_file_are_refused(tmp_path: Path) -> None:
    put(tmp_path, "v1", *segments_of(3))
    segments = open_segments(tmp_path)
    assert segments["v1.0/a.flac"] and segments["v1.0/a.flac"]
    with pytest.raises(ExtractionError, match=r"v1\.0/a\.flac and v1\.0/b\.flac both lead to"):
        segments["v1.0/b.flac"]


def test_alpha_without_boundaries_is_no_segment(tmp_path: Path) -> None:
    put(tmp_path, "a", *segments_of(3))
    (tmp_path / "boundaries/a.pt").unlink()
    segments = open_segments(tmp_path)
    assert "a.wav" not in segments
    with pytest.raises(ExtractionError, match=r"boundaries/a\.pt is missing"):
        segments["a.wav"]


WRONG = [
    (torch.tensor([0.5, 0.5, 1.0]), torch.tensor([2, 2, 3]), "do not rise strictly: 2 follows 2"),
    (torch.tensor([0.5, 0.5, 1.0]), torch.tensor([3, 2, 3]), "2 follows 3"),
    (torch.tensor([0.5, 0.5, 1.0]), torch.tensor([0, 3]), "begin with 0"),
    (torch.tensor([0.5, 0.5, 1.0]), torch.tensor([], dtype=torch.int64), "begin with nothing"),
    (torch.tensor([0.5, 0.5, 1.0]), torch.tensor([2, 4]), "the last boundary is 4, but alpha has 3"),
    (torch.tensor([0.5, 0.5, 1.0]), torch.tensor([1, 2]), "the last boundary is 2, but alpha has 3"),
    (torch.tensor([0.5, 0.5, 0.5]), torch.tensor([2, 3]), r"adds up to 1\.5000, but the boundaries make 2 segments"),
    (torch.tensor([1.5, -0.5, 1.0]), torch.tensor([2, 3]), "negative or not finite"),
    (torch.tensor([0.5, float("nan"), 1.0]), torch.tensor([2, 3]), "negative or not finite"),
    (torch.tensor([0.5, 0.5, 1.0], dtype=torch.float64), torch.tensor([2, 3]), "torch.float64"),
    (torch.tensor([[0.5, 0.5, 1.0]]), torch.tensor([2, 3]), r"shape \(1, 3\)"),
    (torch.tensor([0.5, 0.5, 1.0]), torch.tensor([2.0, 3.0]), "the boundaries are torch.float32"),
]


@pytest.mark.parametrize(("alpha", "boundaries", "problem"), WRONG)
def test_segments_that_contradict_themselves(tmp_path: Path, alpha: Tensor, boundaries: Tensor, problem: str) -> None:
    put(tmp_path, "en/a", alpha, boundaries)
    with pytest.raises(ExtractionError, match=problem) as error:
        open_segments(tmp_path)["en/a.wav"]
    assert "en/a.pt" in str(error.value) and "hubcore segment" in str(error.value)


def test_alphas_of_another_origin_need_not_add_up(tmp_path: Path) -> None:
    put(tmp_path, "a", torch.tensor([0.5, 0.4, 1.0]), torch.tensor([2, 3]))
    assert len(open_segments(tmp_path, strict=False)["a.wav"].alpha) == 3


def test_segments_of_other_audio(tmp_path: Path) -> None:
    put(tmp_path, "a", *segments_of(2, 3))
    segments = open_segments(tmp_path)
    assert len(segments.read("a.wav", samples=1040).alpha) == 3
    with pytest.raises(ExtractionError, match="alpha has 3 frames, but 1360 samples make 4"):
        segments.read("a.wav", samples=1360)


def test_files_that_hold_something_else(tmp_path: Path) -> None:
    put(tmp_path, "a", {"alpha": torch.ones(3)}, torch.tensor([3]))
    with pytest.raises(CheckpointError, match="holds a dict, not a tensor"):
        open_segments(tmp_path)["a.wav"]
    (tmp_path / "alpha/a.pt").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"a\.pt"):
        open_segments(tmp_path)["a.wav"]
    put(tmp_path, "b", Path("a class of its own"), torch.tensor([3]))
    with pytest.raises(CheckpointError, match=r"b\.pt"):
        open_segments(tmp_path)["b.wav"]


@pytest.mark.parametrize("path", ["../a.wav", "/etc/a.wav", "x//a.wav", "", "a\0.wav"])
def test_a_path_that_leads_elsewhere_is_refused(tmp_path: Path, path: str) -> None:
    put(tmp_path / "in", "a", *segments_of(3))
    put(tmp_path, "a", *segments_of(3))
    segments = open_segments(tmp_path / "in")
    assert path not in segments
    with pytest.raises(ExtractionError, match="below the manifest's root"):
        segments[path]


@pytest.mark.slow
def test_they_go_to_other_processes(tmp_path: Path) -> None:
    put(tmp_path, "a", *segments_of(2, 4))
    segments = open_segments(tmp_path)
    assert pickle.loads(pickle.dumps(segments))["a.wav"].boundaries.tolist() == [2, 4]
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(_ends, (segments,)) == [2, 4]


def _ends(segments: Segments) -> list[int]:
    ends: list[int] = segments["a.wav"].boundaries.tolist()
    return ends


def test_what_is_no_folder_of_segments_is_told(tmp_path: Path) -> None:
    with pytest.raises(ExtractionError, match="does not have both alpha/ and boundaries/"):
        open_segments(tmp_path)
    with pytest.raises(ExtractionError, match="not a folder"):
        open_segments(tmp_path / "none")
    with pytest.raises(ExtractionError, match="not a folder"):
        open_segments((tmp_path, tmp_path / "none"))
    with pytest.raises(ExtractionError, match="3 folders are given"):
        open_segments([tmp_path, tmp_path, tmp_path])
    put(tmp_path, "a", *segments_of(3))
    assert "a.wav" in open_segments([tmp_path])
