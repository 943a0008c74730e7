"""From a name, a path or a URI to a file. What may go wrong with downloads is in `tests/faults`."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from hubcore.card import Card, Source
from hubcore.errors import CheckpointError, ChecksumError, DownloadError, OfflineError, OptionError, UnknownUpstreamError
from hubcore.hookspecs import Expectation
from hubcore.sources import folders, stamps
from hubcore.sources import resolve as sources
from tests.faults.http_server import BODY, SHA256, Answer
from tests.faults.lab import Lab, a_lab


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Iterator[Lab]:
    with a_lab(tmp_path, monkeypatch, caplog) as made:
        yield made


def test_an_address_is_downloaded_once_and_stamped(lab: Lab) -> None:
    url = lab.server.answers(Answer())
    path = sources.resolve(url)
    assert path.read_bytes() == BODY and stamps.read_stamp(path) == SHA256
    assert sources.resolve(url) == path and len(lab.server.log) == 1


def test_a_cards_promise_reaches_the_fetcher(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    class Hooks:
        def fetch(self, uri: str, cache_dir: Path, offline: bool, expected: Expectation) -> Path | None:
            seen.append((offline, expected))
            return None

    monkeypatch.setattr("hubcore.hooks.current_hooks", Hooks)
    with pytest.raises(DownloadError, match="nothing here can fetch"):
        sources.fetch_source(Source("s3://a/b", SHA256, 5), Card("mine", "wav2vec2", "MIT"))
    promise = Expectation(SHA256, 5, "mine")
    assert seen == [(True, promise), (False, replace(promise, exclusive=True))]


def test_a_plugins_file_is_verified_and_pinned_for_a_card(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"\0first")

    class Hooks:
        def fetch(self, uri: str, cache_dir: Path, offline: bool, expected: Expectation) -> Path | None:
            return file

    monkeypatch.setattr("hubcore.hooks.current_hooks", Hooks)
    wrong = Source("s3://a/b", SHA256)
    with pytest.raises(ChecksumError, match="not the published bytes"):
        lab.fetch(wrong)
    assert lab.fetch(Source("s3://a/b")) == file
    file.write_bytes(b"\0second")
    with pytest.raises(ChecksumError, match="at its first download here"):
        lab.fetch(Source("s3://a/b"))


def test_a_copy_that_is_here_wins_over_an_earlier_source(lab: Lab) -> None:
    first, second = lab.server.answers(Answer(), path="/a"), lab.server.answers(Answer(), path="/b")
    lab.fetch(Source(second))
    assert lab.fetch(Source(first), Source(second)).read_bytes() == BODY
    assert [request.path for request in lab.server.log] == ["/b"]


def test_the_size_of_a_card_is_checked(lab: Lab) -> None:
    url = lab.server.answers(Answer(chunked=True))
    with pytest.raises(DownloadError, match="sent more than 3 bytes"):
        lab.fetch(Source(url, None, 3))
    with pytest.raises(ChecksumError, match=f"has {len(BODY)} bytes, but must have 400000"):
        lab.fetch(Source(url, None, 400_000))
    local = lab.cache.parent / "local.pt"
    local.write_bytes(BODY)
    with pytest.raises(ChecksumError, match=f"{len(BODY)} bytes"):
        sources.fetch_source(Source(str(local), None, 3))


def test_a_card_without_any_file_names_every_cause(lab: Lab) -> None:
    gone = lab.server.answers(Answer(status=404))
    with pytest.raises(DownloadError, match=r"any of its 2 sources(.|\n)*404") as caught:
        lab.fetch(Source(gone), Source("nowhere.pt"))
    assert "nowhere.pt does not exist" in str(caught.value)


def test_a_stamp_holds_until_the_file_changes(lab: Lab, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"one")
    assert stamps.file_sha256(file) == hashlib.sha256(b"one").hexdigest() == stamps.read_stamp(file)
    before = file.stat()
    file.write_bytes(b"two")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert stamps.read_stamp(file) is None
    assert stamps.file_sha256(file) == hashlib.sha256(b"two").hexdigest()
    stamps.stamp_path(file).write_text("[")
    assert stamps.read_stamp(file) is None


@pytest.mark.parametrize("variable", ["HUBCORE_OFFLINE", "HF_HUB_OFFLINE"])
def test_offline_asks_nobody(lab: Lab, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "1")
    with pytest.raises(OfflineError, match="not in the cache"):
        sources.resolve(lab.server.url())
    with pytest.raises(OfflineError, match="hf://s3prl/converted_ckpts"):
        sources.resolve("hf://s3prl/converted_ckpts@main/wav2vec_small.pt")
    assert lab.server.log == []


@pytest.mark.parametrize(
    "uri",
    ["hf://x", "hf://a/b@../c/d", "hf://a/../b", "package://os/../x", "package://hubcore_wav2vec2/none.pt", "package://none/x"],
)
def test_uris_that_make_no_sense(uri: str) -> None:
    with pytest.raises(DownloadError):
        sources.resolve(uri)


def test_a_path_wins_over_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "wav2vec2").write_bytes(b"mine")
    assert sources.resolve("wav2vec2") == Path("wav2vec2")
    with pytest.raises(CheckpointError, match="needs no checkpoint"):
        sources.resolve("fbank")
    with pytest.raises(UnknownUpstreamError, match="no such file either"):
        sources.resolve("wav2vec3")


def test_the_cache_folder_is_read_when_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUBCORE_CACHE", "/somewhere")
    assert folders.cache_dir() == Path("/somewhere")
    monkeypatch.delenv("HUBCORE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")
    assert folders.cache_dir() == Path("/elsewhere/hubcore")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert folders.cache_dir() == Path.home() / ".cache/hubcore"


@pytest.mark.parametrize("name", ["HUBCORE_CACHE", "XDG_CACHE_HOME"])
def test_a_home_that_nobody_has_is_said(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HUBCORE_CACHE", raising=False)
    monkeypatch.setenv(name, "~nobody-of-that-name/x")
    with pytest.raises(OptionError, match="Set HUBCORE_CACHE="):
        folders.cache_dir()
