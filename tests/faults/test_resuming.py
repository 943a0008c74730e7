"""Downloads that are cut and resumed: stalls, other versions, parts that dead processes left."""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hubcore.errors import DownloadError
from hubcore.hookspecs import Expectation
from hubcore.sources.https import transfer
from hubcore.sources.https.download import download
from hubcore.sources.https.headers import content_range, http_date, is_validator, validator, whole_number
from tests.faults.cases import Case, Cases
from tests.faults.http_server import BODY, SHA256, Answer
from tests.faults.lab import Lab, a_lab

pytestmark = pytest.mark.slow

cases = Cases()
pytest_generate_tests = cases.generate
SIZE = len(BODY)
THIRD = SIZE // 3
OTHER = BODY[::-1]
KEPT = [f"files/sha256-{SHA256}"]
URL_KEY = "url-"


def test_case(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    with a_lab(tmp_path, monkeypatch, caplog) as lab:
        case.run(lab)


@cases("the connection is cut at a third, twice", "two `Range` requests resume it, right bytes")
def case_cut_twice(lab: Lab) -> None:
    assert lab.get(lab.server.answers(Answer(cut=THIRD), Answer(cut=THIRD), Answer())) == BODY
    assert lab.server.ranges == [None, f"bytes={THIRD}-", f"bytes={2 * THIRD}-"]
    assert lab.server.log[1].headers["if-range"] == '"v1"'
    assert lab.server.sent == SIZE and lab.files() == KEPT


@cases("a cut, then the file on the server changes", "`If-Range` makes it start again, nothing is joined wrongly")
def case_changed_meanwhile(lab: Lab) -> None:
    url = lab.server.answers(Answer(OTHER, cut=THIRD, etag='"old"'), Answer())
    assert lab.get(url, None) == BODY
    assert lab.server.ranges == [None, f"bytes={THIRD}-"] and lab.server.log[1].headers["if-range"] == '"old"'


@cases("a server that ignores `Range` and answers 200", "started again, nothing is joined wrongly")
def case_range_ignored(lab: Lab) -> None:
    assert lab.get(lab.server.answers(Answer(cut=THIRD), Answer(ranges=False)), None) == BODY
    assert lab.server.ranges == [None, f"bytes={THIRD}-"]


@cases("nothing comes for longer than the read timeout", "resumed from there")
def case_stalled_download(lab: Lab) -> None:
    lab.monkeypatch.setattr(transfer, "READ_TIMEOUT", 0.2)
    assert lab.get(lab.server.answers(Answer(stall=THIRD), Answer())) == BODY
    assert lab.server.ranges == [None, f"bytes={THIRD}-"]


@cases("a 206 with another range than was asked for", "started again")
def case_wrong_range(lab: Lab) -> None:
    for number, wrong in enumerate(
        (f"bytes 0-{SIZE - 1}/{SIZE}", f"bytes {THIRD}-{SIZE - 1}/{SIZE + 1}", "bytes */*", "x", "")
    ):
        path = f"/{number}"
        url = lab.server.answers(Answer(cut=THIRD), Answer(content_range=wrong or " "), Answer(), path=path)
        assert lab.get(url, None) == BODY
        ranges = [request.range for request in lab.server.log if request.path == path]
        assert ranges == [None, f"bytes={THIRD}-", None], wrong


@cases("a part that a dead process left", "resumed from its length")
def case_part_of_a_dead_process(lab: Lab) -> None:
    url = lab.server.answers(Answer())
    lab.leave_part(url, BODY[:THIRD])
    assert lab.get(url) == BODY
    assert lab.server.ranges == [f"bytes={THIRD}-"] and lab.files() == KEPT


@cases("a part without its sidecar", "started again")
def case_no_sidecar(lab: Lab) -> None:
    url = lab.server.answers(Answer())
    lab.leave_part(url, BODY[:THIRD], sidecar="")
    assert lab.get(url) == BODY and lab.server.ranges == [None] and lab.files() == KEPT


@cases("a part of another address", "started again")
def case_other_address(lab: Lab) -> None:
    url = lab.server.answers(Answer())
    lab.leave_part(url, OTHER[:THIRD], of="https://example.org/other")
    assert lab.get(url) == BODY and lab.server.ranges == [None] and lab.files() == KEPT


@cases("a flipped bit inside a part", "noticed by the SHA-256, fetched again from the beginning")
def case_flipped_bit_in_a_part(lab: Lab) -> None:
    url = lab.server.answers(Answer())
    lab.leave_part(url, bytes([BODY[0] ^ 1]) + BODY[1:THIRD])
    assert lab.get(url) == BODY
    assert lab.server.ranges == [f"bytes={THIRD}-", None] and lab.files() == KEPT


@cases("a part that is complete (a crash before the rename)", "checked and kept, no request")
def case_complete_part(lab: Lab) -> None:
    url = lab.server.answers(Answer())
    lab.leave_part(url, BODY)
    assert lab.get(url) == BODY and lab.server.log == [] and lab.files() == KEPT


@cases("a part that is longer than the file", "the server's 416 makes it start again")
def case_part_too_long(lab: Lab) -> None:
    url = lab.server.answers(Answer())
    lab.leave_part(url, BODY + b"more", total=None)
    assert lab.get(url) == BODY
    assert lab.server.ranges == [f"bytes={SIZE + 4}-", None] and lab.files() == KEPT


@cases("a part whose sidecar is garbage", "started again")
def case_garbage_sidecar(lab: Lab) -> None:
    for garbage in ("{", "[]", '{"url": 3, "validator": 4, "total": "x"}', "\0"):
        url = lab.server.answers(Answer())
        lab.leave_part(url, BODY[:THIRD], sidecar=garbage)
        assert lab.get(url) == BODY and lab.server.ranges == [None] and lab.files() == KEPT
        lab.stored.unlink()
        lab.server.log.clear()


@cases("a weak ETag", "started again, not joined")
def case_weak_etag(lab: Lab) -> None:
    assert lab.get(lab.server.answers(Answer(cut=THIRD, etag='W/"v1"'), Answer(etag='W/"v1"')), None) == BODY
    assert lab.server.ranges == [None, None]


ODD_HEADERS = {
    "ETag": '"é"',
    "Last-Modified": "Sun, 06 Nov 1994 08:49:37 +99999999999",
    "Date": "Sun, 99 Nov 1994 08:49:37 GMT",
    "Retry-After": "²",
    "Content-Range": "bytes ²-3/4",
    "Content-Type": "é; charset=²",
    "Set-Cookie": "a=b; Path=é; expires=²",
}


@cases(
    "headers that are no such thing: an ETag with a byte above 0x7F, `Retry-After: ²`, dates and ranges out of bounds",
    "such a header is ignored: the download is resumed after a cut, or starts again",
)
def case_odd_headers(lab: Lab) -> None:
    for name, value in ODD_HEADERS.items():
        odd, etag = {name: value}, None if name in ("ETag", "Last-Modified") else '"v1"'
        last = Answer(headers={} if name == "Content-Range" else odd, etag=etag)
        answers = (Answer(status=503, headers=odd), Answer(cut=THIRD, headers=odd, etag=etag), last)
        assert lab.get(lab.server.answers(*answers, path=f"/{name}"), None) == BODY, name
        assert lab.server.ranges[-1] == (f"bytes={THIRD}-" if etag else None), name
        lab.stored.unlink()
    assert 0 < max(lab.waits) <= 60.0
    with pytest.raises(DownloadError, match="which is not followed"):
        lab.get(lab.server.answers(Answer(b"", 302, headers={"Location": "https://[é"}), path="/away"))


def test_a_header_is_a_value_of_its_kind_or_nothing() -> None:
    odd = (None, "", " ", "²", "٣", "-1", "+5", "1e3", "0x10", "1_000", "9" * 4400, "é", '"v1', "\x7f", "1\n", "Ⅷ", "0.5")
    assert [whole_number(text) for text in (*odd, "0", " 17\t")] == [None] * len(odd) + [0, 17]
    for text in (*odd, "bytes 5-1/9", "bytes 0-9/9", "bytes ²-3/4", "bytes 0-3/٣", "bytes 0-3", "items 0-3/4", "bytes 0-3/4\n"):
        assert content_range(text) is None, text
    date = "Sun, 06 Nov 1994 08:49:37 GMT"
    changes = (
        ("GMT", "+99999999999"),
        ("06", "99"),
        ("1994", "0000"),
        ("37", "60"),
        ("06", "²6"),
        ("Sun", "Sunday"),
        ("Nov", "nov"),
    )
    for text in (*odd, *(date.replace(*change) for change in changes)):
        assert http_date(text) is None, text
    for text in (*odd, '"é"', '"a"b"', 'W/"a"', '"a"\r\n', '"' + "a" * 2000 + '"', '"\0"'):
        assert validator(text, None, None) is None and not is_validator(text), text


@cases("a partial download whose record names such an ETag", "started again")
def case_odd_validator_of_a_part(lab: Lab) -> None:
    url = lab.server.answers(Answer())
    for odd in ('"é"', "v1", 3, '"a\r\nX-Forged: 1"'):
        lab.leave_part(url, BODY[:THIRD], sidecar=json.dumps({"url": url, "validator": odd, "total": SIZE}))
        assert lab.get(url) == BODY and lab.server.ranges == [None] and lab.files() == KEPT
        lab.stored.unlink()
        lab.server.log.clear()


@cases("no ETag, or a date that is too recent to distinguish two versions", "started again; an older date is enough")
def case_no_etag(lab: Lab) -> None:
    assert lab.get(lab.server.answers(Answer(cut=THIRD, etag=None), Answer(etag=None), path="/a"), None) == BODY
    young = {"Last-Modified": time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime())}
    assert lab.get(lab.server.answers(Answer(cut=THIRD, etag=None, headers=young), Answer(), path="/b"), None) == BODY
    assert lab.server.ranges == [None] * 4
    old = {"Last-Modified": "Mon, 01 Jan 2024 00:00:00 GMT"}
    url = lab.server.answers(Answer(cut=THIRD, etag=None, headers=old), Answer(etag=None, headers=old), path="/c")
    assert lab.get(url, None) == BODY and lab.server.ranges[-1] == f"bytes={THIRD}-"


