"""The utterances of a corpus and their names, whatever form it has."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from hubcore.corpus import Source, find_utterances
from hubcore.errors import AudioError


def named(paths: Iterable[Path]) -> dict[str, Source]:
    return {utterance.name: utterance.source for utterance in find_utterances(paths)}


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def test_names_are_paths_below_the_folder_without_the_ending(tmp_path: Path) -> None:
    touch(tmp_path, "a.wav", "x/b.flac", "x.y/c.d.mp3", "TIMIT/SA1.WAV", "TIMIT/SA1.WAV.wav")
    assert list(named([tmp_path])) == ["TIMIT/SA1", "TIMIT/SA1.WAV", "a", "x.y/c.d", "x/b"]
    assert list(named([tmp_path / "x", tmp_path / "x.y" / "c.d.mp3"])) == ["b", "c.d"]


def test_a_file_named_twice_is_one_utterance(tmp_path: Path) -> None:
    touch(tmp_path, "x/a.wav")
    assert list(named([tmp_path, tmp_path / "x", tmp_path / "x" / "a.wav"])) == ["x/a"]


def test_two_names_of_one_file_are_two_utterances(tmp_path: Path) -> None:
    touch(tmp_path, "blobs/00", "snapshot/x/a.wav")
    for name in ("one.wav", "two.wav"):
        (tmp_path / "snapshot" / name).symlink_to("../blobs/00")
    assert list(named([tmp_path / "snapshot"])) == ["one", "two", "x/a"]
    assert list(named([tmp_path / "snapshot" / name for name in ("two.wav", "one.wav")])) == ["two", "one"]
    (tmp_path / "linked").symlink_to("snapshot")
    assert len(named([tmp_path / "snapshot", tmp_path / "linked"])) == 6, "below the name of each folder"


def test_two_files_of_one_name_get_longer_names(tmp_path: Path) -> None:
    touch(tmp_path, "one/a.wav", "one/a.flac", "one/b.wav", "two/b.wav", "two/c.wav", "two/d/a.wav")
    both = named([tmp_path / "one", tmp_path / "two"])
    assert {name: Path(source.given).relative_to(tmp_path).as_posix() for name, source in both.items()} == {
        "a.wav": "one/a.wav",
        "a.flac": "one/a.flac",
        "one/b": "one/b.wav",
        "two/b": "two/b.wav",
        "c": "two/c.wav",
        "d/a": "two/d/a.wav",
    }
    assert named([tmp_path / "two", tmp_path / "one"]) == both, "whatever the order"
    files = [tmp_path / "one" / "b.wav", tmp_path / "two" / "b.wav"]
    assert list(named(files)) == ["one/b", "two/b"]


def test_names_are_as_long_as_it_takes_to_tell_them_apart(tmp_path: Path) -> None:
    touch(tmp_path, "one/x/a.wav", "two/x/a.wav", "two/x/b.wav")
    assert list(named([tmp_path / "one" / "x", tmp_path / "two" / "x"])) == ["one/x/a", "two/x/a", "b"]
    assert list(named([tmp_path])) == ["one/x/a", "two/x/a", "two/x/b"]


def test_a_path_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="nowhere does not exist"):
        named([tmp_path / "nowhere"])
