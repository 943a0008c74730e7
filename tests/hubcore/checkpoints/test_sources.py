"""From a name, a path or a URI to a file; downloads from a server on this machine."""

from __future__ import annotations

import hashlib
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from hubcore.card import Card, Source
from hubcore.checkpoints import sources
from hubcore.checkpoints.download import cached_path, download
from hubcore.errors import CheckpointError, ChecksumError, DownloadError, OfflineError, UnknownUpstreamError

BODY = bytes(range(256)) * 40


class Server(http.server.ThreadingHTTPServer):
    """Answers from `answers`: path -> list of (status, headers, body), one for each request, the last one again and again."""

    def __init__(self) -> None:
        self.answers: dict[str, list[tuple[int, dict[str, str], bytes]]] = {}
        self.log: list[str] = []
        super().__init__(("127.0.0.1", 0), Handler)

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}{path}"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.log.append(self.path)
        answers = self.server.answers.get(self.path, [(404, {}, b"")])
        status, headers, body = answers.pop(0) if len(answers) > 1 else answers[0]
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr("hubcore.checkpoints.download.time.sleep", lambda _: None)
    running = Server()
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield running
    running.shutdown()
    running.server_close()
    thread.join()


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_a_download_is_kept_stamped_and_not_repeated(server: Server, tmp_path: Path) -> None:
    server.answers["/model.pt"] = [(200, {}, BODY)]
    path = download(server.url("/model.pt"), tmp_path, offline=False)
    assert path.read_bytes() == BODY
    assert path == cached_path(server.url("/model.pt"), tmp_path)
    assert sources.read_stamp(path) == hashlib.sha256(BODY).hexdigest()
    assert download(server.url("/model.pt"), tmp_path, offline=True) == path
    assert server.log == ["/model.pt"]
    assert files(tmp_path) == [path]


def test_a_cached_file_that_changed_is_fetched_again(server: Server, tmp_path: Path) -> None:
    server.answers["/model.pt"] = [(200, {}, BODY)]
    path = download(server.url("/model.pt"), tmp_path, offline=False)
    path.write_bytes(BODY[:100])
    assert download(server.url("/model.pt"), tmp_path, offline=False).read_bytes() == BODY


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ((404, {}, b"gone"), "answered 404"),
        ((403, {}, b""), "answered 403"),
        ((200, {}, b"<!DOCTYPE html><html>quota</html>"), "an HTML page"),
        ((200, {}, b"\n <html>x"), "an HTML page"),
        ((200, {}, b"version https://git-lfs.github.com/spec/v1\noid"), "a git-lfs pointer"),
        ((200, {}, b""), "empty file"),
        ((200, {"Content-Encoding": "gzip"}, b"x"), "compressed"),
        ((302, {"Location": "ftp://127.0.0.1/x"}, b""), "not a plain https"),
        ((302, {"Location": "file:///etc/passwd"}, b""), "not a plain https"),
        ((302, {"Location": "http://example.org/x"}, b""), "not encrypted"),
        ((302, {"Location": "/model.pt"}, b""), "more than 5 times"),
        ((500, {}, b""), "failed 5 times"),
        ((200, {"Content-Length": "999999"}, BODY), "failed 5 times"),
        ((200, {"Content-Length": str(1 << 60)}, BODY), "more than are free"),
    ],
)
def test_what_is_not_the_file_is_never_kept(
    server: Server, tmp_path: Path, answer: tuple[int, dict[str, str], bytes], message: str
) -> None:
    server.answers["/model.pt"] = [answer]
    with pytest.raises(DownloadError, match=message):
        download(server.url("/model.pt"), tmp_path, offline=False)
    assert files(tmp_path) == []


def test_failures_that_pass_are_tried_again(server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    server.answers["/m"] = [(503, {}, b""), (429, {}, b""), (200, {"Content-Length": "20000"}, BODY[:9]), (200, {}, BODY)]
    assert download(server.url("/m"), tmp_path, offline=False).read_bytes() == BODY
    assert server.log == ["/m"] * 4


def test_redirects_are_followed(server: Server, tmp_path: Path) -> None:
    server.answers["/a"] = [(302, {"Location": "/b"}, b"")]
    server.answers["/b"] = [(200, {}, BODY)]
    assert download(server.url("/a"), tmp_path, offline=False).read_bytes() == BODY


@pytest.mark.parametrize("url", ["http://example.org/x", "https://user:word@example.org/x", "ftp://example.org/x", "https://"])
def test_addresses_that_are_not_acceptable(url: str, tmp_path: Path) -> None:
    with pytest.raises(DownloadError):
        download(url, tmp_path, offline=False)
    assert files(tmp_path) == []


def test_a_checksum_or_size_that_differs_is_refused_and_the_next_source_tried(
    server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server.answers["/wrong"] = [(200, {}, BODY[::-1])]
    server.answers["/right"] = [(200, {}, BODY)]
    digest = hashlib.sha256(BODY).hexdigest()
    right = Source(server.url("/right"), digest, len(BODY))
    with pytest.raises(ChecksumError, match="not the published bytes"):
        sources.fetch_source(Source(server.url("/wrong"), digest))
    with pytest.raises(ChecksumError, match="10240 bytes"):
        sources.fetch_source(Source(server.url("/right"), None, 3))
    card = Card("x", "wav2vec2", "MIT", sources=(Source(server.url("/wrong"), digest), Source(server.url("/gone")), right))
    assert sources.fetch_card(card).read_bytes() == BODY
    assert "not the published bytes" in caplog.text
    with pytest.raises(DownloadError, match=r"any of its 2 sources(.|\n)*404") as caught:
        sources.fetch_card(Card("x", "wav2vec2", "MIT", sources=(Source(server.url("/gone")), Source("nowhere.pt"))))
    assert "nowhere.pt does not exist" in str(caught.value)


@pytest.mark.parametrize("variable", ["HUBCORE_OFFLINE", "HF_HUB_OFFLINE"])
def test_offline_asks_nobody(server: Server, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "1")
    with pytest.raises(OfflineError, match="not in the cache"):
        sources.resolve(server.url("/model.pt"))
    with pytest.raises(OfflineError, match="hf://s3prl/converted_ckpts"):
        sources.resolve("hf://s3prl/converted_ckpts@main/wav2vec_small.pt")
    assert server.log == []


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
    assert sources.cache_dir() == Path("/somewhere")
    monkeypatch.delenv("HUBCORE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")
    assert sources.cache_dir() == Path("/elsewhere/hubcore")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert sources.cache_dir() == Path.home() / ".cache/hubcore"
