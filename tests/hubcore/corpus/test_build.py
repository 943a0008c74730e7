"""`build_manifest`: the same folder gives the same lists, and no file is lost without a word."""

from __future__ import annotations

import os
import random
from pathlib import Path

import numpy as np
import pytest
import soundfile

from hubcore import audio
from hubcore.corpus import Built, build_manifest, is_valid, read_manifest, write_built
from hubcore.errors import AudioError, ExtractionError, OptionError


def sound(path: Path, samples: int = 800, rate: int = 16000) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(os.fspath(path), np.zeros(samples), rate, format=path.suffix[1:].upper())


def paths(built: Built) -> list[str]:
    return [entry.path for entry in built.train]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    root = tmp_path / "corpus"
    for number, name in enumerate(("b/2.flac", "a/1.wav", "b.wav", "b/1.flac", "A.WAV", "c.d/e.f.wav")):
        sound(root / name, 800 + number)
    (root / "notes.txt").write_text("no audio")
    return root


def test_files_are_listed_by_path_with_their_samples(corpus: Path) -> None:
    built = build_manifest(corpus, valid_percent=0)
    assert [tuple(entry) for entry in built.train] == [
        ("A.WAV", 804),
        ("a/1.wav", 801),
        ("b.wav", 802),
        ("b/1.flac", 803),
        ("b/2.flac", 800),
        ("c.d/e.f.wav", 805),
    ]
    assert built.train.root == corpus and built.valid is None


