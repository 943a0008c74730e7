"""The converted copy of a checkpoint: as good as the first load, never used when anything has changed, never in the way."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from hubcore.checkpoints import converted
from hubcore.sources.folders import cache_dir
from hubcore.sources.stamps import file_sha256
from hubcore_ofa_wav2vec2 import OfaWav2Vec2Upstream
from hubcore_wav2vec2 import Wav2Vec2Upstream
from tests.gold import WAV2VEC2_FILES, gold_file, gold_wavs

GROUP_NORM = "fairseq_tiny_w2v2_groupnorm.pt"


@pytest.fixture(autouse=True)
def _copies_of_small_files(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(converted, "_MIN_BYTES", 0)
    yield
    wait()


def wait() -> None:
    for thread in threading.enumerate():
        if thread.name == "hubcore-converted":
            thread.join()


def load(path: Path, **options: object) -> Wav2Vec2Upstream:
    upstream = Wav2Vec2Upstream.from_checkpoint(path, **options)
    wait()
    return upstream


def copies() -> list[Path]:
    return sorted((cache_dir() / "converted").glob("*.safetensors"))


def refuse_the_source(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: object) -> None:
        raise AssertionError(f"{path} was opened")

    monkeypatch.setattr("hubcore.checkpoints.weights.open_checkpoint", refuse)


@pytest.mark.parametrize("name", WAV2VEC2_FILES)
def test_the_second_load_gives_what_the_first_gave(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = Path(shutil.copy(gold_file(name), tmp_path))
    first = load(path)
    assert len(copies()) == 1
    refuse_the_source(monkeypatch)
    second = load(path)
    assert second.config == first.config
    assert {k: v for k, v in vars(second.load_report).items() if k != "sha256"} == {
        k: v for k, v in vars(first.load_report).items() if k != "sha256"
    }
    assert second.load_report.sha256 == file_sha256(path)
    for key, weight in first.state_dict().items():
        assert torch.equal(second.state_dict()[key], weight), key
    assert torch.equal(second([gold_wavs()[0]]).last_hidden_state, first([gold_wavs()[0]]).last_hidden_state)


def test_training_a_mapped_model_changes_no_file(tmp_path: Path) -> None:
    path = Path(shutil.copy(gold_file(GROUP_NORM), tmp_path))
    load(path)
    before = copies()[0].read_bytes()
    model = load(path).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model([gold_wavs()[0]]).last_hidden_state.square().mean().backward()
    optimizer.step()
    with torch.no_grad():
        model.model.feature_norm.weight.zero_()
    assert copies()[0].read_bytes() == before
    assert load(path).model.feature_norm.weight.abs().sum() > 0


def test_a_source_that_changed_is_read_again(tmp_path: Path) -> None:
    path = Path(shutil.copy(gold_file(GROUP_NORM), tmp_path))
    load(path)
    tree = torch.load(path, weights_only=True)
    tree["model"]["layer_norm.weight"].fill_(3.0)
    torch.save(tree, path)
    assert (load(path).model.feature_norm.weight == 3).all()
    assert (load(path).model.feature_norm.weight == 3).all()
    assert len(copies()) == 2


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "json", "other config"])
def test_a_copy_that_changed_is_removed_and_made_again(damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = Path(shutil.copy(gold_file(GROUP_NORM), tmp_path))
    first = load(path)
    copy = copies()[0]
    data = copy.read_bytes()
    about = copy.with_suffix(".json")
    if damage == "json":
        about.write_text("{")
    elif damage == "other config":
        record = json.loads(about.read_text())
        del record["report"]
        about.write_text(json.dumps(record))
    else:
        copy.write_bytes({"flip": data[:-1] + bytes([data[-1] ^ 1]), "cut": data[:-100], "empty": b""}[damage])
    again = load(path)
    assert "is not used and is removed" in caplog.text
    assert all(torch.equal(again.state_dict()[key], weight) for key, weight in first.state_dict().items())
    assert copies()[0].read_bytes() == data


def test_readers_and_options_do_not_share_a_copy(tmp_path: Path) -> None:
    path = Path(shutil.copy(gold_file("ofa_tiny.pt"), tmp_path))
    plain, dropped = load(path), load(path, dropout=0.5)
    ofa = OfaWav2Vec2Upstream.from_checkpoint(path)
    wait()
    assert len(copies()) == 3
    again = OfaWav2Vec2Upstream.from_checkpoint(path)
    assert again.config == ofa.config
    assert load(path).config == plain.config != dropped.config == load(path, dropout=0.5).config


def test_it_can_be_turned_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUBCORE_CONVERTED", "0")
    load(Path(shutil.copy(gold_file(GROUP_NORM), tmp_path)))
    assert copies() == []


def test_a_cache_that_refuses_costs_nothing_but_speed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cache").write_text("a file, not a folder")
    monkeypatch.setenv("HUBCORE_CACHE", str(tmp_path / "cache"))
    path = Path(shutil.copy(gold_file(GROUP_NORM), tmp_path))
    assert load(path).config.dim == 48
    assert load(path).config.dim == 48


def test_a_source_that_changes_while_it_is_copied_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = Path(shutil.copy(gold_file(GROUP_NORM), tmp_path))
    write = converted._write

    def meddle(*arguments: object) -> str:
        digest = write(*arguments)  # type: ignore[arg-type]
        path.write_bytes(path.read_bytes() + b" ")
        return digest

    monkeypatch.setattr(converted, "_write", meddle)
    load(path)
    assert copies() == []
    assert list((cache_dir() / "converted").iterdir()) == []


def test_gc_removes_copies_without_a_source_and_what_a_kill_left(tmp_path: Path) -> None:
    from hubcore.sources.inventory import garbage

    gone, kept = (Path(shutil.copy(gold_file(name), tmp_path)) for name in (GROUP_NORM, "ofa_tiny.pt"))
    for path in (gone, kept):
        load(path)
    (cache_dir() / "converted" / ".abc.part").write_bytes(b"x")
    gone.unlink()
    names = {path.suffix for path in garbage(0) if path.parent.name == "converted"}
    assert names == {".part", ".json", ".safetensors"}
    assert len([path for path in garbage(0) if path.suffix == ".safetensors"]) == 1
