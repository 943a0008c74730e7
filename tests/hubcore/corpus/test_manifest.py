"""Manifests: what is written is read again, and what is malformed is told by file and line."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hubcore.corpus import Manifest, ManifestEntry, read_manifest, write_manifest
from hubcore.corpus.manifest import manifest_text, why_not_a_name, why_not_below
from hubcore.errors import ExtractionError
from tests.paths import REPOSITORY

GOLD = REPOSITORY / "tests/data/gold/ofa_dataset"


def written(tmp_path: Path, text: str | bytes) -> Path:
    path = tmp_path / "list.tsv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_it_reads_the_originals_manifest() -> None:
    manifest = read_manifest(GOLD / "manifest/ragged.tsv", root=GOLD / "LibriSpeech")
    assert [entry.samples for entry in manifest] == [24011, 20821, 27300]
    assert all(manifest.locate(entry).is_file() for entry in manifest)
    assert read_manifest(GOLD / "manifest/ragged.tsv").root == Path("LibriSpeech")
    assert manifest.seconds() == pytest.approx((24011 + 20821 + 27300) / 16000)


def test_fairseqs_own_way_to_read_finds_the_same(tmp_path: Path) -> None:
    """The steps of fairseq's FileAudioDataset, which the written file must survive."""
    manifest = Manifest(Path("/corpus"), (ManifestEntry("a b/ü.flac", 5), ManifestEntry("z .wav", 7)))
    write_manifest(manifest, tmp_path / "train.tsv")
    with open(tmp_path / "train.tsv", encoding="utf-8") as stream:
        root = stream.readline().strip()
        rows = []
        for line in stream:
            items = line.strip().split("\t")
            assert len(items) == 2
            rows.append((items[0], int(items[1])))
    assert (root, rows) == ("/corpus", [tuple(entry) for entry in manifest])


NAME = st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=12)


@pytest.mark.slow
@settings(deadline=None)
@given(st.dictionaries(st.lists(NAME, min_size=1, max_size=3).map("/".join), st.integers(1, 10**12), max_size=5))
def test_what_is_written_is_read_again(tmp_path_factory: pytest.TempPathFactory, rows: dict[str, int]) -> None:
    path = tmp_path_factory.getbasetemp() / "roundtrip.tsv"
    manifest = Manifest(Path("/corpus"), tuple(ManifestEntry(name, count) for name, count in rows.items()))
    if any(why_not_a_name(name) or why_not_below(name) for name in rows):
        with pytest.raises(ExtractionError, match="Rename"):
            write_manifest(manifest, path)
    else:
        write_manifest(manifest, path)
        assert read_manifest(path) == manifest


def test_lines_may_end_as_on_windows_and_the_last_need_not(tmp_path: Path) -> None:
    manifest = read_manifest(written(tmp_path, "/corpus\r\na.wav\t5\r\nb.wav\t6"))
    assert manifest == Manifest(Path("/corpus"), (ManifestEntry("a.wav", 5), ManifestEntry("b.wav", 6)))


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("", 1, "not the path of a folder"),
        ("\n", 1, "not the path of a folder"),
        ("a.wav\t5\n", 1, "not the path of a folder"),
        ("/r\na.wav\n", 2, "not <path><TAB><samples>"),
        ("/r\na.wav\t5\n\n", 3, "not <path><TAB><samples>"),
        ("/r\na.wav\t5\nb.wav\t-6\n", 3, "not <path><TAB><samples>"),
        ("/r\na.wav\t5.0\n", 2, "not <path><TAB><samples>"),
        ("/r\na.wav\t٣\n", 2, "not <path><TAB><samples>"),
        ("/r\na.wav\t 5\n", 2, "not <path><TAB><samples>"),
        ("/r\na\tb.wav\t5\n", 2, "not <path><TAB><samples>"),
        ("/r\n\t5\n", 2, "not spelt plainly"),
        ("/r\na.wav\t0\n", 2, "0 samples"),
        ("/r\n/etc/a.wav\t5\n", 2, "is absolute"),
        ("/r\nx/../../a.wav\t5\n", 2, "leads out of the root"),
        ("/r\na.wav\t5\nb.wav\t5\na.wav\t5\n", 4, "as line 2 does"),
        (b"/r\na.wav\t5\nb\xe9.wav\t5\n", 3, "not UTF-8"),
    ],
)
def test_what_is_malformed_is_told_by_line(tmp_path: Path, text: str | bytes, line: int, what: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(ExtractionError) as error:
        read_manifest(path)
    assert str(error.value).startswith(f"{path}:{line}: ") and what in str(error.value)


def test_a_manifest_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ExtractionError, match=r"none\.tsv cannot be read.*hubcore manifest"):
        read_manifest(tmp_path / "none.tsv")


def test_a_root_that_cannot_be_told_is_refused() -> None:
    with pytest.raises(ExtractionError, match="line break"):
        manifest_text(Manifest(Path("/two\nlines"), ()))


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "train.tsv"
    target.write_text("before")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ExtractionError, match="No space left"):
        write_manifest(Manifest(Path("/corpus"), (ManifestEntry("a.wav", 5),)), target)
    assert target.read_text() == "before" and os.listdir(tmp_path) == ["train.tsv"]