@cases("the disk is full", "an error that says so, the partial download is kept and resumed once there is room")
def case_disk_full(lab: Lab) -> None:
    url = lab.server.answers(Answer())
    with file_size_limit(THIRD), pytest.raises(DownloadError, match=r"does not fit.*Free some space"):
        lab.get(url)
    assert [path.stat().st_size for path in lab.parts()] == [THIRD] and lab.files("files") == []
    assert lab.get(url) == BODY and lab.server.ranges == [None, f"bytes={THIRD}-"]

    def full(descriptor: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    other = lab.server.answers(Answer(), path="/other")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(DownloadError, match="Free some space"):
        patch.setattr("hubcore.sources.https.parts.os.write", full)
        lab.get(other, None)
    with pytest.raises(DownloadError, match=r"more than the .* that are free"):
        lab.get(lab.server.answers(Answer(length=1 << 60), path="/huge"), None, size=1 << 60)
    assert lab.get(other, None) == BODY


class file_size_limit:
    """No file of this process may grow beyond `count` bytes."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __enter__(self) -> None:
        self.before = resource.getrlimit(resource.RLIMIT_FSIZE)
        self.handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.count, self.before[1]))

    def __exit__(self, *_: object) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, self.before)
        signal.signal(signal.SIGXFSZ, self.handler)


@cases(
    "what is told about the progress raises an error",
    "that error comes out, the part is kept, the lock is free",
)
def case_progress_raises(lab: Lab) -> None:
    url = lab.server.answers(Answer())

    def break_off(done: int, total: int | None) -> None:
        if done > THIRD:
            raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        download(url, lab.cache, False, Expectation(SHA256, exclusive=True), break_off)
    (part,) = lab.parts()
    there = part.stat().st_size
    assert THIRD < there < SIZE
    assert lab.get(url) == BODY and lab.server.ranges == [None, f"bytes={there}-"] and lab.files() == KEPT


@cases("the clock jumps by an hour, either way", "no difference: a part is resumed under the lock, whatever its age")
def case_clock_jumps(lab: Lab) -> None:
    url = lab.server.answers(Answer())
    for shift in (-3600.0, 3600.0):
        part = lab.leave_part(url, BODY[:THIRD])
        os.utime(part, (time.time() + shift, time.time() + shift))
        assert lab.get(url) == BODY and lab.server.ranges == [f"bytes={THIRD}-"] and not part.exists()
        lab.stored.unlink()
        lab.server.log.clear()


# What no case names ---------------------------------------------------------------------------------------------------


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Iterator[Lab]:
    with a_lab(tmp_path, monkeypatch, caplog) as made:
        yield made


def test_without_a_lock_a_part_is_neither_resumed_nor_left(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    url = lab.server.answers(Answer(cut=THIRD), Answer(cut=THIRD), Answer())
    shared = lab.leave_part(url, OTHER[:1000])
    monkeypatch.setattr("hubcore.sources.locks.is_locked", lambda *_: False)
    assert lab.get(url) == BODY and lab.server.ranges == [None, f"bytes={THIRD}-", f"bytes={2 * THIRD}-"]
    assert lab.parts() == [shared]
    monkeypatch.setattr(transfer, "_TRIES", 1)
    with pytest.raises(DownloadError, match=r"failed 1 times, last because [^.]*\. Check"):
        lab.get(lab.server.answers(Answer(cut=THIRD), path="/b"), None)
    assert lab.parts() == [shared]


@pytest.mark.parametrize("kind", ["symbolic link", "folder"])
def test_a_part_that_is_no_file_is_not_written_to(lab: Lab, kind: str) -> None:
    url = lab.server.answers(Answer())
    part = lab.leave_part(url, b"")
    part.unlink()
    target = lab.cache / "mine"
    target.write_bytes(b"mine")
    part.symlink_to(target) if kind == "symbolic link" else part.mkdir()
    if kind == "symbolic link":
        assert lab.get(url) == BODY
    else:
        with pytest.raises(DownloadError, match=r"cannot be used.*HUBCORE_CACHE"):
            lab.get(url)
    assert target.read_bytes() == b"mine" and lab.server.ranges in ([None], [])


def test_a_part_that_was_taken_away_is_not_moved_into_the_store(lab: Lab) -> None:
    url = lab.server.answers(Answer())

    def steal(done: int, total: int | None) -> None:
        if done == SIZE:
            (part,) = lab.parts()
            part.rename(part.with_name("elsewhere"))

    with pytest.raises(DownloadError, match="another process took or removed"):
        download(url, lab.cache, False, Expectation(SHA256, exclusive=True), steal)
    assert lab.files("files") == []
