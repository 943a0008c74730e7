"""Files beside the data (records, lists, manifests, pins) that are pipes, links or damaged, and odd answers of the system."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from hubcore import hub
from hubcore.audio import load_audio
from hubcore.corpus import read_manifest
from hubcore.errors import AudioError, ExtractionError, HubcoreError
from hubcore.extract import extract
from hubcore.pretrain.metrics import RowFile, read_rows
from hubcore.sources.pins import pin_path, read_pin, record_pin
from hubcore.sources.stamps import file_sha256, stamp_path
from tests.running import command


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    folder = tmp_path / "audio"
    folder.mkdir()
    for name in ("a", "b", "c"):
        soundfile.write(folder / f"{name}.wav", np.sin(np.arange(8000) / 9), 16000)
    return folder


def pipe(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def device(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("make", [pipe, device])
def test_a_list_that_is_no_regular_file_is_refused_at_once(make: Callable[[Path], None], corpus: Path, tmp_path: Path) -> None:
    make(tmp_path / "out/manifest.jsonl")
    with pytest.raises(ExtractionError, match="it is not a regular file"):
        extract([corpus], hub.load("fbank"), tmp_path / "out")
    make(tmp_path / "train.tsv")
    with pytest.raises(ExtractionError, match="it is not a regular file"):
        read_manifest(tmp_path / "train.tsv")
    make(tmp_path / "metrics.jsonl")
    with pytest.raises(OSError, match="it is not a regular file"):
        read_rows(tmp_path / "metrics.jsonl")


def test_a_run_does_not_wait_for_the_reader_of_a_pipe(tmp_path: Path) -> None:
    pipe(tmp_path / "metrics.jsonl")
    with pytest.raises(OSError, match="No such device"):
        RowFile(tmp_path / "metrics.jsonl")


@pytest.mark.parametrize("make", [pipe, device])
def test_a_pin_or_a_stamp_that_is_no_regular_file_counts_as_none(
    make: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HUBCORE_CACHE", str(tmp_path / "cache"))
    make(pin_path("https://example.org/a", tmp_path / "cache"))
    assert read_pin("https://example.org/a") is None
    record_pin("https://example.org/a", "0" * 64, 3)
    assert pin_path("https://example.org/a", tmp_path / "cache").is_file()
    file = tmp_path / "file"
    file.write_bytes(b"")
    make(stamp_path(file))
    assert file_sha256(file).startswith("e3b0c442") and not stamp_path(file).is_symlink() and stamp_path(file).is_file()


@pytest.mark.parametrize("shard", ["0/1", "0/2"])
@pytest.mark.parametrize("name", ["features", ".partial", ".parts", ".parts/0-of-2"])
def test_an_extraction_writes_through_no_link(name: str, shard: str, corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/precious").touch()
    (tmp_path / "out" / name).parent.mkdir(parents=True)
    (tmp_path / "out" / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ExtractionError, match=r"is a link, .*link the whole output folder"):
        extract([corpus], hub.load("fbank"), tmp_path / "out", shard=shard)
    assert os.listdir(tmp_path / "elsewhere") == ["precious"]


ODD_ROWS: dict[str, list[Any]] = {
    "file": [3, None, "/etc/passwd", "../a.npy", "features/../../a.npy", ["a"], ""],
    "shape": [3, "ab", None, [1, "2"], [1.5], {"a": 1}, [[1]]],
    "dtype": [3, None, ["float32"]],
    "source": [3, None],
    "source_bytes": ["3", None, True, 1.5],
    "source_mtime_ns": ["3", None],
    "utterance": [3, None, ["a"], {}],
}


def test_a_manifest_row_of_odd_types_is_named(corpus: Path, tmp_path: Path) -> None:
    upstream, out = hub.load("fbank"), tmp_path / "out"
    extract([corpus], upstream, out)
    path = out / "manifest.jsonl"
    first, *others = path.read_text().splitlines()
    for key, values in ODD_ROWS.items():
        for value in values:
            path.write_text("\n".join([json.dumps({**json.loads(first), key: value}), *others, ""]))
            with pytest.raises(ExtractionError, match=r"line 1, is not a row of a manifest"):
                extract([corpus], upstream, out)
    for line in ("[" * 100_000, '{"utterance": NaN}', "3", "null", '{"utterance": "a"}', '{"a": 1, "a": 2}', "1" * 5000):
        path.write_text("\n".join([*others, line, ""]))
        with pytest.raises(ExtractionError, match=r"line 3, is not a row of a manifest"):
            extract([corpus], upstream, out)


@pytest.mark.parametrize("error", [OSError(errno.EIO, "Input/output error"), MemoryError(), RuntimeError("odd")])
def test_a_file_that_cannot_be_read_or_held_costs_that_file_only(
    error: Exception, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = soundfile.SoundFile.read
    opened: list[int] = []

    def broken(self: soundfile.SoundFile, *arguments: Any, **options: Any) -> Any:
        opened.append(1)
        if len(opened) == 1:
            raise error
        return read(self, *arguments, **options)

    monkeypatch.setattr(soundfile.SoundFile, "read", broken)
    summary = extract([corpus], hub.load("fbank"), tmp_path / "out")
    assert len(summary.rows) == 2 and len(summary.failures) == 1
    opened.clear()
    with pytest.raises(AudioError, match=r"a\.wav (is damaged|does not fit into memory)"):
        load_audio(corpus / "a.wav")


def test_a_disk_error_while_a_file_is_opened_costs_that_file_only(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.stat

    def stat(path: Any, *arguments: Any, **options: Any) -> os.stat_result:
        if str(path).endswith("b.wav"):
            raise OSError(errno.EIO, "Input/output error")
        return real(path, *arguments, **options)

    names = sorted(corpus.iterdir())
    monkeypatch.setattr("hubcore.audio.os.stat", stat)
    with pytest.raises(AudioError, match=r"b\.wav cannot be opened: Input/output error"):
        load_audio(names[1])


IMPOSSIBLE = ("~nosuchuser/model.pt", "~nosuchuser", "\0", "a\nb.pt", "\udcff.pt")


@pytest.mark.parametrize("text", [pytest.param("a" * 5000, id="long"), pytest.param("a/" * 3000, id="deep"), *IMPOSSIBLE])
def test_an_impossible_path_of_a_checkpoint_is_an_error_of_ours(text: str) -> None:
    with pytest.raises(HubcoreError):
        hub.load("wav2vec2", checkpoint=text)
    with pytest.raises(HubcoreError):
        hub.load("wav2vec2", checkpoint=Path(text))


def test_an_empty_output_folder_is_refused(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for arguments in (("extract", corpus, "-u", "fbank", "-o", ""), ("manifest", corpus, "--dest", "")):
        before = sorted(tmp_path.iterdir())
        assert command(*arguments).exit_code == 2, arguments
        assert sorted(tmp_path.iterdir()) == before
