"""Several processes and threads, and processes that die: killed, interrupted, forked."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hubcore.sources.locks import taking_turns
from tests.faults.cases import Case, Cases
from tests.faults.http_server import BODY, SHA256, Answer, wait_until
from tests.faults.lab import Lab, a_lab
from tests.paths import REPOSITORY
from tests.running import heed_signals

pytestmark = pytest.mark.slow

cases = Cases()
pytest_generate_tests = cases.generate
SIZE = len(BODY)
KEPT = [f"files/sha256-{SHA256}"]
RATE = 400_000
"""Bytes a second of a download that is to be interrupted."""

SCRIPT = """
import hashlib, os, sys
from hubcore.card import Source
from hubcore.sources import resolve as sources
{setup}
url, sha256, os.environ["HUBCORE_CACHE"] = sys.argv[1:]
path = sources.fetch_source(Source(url, sha256 or None))
print(hashlib.sha256(path.read_bytes()).hexdigest())
"""
NO_LOCKS = """
import fcntl
fcntl.flock = lambda *_: None
"""
AT_ONCE = """
import pathlib, time
pathlib.Path(f"ready-{os.getpid()}").touch()
while not os.path.exists("go"):
    time.sleep(0.01)
"""
"""Waits for the others, however long each of them takes to start."""


def test_case(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    with a_lab(tmp_path, monkeypatch, caplog) as lab:
        case.run(lab)


@contextlib.contextmanager
def process(lab: Lab, url: str, *, sha256: str = SHA256, setup: str = "") -> Iterator[subprocess.Popen[str]]:
    """Another process that downloads; killed when the block ends."""
    script = SCRIPT.format(setup=textwrap.dedent(setup))
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-c", script, url, sha256, str(lab.cache)]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=lab.cache.parent,
        preexec_fn=heed_signals,
    ) as child:
        try:
            yield child
        finally:
            child.kill()


def result(child: subprocess.Popen[str]) -> str:
    out, err = child.communicate(timeout=30)
    assert child.returncode == 0, err
    return out.strip()


def reached(lab: Lab, count: int) -> None:
    """Waits until some part has `count` bytes."""
    wait_until(lambda: any(path.stat().st_size >= count for path in lab.parts() if path.exists()))


@cases("kill -9 in the middle of a download, twice", "each start resumes the last one, the digest is right")
def case_killed_twice(lab: Lab) -> None:
    url = lab.server.answers(Answer(rate=RATE), Answer(rate=RATE), Answer())
    lengths = []
    for share in (0.25, 0.6):
        with process(lab, url) as child:
            reached(lab, int(SIZE * share))
            child.send_signal(signal.SIGKILL)
            child.wait(10)
        (part,) = lab.parts()
        lengths.append(part.stat().st_size)
    assert lab.get(url) == BODY
    assert lab.server.ranges == [None, f"bytes={lengths[0]}-", f"bytes={lengths[1]}-"]
    assert 0 < lengths[0] < lengths[1] < SIZE and lab.files() == KEPT


@cases("eight processes want one file", "one body is sent, eight right results")
def case_eight_processes(lab: Lab) -> None:
    url = lab.server.answers(Answer(rate=RATE))
    with contextlib.ExitStack() as stack:
        children = [stack.enter_context(process(lab, url)) for _ in range(8)]
        assert [result(child) for child in children] == [SHA256] * 8
    assert lab.server.ranges == [None] and lab.server.sent == SIZE and lab.files() == KEPT


@cases("kill -9 of the process that holds the lock", "one that waits gets the lock and resumes from there")
def case_holder_killed(lab: Lab) -> None:
    url = lab.server.answers(Answer(rate=RATE // 2), Answer())
    with process(lab, url) as holder:
        reached(lab, SIZE // 10)
        with process(lab, url) as waiter:
            reached(lab, SIZE // 2)
            assert waiter.poll() is None and lab.server.ranges == [None]
            holder.send_signal(signal.SIGKILL)
            holder.wait(10)
            (part,) = lab.parts()
            there = part.stat().st_size
            assert result(waiter) == SHA256
    assert lab.server.ranges == [None, f"bytes={there}-"] and lab.files() == KEPT


@cases("a file system where locks do nothing, six processes, two killed", "four right results")
def case_locks_do_nothing(lab: Lab) -> None:
    url = lab.server.answers(Answer(rate=RATE))
    with contextlib.ExitStack() as stack:
        children = [stack.enter_context(process(lab, url, setup=NO_LOCKS + AT_ONCE)) for _ in range(6)]
        wait_until(lambda: len(list(lab.cache.parent.glob("ready-*"))) == 6)
        (lab.cache.parent / "go").touch()
        wait_until(lambda: len(lab.parts()) >= 6)
        killed = children[:2]
        for child in killed:
            child.send_signal(signal.SIGKILL)
        assert [result(child) for child in children if child not in killed] == [SHA256] * 4
    assert lab.files("files") == KEPT


@cases("kill -9 after the last byte, before the rename", "the next start checks the received bytes, no body is sent")
def case_killed_before_rename(lab: Lab) -> None:
    url = lab.server.answers(Answer())
    setup = """
    import os
    replace = os.replace
    os.replace = lambda a, b: os.kill(os.getpid(), 9) if "files" in str(b) else replace(a, b)
    """
    with process(lab, url, setup=setup) as child:
        assert child.wait(30) == -signal.SIGKILL
    assert [path.stat().st_size for path in lab.parts()] == [SIZE] and lab.files("files") == []
    assert lab.get(url) == BODY and lab.server.ranges == [None] and lab.files() == KEPT


@cases("Ctrl-C in the middle of a download", "ends within a second, the partial download is kept, the lock is free")
def case_interrupted_download(lab: Lab) -> None:
    url = lab.server.answers(Answer(stall=SIZE // 2), Answer())
    with process(lab, url) as child:
        reached(lab, SIZE // 2)
        began = time.monotonic()
        child.send_signal(signal.SIGINT)
        _, err = child.communicate(timeout=10)
        elapsed = time.monotonic() - began
    assert (
        "KeyboardInterrupt" in err and child.returncode != 0 and elapsed < 3
    )  # one second on a machine with nothing else to do
    assert lab.get(url) == BODY and lab.server.ranges == [None, f"bytes={SIZE // 2}-"] and lab.files() == KEPT


@cases("two threads of one process want one file", "one download")
def case_two_threads_download(lab: Lab) -> None:
    url = lab.server.answers(Answer(rate=RATE * 3))
    got: list[bytes] = []
    threads = [threading.Thread(target=lambda: got.append(lab.get(url))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert got == [BODY, BODY] and lab.server.ranges == [None] and lab.files() == KEPT


FORK = """
import os, threading, warnings
warnings.simplefilter("ignore")
began = threading.Event()
parent = os.getpid()
url, sha256, cache = sys.argv[1:]
os.environ["HUBCORE_CACHE"] = cache
from hubcore.sources.https.parts import Part
append = Part.append
Part.append = lambda self, data: append(self, data) or began.set()
def work():
    sources.fetch_source(Source(url, sha256))
