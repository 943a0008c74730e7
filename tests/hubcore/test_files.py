"""Files are written whole or not at all, also where a file system has no sync, no links, or no room."""

from __future__ import annotations

import errno
import logging
import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hubcore import files
from hubcore.files import hold, sync, write_whole


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_said", [])


@pytest.fixture
def no_sync(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    def refuse(descriptor: int) -> None:
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(os, "fsync", refuse)


@pytest.mark.parametrize("durable", [True, False])
def test_a_file_appears_whole_with_the_permissions_of_the_umask(tmp_path: Path, durable: bool) -> None:
    before = os.umask(0o027)
    try:
        with write_whole(tmp_path / "a.json", durable=durable) as temporary:
            assert temporary.parent == tmp_path and temporary.suffix == ".part" and len(temporary.name) < 32
            temporary.unlink()
            temporary.write_bytes(b"x")
            temporary.chmod(0o600)  # as a library does that puts a private file of its own there
    finally:
        os.umask(before)
    assert _names(tmp_path) == ["a.json"]
    assert stat.S_IMODE((tmp_path / "a.json").stat().st_mode) == 0o640


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), ValueError("no"), KeyboardInterrupt()])
@pytest.mark.parametrize("folder", [True, False])
def test_after_an_error_nothing_has_changed(tmp_path: Path, error: BaseException, folder: bool) -> None:
    (tmp_path / "a").write_bytes(b"old")
    with pytest.raises(type(error)), write_whole(tmp_path / "a", folder=folder) as temporary:
        (temporary / "inside" if folder else temporary).write_bytes(b"half")
        raise error
    assert _names(tmp_path) == ["a"] and (tmp_path / "a").read_bytes() == b"old"


def test_a_name_as_long_as_the_file_system_allows_can_be_written(tmp_path: Path) -> None:
    name = "a." + "b" * 253
    with write_whole(tmp_path / name) as temporary:
        temporary.write_bytes(b"x")
    assert _names(tmp_path) == [name]


def test_a_folder_appears_whole_and_replaces_none(tmp_path: Path) -> None:
    for outcome in (None, OSError):
        with pytest.raises(OSError) if outcome else open(os.devnull), write_whole(tmp_path / "run", folder=True) as temporary:
            (temporary / "inner").mkdir()
            (temporary / "inner" / "a").write_bytes(b"x")
    assert _names(tmp_path) == ["run"] and (tmp_path / "run/inner/a").read_bytes() == b"x"


@pytest.mark.parametrize("links", [True, False])
@pytest.mark.parametrize("folder", [True, False])
def test_nothing_that_appeared_meanwhile_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool, folder: bool
) -> None:
    def no_links(source: object, target: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    if not links:
        monkeypatch.setattr(os, "link", no_links)
    for name in ("new", "taken"):
        with (
            pytest.raises(FileExistsError) if name == "taken" else open(os.devnull),
            write_whole(tmp_path / name, replace=False, folder=folder) as temporary,
        ):
            (temporary / "inside" if folder else temporary).write_bytes(b"mine")
            if name == "taken":
                (tmp_path / name).write_bytes(b"theirs")
    assert _names(tmp_path) == ["new", "taken"] and (tmp_path / "taken").read_bytes() == b"theirs"


@pytest.mark.parametrize("no_sync", [errno.EINVAL, errno.EBADF, errno.ENOTSUP, errno.ENOSYS], indirect=True)
def test_a_file_system_without_sync_is_named_once(no_sync: None, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        for name in ("a", "b"):
            with write_whole(tmp_path / name) as temporary:
                temporary.write_bytes(b"x")
    assert _names(tmp_path) == ["a", "b"]
    assert [record.getMessage().count("cannot be synced") for record in caplog.records] == [1]


@pytest.mark.parametrize("no_sync", [errno.EIO, errno.ENOSPC, errno.EDQUOT], indirect=True)
def test_a_disk_that_fails_is_an_error(no_sync: None, tmp_path: Path) -> None:
    with pytest.raises(OSError), write_whole(tmp_path / "a") as temporary:
        temporary.write_bytes(b"x")
    assert _names(tmp_path) == []


def test_files_are_synced_by_a_descriptor_open_for_writing_and_before_they_get_their_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fcntl = pytest.importorskip("fcntl")
    seen = []

    def note(descriptor: int) -> None:
        is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        writable = fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDWR
        seen.append((is_folder, writable, (tmp_path / "a").exists()))

    monkeypatch.setattr(os, "fsync", note)
    with write_whole(tmp_path / "a") as temporary:
        temporary.write_bytes(b"x")
    assert seen == [(False, True, False), (True, False, True)]
    with open(tmp_path / "a", "ab") as stream:
        sync(stream.fileno())
    assert seen[2:] == [(False, False, True)]


STARTS_A_COMMAND = """
import os, pathlib, subprocess, sys, time
from hubcore.files import hold
hold(pathlib.Path(sys.argv[1]))
subprocess.run(["true"], preexec_fn=lambda: (os.write(1, b"now"), time.sleep(0.5)))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_folder_is_free_when_its_process_was_killed_while_it_started_a_command(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", STARTS_A_COMMAND, str(tmp_path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.read(3) == b"now"  # the command's process, which has the lock too
        process.kill()
        process.wait()
        began = time.monotonic()
        with hold(tmp_path):
            assert time.monotonic() - began > 0.1, "the lock was free at once: the test shows nothing"


def test_a_folder_of_a_living_process_is_refused_at_once(tmp_path: Path) -> None:
    with hold(tmp_path):
        began = time.monotonic()
        with pytest.raises(BlockingIOError, match=f"process {os.getpid()}"):
            hold(tmp_path)
        assert time.monotonic() - began < 2