def test_order_of_the_file_system_and_workers_do_not_matter(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = build_manifest(corpus, valid_percent=0.5, workers=1)
    real = os.walk

    def shuffled(*args: object, **options: object):  # type: ignore[no-untyped-def]
        for root, folders, files in real(*args, **options):  # type: ignore[call-overload]
            random.shuffle(files)
            random.shuffle(folders)
            yield root, folders, files

    monkeypatch.setattr(audio.os, "walk", shuffled)
    for workers in (1, 2, 7, None):
        assert build_manifest(corpus, valid_percent=0.5, workers=workers) == first
    assert len(first.train) + len(first.valid or ()) == 6


def test_the_split_depends_on_seed_and_path_only(corpus: Path) -> None:
    built = build_manifest(corpus, valid_percent=0.5, seed=7)
    assert built.valid is not None and 0 < len(built.valid) < 6
    sound(corpus / "new.wav")
    more = build_manifest(corpus, valid_percent=0.5, seed=7)
    assert more.valid is not None
    assert set(built.train) <= set(more.train) and set(built.valid) <= set(more.valid)
    names = [f"{n}/{n}.flac" for n in range(2000)]
    chosen = {name for name in names if is_valid(name, 0.1, 42)}
    assert 150 < len(chosen) < 250
    assert chosen != {name for name in names if is_valid(name, 0.1, 43)}
    assert chosen < {name for name in names if is_valid(name, 0.2, 42)}
    assert not any(is_valid(name, 0.0, 42) for name in names) and all(is_valid(name, 1.0, 42) for name in names)


def test_what_cannot_be_used_is_told_and_harms_no_other(corpus: Path) -> None:
    (corpus / "empty.wav").touch()
    (corpus / "text.flac").write_text("not audio at all")
    whole = (corpus / "b.wav").read_bytes()
    (corpus / "cut.wav").write_bytes(whole[:-100])
    sound(corpus / "phone.wav", 400, rate=8000)
    (corpus / "loop").symlink_to(corpus)
    (corpus / "broken.wav").symlink_to(corpus / "nowhere.wav")
    built = build_manifest(corpus, valid_percent=0)
    assert len(built.train) == 6
    assert [file.path for file in built.unreadable] == ["broken.wav", "cut.wav", "empty.wav", "text.flac"]
    assert "cut off" in built.unreadable[1].reason
    assert [(file.path, file.reason) for file in built.other_rate] == [("phone.wav", "it has 8000 Hz, not 16000 Hz")]
    assert paths(build_manifest(corpus, valid_percent=0, sample_rate=8000)) == ["phone.wav"]


def test_odd_names(corpus: Path) -> None:
    for name in ("tab\t.wav", "line\nbreak.wav", " space.wav", ".hidden.wav", ".git/a.wav", "..dots.wav", "ü ñ.wav"):
        sound(corpus / name)
    raw = os.fsencode(corpus) + b"/caf\xe9.wav"
    with open(raw, "wb") as stream:
        stream.write((corpus / "b.wav").read_bytes())
    built = build_manifest(corpus, valid_percent=0)
    assert "ü ñ.wav" in paths(built) and len(built.train) == 7
    assert sorted(file.path for file in built.unreadable) == [" space.wav", "caf\udce9.wav", "line\nbreak.wav", "tab\t.wav"]
    told = (write_built(built, corpus.parent / "lists")["unreadable.tsv"]).read_text(encoding="utf-8").splitlines()
    assert len(told) == 4 and all(line.count("\t") == 1 for line in told)
    assert any(line.startswith("line\\nbreak.wav\t") for line in told)


def test_a_file_with_two_names_is_listed_under_both(corpus: Path) -> None:
    (corpus / "z.wav").symlink_to(corpus / "b.wav")
    (corpus / "y").symlink_to(corpus / "b")
    assert sorted(set(paths(build_manifest(corpus, valid_percent=0))))[-3:] == ["y/1.flac", "y/2.flac", "z.wav"]


def test_files_of_other_endings_are_told(corpus: Path, tmp_path: Path) -> None:
    sound(corpus / "x.ogg")
    built = build_manifest(corpus, valid_percent=0, extensions=["wav"])
    assert built.counts()["other_ending"] == 3 and built.counts()["train"] == 4
    assert write_built(built, tmp_path)["other_ending.tsv"].read_text().splitlines() == [
        "b/1.flac\tits ending is flac",
        "b/2.flac\tits ending is flac",
        "x.ogg\tits ending is ogg",
    ]
    write_built(build_manifest(corpus, valid_percent=0, extensions=["wav", "flac", "ogg"]), tmp_path)
    assert not (tmp_path / "other_ending.tsv").exists()


def test_what_is_asked_for_is_left_out_and_counted(corpus: Path) -> None:
    built = build_manifest(corpus, valid_percent=0, min_seconds=801 / 16000, max_seconds=803 / 16000)
    assert [entry.samples for entry in built.train] == [801, 802, 803]
    assert (built.counts()["too_short"], built.counts()["too_long"]) == (1, 2)
    built = build_manifest(corpus, valid_percent=0, path_must_contain="b/")
    assert paths(built) == ["b/1.flac", "b/2.flac"] and built.without_text == 4
    assert paths(build_manifest(corpus, valid_percent=0, extensions=["flac"])) == ["b/1.flac", "b/2.flac"]


def test_lists_are_written_and_read(corpus: Path, tmp_path: Path) -> None:
    built = build_manifest(corpus, valid_percent=0.5, seed=7)
    files = write_built(built, tmp_path / "new/lists")
    assert sorted(files) == ["train.tsv", "valid.tsv"]
    assert read_manifest(files["train.tsv"]) == built.train and read_manifest(files["valid.tsv"]) == built.valid


def test_a_list_of_failures_goes_when_nothing_fails_any_more(corpus: Path, tmp_path: Path) -> None:
    (corpus / "bad.wav").touch()
    lists = tmp_path / "lists"
    assert "unreadable.tsv" in write_built(build_manifest(corpus), lists)
    (corpus / "bad.wav").unlink()
    write_built(build_manifest(corpus), lists)
    assert sorted(os.listdir(lists)) == ["train.tsv", "valid.tsv"]


def test_an_old_list_for_validation_is_not_left_beside_a_new_one(corpus: Path, tmp_path: Path) -> None:
    write_built(build_manifest(corpus), tmp_path)
    before = (tmp_path / "train.tsv").read_bytes()
    with pytest.raises(ExtractionError, match=r"valid\.tsv of an earlier split is there"):
        write_built(build_manifest(corpus, valid_percent=0), tmp_path)
    assert (tmp_path / "train.tsv").read_bytes() == before


def test_progress_is_told(corpus: Path) -> None:
    told: list[tuple[int, int, str]] = []
    build_manifest(corpus, report=lambda *how_far: told.append(how_far))
    assert [how_far[:2] for how_far in told] == [(n, 6) for n in range(1, 7)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"valid_percent": 1.5}, "from 0 to 1"),
        ({"valid_percent": float("nan")}, "from 0 to 1"),
        ({"extensions": ["txt"]}, "'txt'.*Each must be one of"),
        ({"extensions": []}, "none"),
        ({"min_seconds": 3, "max_seconds": 2}, "min_seconds must be from 0 to max_seconds"),
        ({"min_seconds": -1}, "min_seconds must be"),
        ({"workers": 0}, "workers must be at least 1"),
    ],
)
def test_impossible_options(corpus: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        build_manifest(corpus, **options)  # type: ignore[arg-type]


def test_a_folder_without_such_files(corpus: Path) -> None:
    with pytest.raises(AudioError, match="no file ending in mp3"):
        build_manifest(corpus, extensions=["mp3"])
    with pytest.raises(AudioError, match="6 lack that"):
        build_manifest(corpus, path_must_contain="zzz")
    with pytest.raises(AudioError, match="not a folder"):
        build_manifest(corpus / "b.wav")
    with pytest.raises(AudioError, match="not a folder"):
        build_manifest(corpus / "none")