thread = threading.Thread(target=work)
thread.start()
began.wait(20)
child = os.fork()
if child and "die" in cache:
    os.kill(parent, 9)
if child:
    thread.join()
    os.waitpid(child, 0)
"""


@cases("a process is forked while it holds the lock, as by a DataLoader", "no deadlock, also if the parent dies")
def case_forked_while_locked(lab: Lab) -> None:
    url = lab.server.answers(Answer(rate=RATE), Answer())
    with process(lab, url, setup=FORK) as child:
        out, err = child.communicate(timeout=30)
    assert out.split() == [SHA256] * 2, err
    assert lab.server.ranges == [None] and lab.files() == KEPT
    lab.cache = lab.cache.with_name("die")
    other = lab.server.answers(Answer(rate=RATE), Answer(), path="/die")
    with process(lab, other, setup=FORK) as child:
        out, err = child.communicate(timeout=30)  # the forked child holds the pipes until it is done
    assert child.returncode == -signal.SIGKILL and out.split() == [SHA256], err
    assert lab.files() == KEPT and lab.server.ranges[2] is not None


# What no case names ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [NotImplementedError("no flock here"), OSError(37, "no locks"), OSError(30, "read-only")])
def test_where_files_cannot_be_locked_the_download_is_private(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise error

    with a_lab(tmp_path, monkeypatch, caplog) as lab:
        monkeypatch.setattr("filelock.FileLock.acquire", refuse)
        assert lab.get(lab.server.answers(Answer())) == BODY and lab.files() == KEPT


def test_a_holder_that_hangs_is_not_waited_for_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with a_lab(tmp_path, monkeypatch, caplog) as lab:
        monkeypatch.setattr("hubcore.sources.locks.PATIENCE", 0.2)
        url = lab.server.answers(Answer())
        with taking_turns(url, lab.cache) as alone:
            assert alone and lab.get(url) == BODY and lab.files() == KEPT
