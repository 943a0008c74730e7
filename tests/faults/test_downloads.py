"""Downloads from a server that misbehaves: what it sends, announces, redirects to. Resuming is in `test_resuming.py`."""

from __future__ import annotations

import gzip
import re
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from hubcore.card import Source
from hubcore.errors import ChecksumError, DownloadError, HubcoreError, OptionError
from hubcore.hookspecs import Expectation
from hubcore.sources import resolve as sources
from hubcore.sources.https import transfer
from hubcore.sources.https.addresses import redirect_target
from hubcore.sources.https.download import download
from hubcore.sources.inventory import remove_target
from hubcore.sources.pages import not_the_file
from hubcore.sources.pins import address_key
from tests.faults.cases import Case, Cases
from tests.faults.http_server import BODY, SHA256, Answer, Server, running
from tests.faults.lab import Lab, a_lab

pytestmark = pytest.mark.slow

cases = Cases()
pytest_generate_tests = cases.generate
SIZE = len(BODY)
THIRD = SIZE // 3
OTHER = BODY[::-1]
KEPT = [f"files/sha256-{SHA256}"]
PAGE = b"<!DOCTYPE html><html><title>Quota exceeded</title></html>"


def test_case(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    with a_lab(tmp_path, monkeypatch, caplog) as lab:
        case.run(lab)


@cases("nothing", "the right bytes, one request, only the file is left")
def case_plain_download(lab: Lab) -> None:
    assert lab.get(lab.server.answers(Answer())) == BODY
    assert lab.server.ranges == [None]
    assert lab.files() == KEPT
    assert lab.server.log[0].headers["accept-encoding"] == "identity"


@cases("503, 503, then 429 that asks to wait 99,999 seconds", "three waits of at most 60 s, then the right bytes")
def case_retry_after_of_a_server(lab: Lab) -> None:
    again = {"Retry-After": "99999"}
    url = lab.server.answers(Answer(status=503), Answer(status=503), Answer(status=429, headers=again), Answer())
    assert lab.get(url) == BODY
    assert len(lab.waits) == 3 and max(lab.waits) == lab.waits[2] == 60.0


@cases("404 with a body", "an error after one request, nothing kept")
def case_not_found(lab: Lab) -> None:
    with pytest.raises(DownloadError, match=r"answered 404.*gone"):
        lab.get(lab.server.answers(Answer(status=404)))
    assert len(lab.server.log) == 1 and lab.files() == []


@cases("403, as for an expired link", "an error after one request that says so")
def case_forbidden(lab: Lab) -> None:
    with pytest.raises(DownloadError, match=r"answered 403.*expired"):
        lab.get(lab.server.answers(Answer(status=403)))
    assert len(lab.server.log) == 1 and lab.files() == []


@cases("500 for ever", "an error after five tries")
def case_broken_server(lab: Lab) -> None:
    with pytest.raises(DownloadError, match="failed 5 times, last because the server answered 500"):
        lab.get(lab.server.answers(Answer(status=500)))
    assert len(lab.server.log) == 5 and len(lab.waits) == 4 and lab.waits == sorted(lab.waits) and lab.files() == []


@cases("wrong bytes of the right length, once", "fetched again from the beginning, right")
def case_wrong_once(lab: Lab) -> None:
    assert lab.get(lab.server.answers(Answer(OTHER), Answer())) == BODY
    assert lab.server.ranges == [None, None] and lab.files() == KEPT
    assert "instead of" in lab.caplog.text


@cases("wrong bytes of the right length, always", "`ChecksumError` after two downloads, nothing kept")
def case_wrong_always(lab: Lab) -> None:
    with pytest.raises(ChecksumError, match=SHA256):
        lab.get(lab.server.answers(Answer(OTHER)))
    assert len(lab.server.log) == 2 and lab.files() == []


@cases("an HTML page with status 200 (Drive, Dropbox)", "an error with a hint for that host, nothing kept")
def case_web_page_instead(lab: Lab) -> None:
    for answer in (Answer(PAGE), Answer(b"nothing that looks like it", headers={"Content-Type": "text/html; charset=utf-8"})):
        with pytest.raises(DownloadError, match="an HTML page, not a checkpoint"):
            lab.get(lab.server.answers(answer), None)
    assert lab.files() == []
    assert "quota" in str(not_the_file("https://drive.google.com/uc?id=1", "an HTML page"))
    assert "dl=1, not dl=0;" in str(not_the_file("https://www.dropbox.com/s/a?dl=0", "an HTML page"))


@cases("an HTML page that says it is binary, and nothing is known of the file", "recognised by its first bytes, refused")
def case_web_page_in_disguise(lab: Lab) -> None:
    for start in (b"", b"\xef\xbb\xbf", b"\n\t "):
        answer = Answer(start + PAGE + bytes(100_000), headers={"Content-Type": "application/octet-stream"})
        with pytest.raises(DownloadError, match="an HTML page"):
            lab.get(lab.server.answers(answer), None)
    assert lab.files() == []


ERROR = '{"error": "Rate limit exceeded", "documentation": "https://example.org/limits"}'
NOT_FILES = {
    "JSON": (ERROR.encode(), "a JSON document"),
    "JSON list": (b'\r\n[{"message": "gone"}]', "a JSON document"),
    "UTF-16 page": (PAGE.decode().encode("utf-16"), "an HTML page"),
    "UTF-16 page, no mark": (PAGE.decode().encode("utf-16-le"), "an HTML page"),
    "UTF-16 JSON": (ERROR.encode("utf-16"), "a JSON document"),
    "XML without a declaration": (b"<Error><Code>AccessDenied</Code></Error>" * 40, "an HTML page or an XML document"),
    "a sentence": ("Zugriff verweigert: bitte später. ".encode() * 100, "plain text"),
    "two words": (b"Not found", "plain text"),
}


@cases(
    "200 with an error as JSON, a page in UTF-16, XML or a sentence, and nothing is known of the file",
    "refused and not pinned, so that the real file is taken later; addresses that end in .json, .yaml or .txt are text",
)
def case_error_with_status_200(lab: Lab) -> None:
    for name, (body, kind) in NOT_FILES.items():
        url = lab.server.answers(
            Answer(body, headers={"Content-Type": "application/octet-stream"}), Answer(), path=f"/{len(lab.server.log)}"
        )
        with pytest.raises(DownloadError, match=f"gave {kind}, not a checkpoint"):
            lab.get(url, None)
        assert lab.files() == [], name
        assert lab.get(url, None) == BODY, name
        (lab.cache / "pins" / f"{address_key(url)}.json").unlink()
        lab.stored.unlink()
    assert lab.get(lab.server.answers(Answer(ERROR.encode()), path="/config.json"), None) == ERROR.encode()
    short = b'{"\0\0\0\0\0\0{"a":' + bytes(100)  # a safetensors header whose length reads like JSON
    assert lab.get(lab.server.answers(Answer(short), path="/a.safetensors"), None) == short


@cases("an address that a plugin fetches gives such an error", "refused and not pinned")
def case_error_from_a_plugin(lab: Lab) -> None:
    file = lab.cache.parent / "file"

    class Hooks:
        def fetch(self, *_: object) -> Path:
            return file

    lab.monkeypatch.setattr("hubcore.hooks.current_hooks", Hooks)
    file.write_text(ERROR)
    with pytest.raises(DownloadError, match="gave a JSON document, not a checkpoint"):
        lab.fetch(Source("s3://bucket/model.pt"))
    file.write_bytes(BODY)
    assert lab.fetch(Source("s3://bucket/model.pt")) == file


@cases("the text of a git-lfs pointer", "refused with a hint, nothing kept")
def case_lfs_pointer(lab: Lab) -> None:
    with pytest.raises(DownloadError, match=r"git-lfs pointer.*download"):
        lab.get(lab.server.answers(Answer(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n")), None)
    assert lab.files() == []


@cases("a `Content-Length` above the card's size", "refused before the body is read")
def case_announced_too_long(lab: Lab) -> None:
    with pytest.raises(DownloadError, match=f"announces {SIZE + 1} bytes, but its card says {SIZE}"):
        lab.get(lab.server.answers(Answer(BODY + b"x")), size=SIZE)
    assert len(lab.server.log) == 1 and lab.files() == []


@cases("a `Content-Length` that is too long, and no size is known", "an error after five tries, the part is kept")
def case_length_lies_long(lab: Lab) -> None:
    with pytest.raises(DownloadError, match=f"failed .* times.* The {SIZE} bytes received are kept"):
        lab.get(lab.server.answers(Answer(length=SIZE + 1000)))
    assert lab.files("files") == [] and lab.parts()[0].read_bytes() == BODY


@cases("a `Content-Length` that is too short", "refused")
def case_length_lies_short(lab: Lab) -> None:
    with pytest.raises(DownloadError, match="announces 1000 bytes, but its card says"):
        lab.get(lab.server.answers(Answer(length=1000)), size=SIZE)
    with pytest.raises(ChecksumError):
        lab.get(lab.server.answers(Answer(length=1000)))
    assert lab.files() == []


@cases("a body without end, and the size is known", "stopped at the first byte too many")
def case_endless_body(lab: Lab) -> None:
    with pytest.raises(DownloadError, match=f"sent more than {SIZE} bytes"):
        lab.get(lab.server.answers(Answer(endless=True)), size=SIZE)
    assert len(lab.server.log) == 1 and lab.files() == []


@cases("a body without end, and nothing is known", "stopped at `HUBCORE_MAX_DOWNLOAD`")
def case_endless_body_of_unknown_size(lab: Lab) -> None:
    lab.monkeypatch.setenv("HUBCORE_MAX_DOWNLOAD", "100000")
    with pytest.raises(DownloadError, match=r"more than 100000 bytes.*HUBCORE_MAX_DOWNLOAD"):
        lab.get(lab.server.answers(Answer(endless=True)), None)
    with pytest.raises(DownloadError, match="At most 100000"):
        lab.get(lab.server.answers(Answer()), None)
    assert len(lab.server.log) == 2 and lab.files() == []
    lab.monkeypatch.setenv("HUBCORE_MAX_DOWNLOAD", "much")
    with pytest.raises(OptionError, match="'much'"):
        lab.get(lab.server.url(), None)


@cases("a chunked body without a length", "the right bytes")
def case_chunked_body(lab: Lab) -> None:
    assert lab.get(lab.server.answers(Answer(chunked=True))) == BODY
    assert lab.get(lab.server.answers(Answer(chunked=True), path="/other"), None) == BODY


@cases("a body without a length that is cut", "noticed by the SHA-256 and fetched again; refused where there is none")
def case_cut_without_length(lab: Lab) -> None:
    assert lab.get(lab.server.answers(Answer(chunked=True, cut=1000), Answer(bare=True, cut=1000), Answer())) == BODY
    assert lab.files() == KEPT
    with pytest.raises(DownloadError, match=r"how long its file is.*SHA-256"):
        lab.get(lab.server.answers(Answer(bare=True, cut=1000), path="/other"), None)
    assert lab.files() == KEPT


@cases("a gzip body that unfolds to 300 MB", "refused, nothing is unpacked")
def case_gzip_body(lab: Lab) -> None:
    bomb = gzip.compress(bytes(3_000_000))
    for sha256 in (SHA256, None):
        with pytest.raises(DownloadError, match="compressed"):
            lab.get(lab.server.answers(Answer(bomb, headers={"Content-Encoding": "gzip"})), sha256)
    assert lab.files() == [] and len(lab.server.log) == 2


@cases("redirects in a circle", "an error after five")
def case_redirect_loop(lab: Lab) -> None:
    with pytest.raises(DownloadError, match="redirects more than 5 times"):
        lab.get(lab.server.answers(Answer(status=302, headers={"Location": "/model.pt"})))
    assert len(lab.server.log) == 6 and lab.files() == []


def refused_redirect(lab: Lab, location: str, message: str) -> None:
    with pytest.raises(DownloadError, match=message):
        lab.get(lab.server.answers(Answer(b"", 302, headers={"Location": location})))
    assert len(lab.server.log) == 1 and lab.files() == []


@cases("a redirect to `file://`", "not followed")
def case_redirect_to_file(lab: Lab) -> None:
    refused_redirect(lab, "file:///etc/passwd", "not a plain https")


@cases("a redirect to `ftp://`", "not followed")
def case_redirect_to_ftp(lab: Lab) -> None:
    refused_redirect(lab, "ftp://127.0.0.1/x", "not a plain https")


@cases("a redirect to plain http, or with a password", "not followed")
def case_redirect_to_http(lab: Lab) -> None:
    refused_redirect(lab, "http://example.org/x", "not encrypted")
    for location, message in (
        ("https://a:b@example.org/", "credentials"),
        ("https://example.org@127.0.0.1/", "credentials"),
        ("https://127.0.0.1\\@example.org/", "credentials"),
        ("https://@example.org/", "not a plain https"),
        ("https://\u2460\u2461\u2466.0.0.1/", "not a plain https"),
        ("https://ex%61mple.org/", "not a plain https"),
        ("https://[", "not followed"),
    ):
        with pytest.raises(DownloadError, match=message):
            redirect_target("https://example.org/a", location)
    assert redirect_target("https://example.org/a/b", "../c") == "https://example.org/c"


THIS_MACHINE = (
    *("127.0.0.1", "127.0.0.2", "127.1", "2130706433", "0x7f000001", "0x7f.1", "017700000001", "0.0.0.0", "0"),
    *("localhost", "localhost.", "LOCALHOST", "a.localhost", "169.254.169.254", "[::1]", "[::]", "[::ffff:127.0.0.1]"),
    *("[::ffff:a9fe:a9fe]", "[::127.0.0.1]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]", "[fe80::1]"),
)
INSIDE = ("10.1.2.3", "192.168.0.1", "172.16.0.1", "100.64.0.1", "[fd00:ec2::254]", "[::ffff:10.1.2.3]", "3232235521")


@cases(
    "a redirect from elsewhere to this machine or into its network, in any spelling: `127.0.0.2`, `0x7f.1`, `2130706433`, "
    "`0.0.0.0`, `localhost.`, `[::ffff:127.0.0.1]`, `169.254.169.254`, `10.1.2.3`",
    "not followed",
)
def case_redirect_inwards(lab: Lab) -> None:
    for host in THIS_MACHINE:
        with pytest.raises(DownloadError, match="redirects to this machine"):
            redirect_target("https://example.org/a", f"https://{host}/x")
        with pytest.raises(DownloadError, match="redirects to this machine"):
            redirect_target("https://10.1.2.3/a", f"https://{host}:8443/x")
    for host in INSIDE:
        with pytest.raises(DownloadError, match="redirects into a private network"):
            redirect_target("https://example.org/a", f"https://{host}/x")
        assert redirect_target("https://192.168.7.7/a", f"https://{host}/x") == f"https://{host}/x"
    for host in ("example.com", "1.1.1.1", "[2606:4700::1111]", "[::ffff:8.8.8.8]", "127.0.0.1.example.org"):
        assert redirect_target("https://example.org/a", f"https://{host}/x") == f"https://{host}/x"


@cases(
    "a signed address",
    "fetched; its query stands in no log, no error, no pin, stamp or partial download",
)
def case_signed_address(lab: Lab) -> None:
    signed = "/model.pt?X-Signature=0123secret&expires=9"
    url = lab.server.answers(Answer(status=503), Answer(cut=THIRD, etag='"v1"'), Answer(), path=signed)
    assert lab.get(url, None) == BODY and lab.server.ranges[2] == f"bytes={THIRD}-"
    assert "trying again" in lab.caplog.text and "nobody has published" in lab.caplog.text
    cut = lab.server.answers(Answer(length=SIZE + 9), path="/cut?sig=0123secret")
    gone = lab.server.answers(Answer(status=403), path="/gone?sig=0123secret")
    for address in (cut, gone, "ftp://me:0123secret@example.org/a", "https://example.org/a?sig=0123secret\x1b"):
        with pytest.raises(DownloadError) as caught:
            lab.get(address, None, offline="\x1b" in address)
        assert "secret" not in str(caught.value) and "\x1b" not in str(caught.value)
    assert len(lab.parts()) == 1
    for path in lab.cache.rglob("*"):
        assert "secret" not in path.name and (path.is_dir() or b"secret" not in path.read_bytes()), path
    assert "secret" not in lab.caplog.text
    lab.stored.write_bytes(OTHER)
    lab.server.answers(Answer(OTHER), path=signed)
    lab.stored.unlink()
    with pytest.raises(ChecksumError, match=r"run `hubcore cache rm '([^']*)'") as error:
        lab.get(url, None)
    advised = re.search("rm '([^']*)'", str(error.value))
    assert advised is not None and len(remove_target(advised[1])) == 1, "the advice works"
    assert lab.get(url, None) == OTHER


@cases("a 307 to another path or host", "followed; no cookie and no password goes with it")
def case_redirect_elsewhere(lab: Lab) -> None:
    lab.monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with running(Server()) as other:
        other.answers(Answer())
        away = {"Location": other.url(), "Set-Cookie": "session=1; Path=/"}
        lab.server.answers(Answer(b"", 307, headers=away), path="/second")
        first = lab.server.answers(Answer(b"", 307, headers={"Location": "/second", "Set-Cookie": "a=b"}))
        assert lab.get(first) == BODY
        requests = [*lab.server.log, *other.log]
    assert [request.path for request in requests] == ["/model.pt", "/second", "/model.pt"]
    assert not any({"authorization", "cookie"} & set(request.headers) for request in requests)


@cases("a card whose SHA-256 is `../../etc/passwd`", "refused, no path is made of it")
def case_sha256_is_a_path(lab: Lab) -> None:
    with pytest.raises(DownloadError, match="not 64 lower-case hex digits"):
        lab.get(lab.server.answers(Answer()), "../../etc/passwd")
    assert lab.server.log == [] and lab.files() == []


ADDRESSES = {
    "file_scheme": ("an address that begins with `file:`", "file:///etc/passwd"),
    "ftp_scheme": ("an address that begins with `ftp:`", "ftp://example.org/x"),
    "http_scheme": ("an address that begins with `http:`", "http://example.org/x"),
    "password_in_an_address": ("an address with a password", "https://user:word@example.org/x"),
    "data_scheme": ("an address that begins with `data:`", "data:text/plain,x"),
    "no_scheme": ("an address without a scheme", "//example.org/x"),
    "empty_address": ("an empty address", ""),
    "windows_network_path": ("a Windows network path", "\\\\host\\share\\x"),
}


def refused(name: str, address: str) -> Callable[[Lab], None]:
    def run(lab: Lab) -> None:
        with pytest.raises(DownloadError):
            download(address, lab.cache, False, Expectation())
        with pytest.raises(HubcoreError):
            sources.resolve(address)
        assert not lab.cache.exists() or lab.files() == []

    run.__name__ = f"case_{name}"
    return run


for _name, (_fault, _address) in ADDRESSES.items():
    cases(_fault, "refused")(refused(_name, _address))


@cases("the first of two mirrors answers 404", "the second one's file; the log says why")
def case_second_mirror(lab: Lab) -> None:
    gone, there = lab.server.answers(Answer(status=404), path="/a"), lab.server.answers(Answer(), path="/b")
    assert lab.fetch(Source(gone, SHA256), Source(there, SHA256)).read_bytes() == BODY
    assert f"was fetched from its source {there}, because {gone} answered 404" in lab.caplog.text
    assert lab.files() == KEPT


@cases("the first of two mirrors gives wrong bytes", "the second one's file; the log names the bad mirror")
def case_bad_mirror(lab: Lab) -> None:
    bad, good = lab.server.answers(Answer(OTHER), path="/a"), lab.server.answers(Answer(), path="/b")
    assert lab.fetch(Source(bad, SHA256), Source(good, SHA256)).read_bytes() == BODY
    assert f"because {bad} has SHA-256" in lab.caplog.text and "not the published bytes" in lab.caplog.text
    assert [request.path for request in lab.server.log] == ["/a", "/a", "/b"] and lab.files() == KEPT


@cases("every mirror fails", "one error that lists every cause")
def case_no_mirror(lab: Lab) -> None:
    urls = [lab.server.answers(answer, path=path) for path, answer in
            {"/a": Answer(status=404), "/b": Answer(OTHER), "/c": Answer(PAGE)}.items()]  # fmt: skip
    with pytest.raises(DownloadError, match="any of its 3 sources") as caught:
        lab.fetch(*(Source(url, SHA256) for url in urls))
    assert all(text in str(caught.value) for text in (*urls, "404", "not the published bytes", "an HTML page"))
    assert lab.files() == []


@cases("a server that sends a byte now and then", "stopped as too slow, the partial download is kept")
def case_slow_loris(lab: Lab) -> None:
    lab.monkeypatch.setattr(transfer, "RATE_WINDOW", 0.1)
    with pytest.raises(DownloadError, match=r"bytes were received in 0 s.*are kept"):
        lab.get(lab.server.answers(Answer(drip=0.01)))
    assert lab.parts() and lab.files("files") == []


@cases("proxies in the environment", "used for other machines; this machine is reached without one", slow=True)
def case_proxies(lab: Lab) -> None:
    with running(Server()) as proxy:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy"):
            lab.monkeypatch.setenv(name, proxy.url(""))
        lab.monkeypatch.setenv("NO_PROXY", "direct.invalid")
        assert lab.get(lab.server.answers(Answer())) == BODY and proxy.log == []
        asked: list[object] = []
        connect = socket.socket.connect

        def spy(self: socket.socket, address: object) -> None:
            asked.append(address)
            connect(self, address)  # type: ignore[arg-type]

        def lookup(host: str, *_: object, **__: object) -> object:
            asked.append(host)
            raise socket.gaierror(f"tests look up no names, but {host} was asked for")

        lab.monkeypatch.setattr(socket.socket, "connect", spy)
        real = socket.getaddrinfo
        lab.monkeypatch.setattr(
            socket, "getaddrinfo", lambda host, *a, **k: real(host, *a, **k) if host == "127.0.0.1" else lookup(host)
        )
        for host, by_proxy in (("weights.invalid", True), ("direct.invalid", False)):
            asked.clear()
            with pytest.raises(DownloadError):
                lab.get(f"https://{host}/x", None)
            assert (host in asked) != by_proxy
            assert (("127.0.0.1", proxy.server_port) in asked) == by_proxy


@cases("addresses with 4 KB of query, other scripts, `%2e%2e%2f` or a slash at the end", "short names, made from a hash")
def case_odd_addresses(lab: Lab) -> None:
    for path in ("/a?" + "q" * 4096, "/%2e%2e%2f%2e%2e%2fetc%2fpasswd", "/a/b/", "/%E6%A8%A1%E5%9E%8B"):
        lab.server.script[path] = [Answer(body=b"\0" + path.encode() * 10)]
        assert lab.get(lab.server.url(path), None) == b"\0" + path.encode() * 10
    lab.server.script["/%E6%A8%A1"] = [Answer()]
    assert lab.get(lab.server.url("/模"), None) == BODY
    names = [path.rpartition("/")[2] for path in lab.files()]
    assert len(names) == 10 and all(len(name) < 100 and name.isascii() for name in names)


# What no case names ---------------------------------------------------------------------------------------------------


def test_progress_tells_what_is_here_and_what_will_be(lab_server: Server, tmp_path: Path) -> None:
    told: list[tuple[int, int | None]] = []
    download(lab_server.answers(Answer()), tmp_path, False, Expectation(), lambda done, total: told.append((done, total)))
    assert told[0] == (0, SIZE) and told[-1] == (SIZE, SIZE) and told == sorted(told)


@pytest.fixture
def lab_server() -> object:
    with running(Server()) as server:
        yield server


def test_an_unpinned_file_is_pinned_and_a_change_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with a_lab(tmp_path, monkeypatch, caplog) as lab:
        url = lab.server.answers(Answer(), Answer(OTHER))
        assert lab.get(url, None) == BODY
        assert "nobody has published a SHA-256" in caplog.text
        assert lab.get(url, None, offline=True) == BODY and len(lab.server.log) == 1
        lab.stored.unlink()
        with pytest.raises(ChecksumError, match=r"gave .* at its first download here(.|\n)*hubcore cache rm") as caught:
            lab.get(url, None)
        assert SHA256 in str(caught.value) and lab.files("files", "parts") == []


def test_mirrors_share_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    with a_lab(tmp_path, monkeypatch, caplog) as lab:
        assert lab.get(lab.server.answers(Answer(), path="/a")) == BODY
        assert lab.get(lab.server.url("/b")) == BODY and len(lab.server.log) == 1
