"""Partial downloads: private files that outlive their process and are taken over when it is dead. Imports no torch.

A part belongs to the process whose identity is in its name. Taking one over is a rename, which only one process can win, so
nothing here rests on locks. Beside it lies a sidecar with the URL, the validator and the length that the server told.
"""

from __future__ import annotations

import contextlib
import email.utils
import functools
import hashlib
import json
import os
import platform
import re
import secrets
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hubcore.errors import DownloadError

_NAME = re.compile(
    r"(?P<key>(?:sha256|url)-[0-9a-f]{64})\.(?P<machine>[0-9a-f]{12})-(?P<pid>\d+)-(?P<start>\d+)-[0-9a-f]{8}\.part"
)
_ABANDONED_AFTER = 120.0
"""Seconds without a write after which another machine's part counts as abandoned; live ones are touched more often."""
_STRONG_AFTER = 60.0
"""A Last-Modified this many seconds before the answer's own Date cannot hide a second change within its resolution."""
_open_here: set[str] = set()


@dataclass(frozen=True)
class Remote:
    """What a server told about a file, kept in the sidecar."""

    url: str
    """The URL that was asked for, before redirects."""
    validator: str | None = None
    """A strong ETag or a Last-Modified, for `If-Range`; None if a resumed download could be spliced from two versions."""
    total: int | None = None
    """Bytes of the whole file."""


def strong_validator(etag: str | None, last_modified: str | None, date: str | None) -> str | None:
    """The header value that names exactly these bytes, or None.

    Example:
        >>> strong_validator('"abc"', None, None), strong_validator('W/"abc"', None, None)
        ('"abc"', None)
    """
    if etag is not None:
        return etag if etag.startswith('"') else None
    try:
        modified = email.utils.parsedate_to_datetime(last_modified or "")
        sent = email.utils.parsedate_to_datetime(date or "")
        return last_modified if (sent - modified).total_seconds() >= _STRONG_AFTER else None
    except (ValueError, TypeError):
        return None


class Part:
    """One private partial file, open for appending. Made by `open_part`."""

    def __init__(self, path: Path, descriptor: int, remote: Remote) -> None:
        self.path = path
        self.remote = remote
        self.size = os.fstat(descriptor).st_size
        self.resumed_from = self.size
        """Bytes that were there before this process wrote any."""
        self._descriptor = descriptor

    @property
    def sidecar(self) -> Path:
        """The file beside it with what the server told."""
        return _sidecar(self.path)

    @property
    def is_complete(self) -> bool:
        """Whether it has as many bytes as the server said the file has."""
        return self.size > 0 and self.size == self.remote.total

    def restart(self, remote: Remote) -> None:
        """Empties it, for a file of which the server says `remote`."""
        # In this order a crash never leaves a sidecar beside bytes that it does not describe.
        self.sidecar.unlink(missing_ok=True)
        os.ftruncate(self._descriptor, 0)
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        self.size = self.resumed_from = 0
        self.remote = remote
        temporary = self.sidecar.with_suffix(".new")
        temporary.write_text(json.dumps(vars(remote), indent=1) + "\n", encoding="utf-8")
        os.replace(temporary, self.sidecar)

    def append(self, data: bytes) -> None:
        """Writes `data` at the end."""
        rest = memoryview(data)
        while rest:
            count = os.write(self._descriptor, rest)
            rest = rest[count:]
            self.size += count

    def touch(self) -> None:
        """Tells other machines that its owner lives."""
        os.utime(self._descriptor)

    def head(self, count: int = 512) -> bytes:
        """Its first bytes."""
        return os.pread(self._descriptor, count, 0)

    def sha256(self) -> str:
        """The SHA-256 of what is on the disk."""
        digest, offset = hashlib.sha256(), 0
        while block := os.pread(self._descriptor, 1 << 20, offset):
            digest.update(block)
            offset += len(block)
        return digest.hexdigest()

    def move_to(self, target: Path) -> None:
        """Flushes it to the disk and renames it to `target`, replacing what is there.

        Raises:
            DownloadError: another machine took it for abandoned and renamed it away.
        """
        os.fsync(self._descriptor)
        mine = os.fstat(self._descriptor)
        try:
            there = os.lstat(self.path)
        except FileNotFoundError:
            there = None
        if there is None or (there.st_dev, there.st_ino) != (mine.st_dev, mine.st_ino):
            raise DownloadError(f"{self.path} was taken over by another machine while it was written. Try again.")
        os.replace(self.path, target)
        sync_folder(target.parent)
        self.sidecar.unlink(missing_ok=True)

    def discard(self) -> None:
        """Removes it and its sidecar."""
        self.sidecar.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)

    def close(self) -> None:
        """Lets go of it; an empty one is removed, any other is kept for the next attempt."""
        if self.size == 0:
            with contextlib.suppress(OSError):
                self.discard()
        os.close(self._descriptor)
        _open_here.discard(self.path.name)


@contextlib.contextmanager
def open_part(folder: Path, key: str, url: str, *, checked: bool) -> Iterator[Part]:
    """A part that belongs to this process alone: the longest that a dead process left of the same URL, or a new one.

    Args:
        folder: where parts lie.
        key: the file's name in the store, or its stand-in while the digest is unknown.
        url: the address; a part of another one is not continued.
        checked: whether a SHA-256 will tell if the result is right. Otherwise only parts of this machine, whose processes
            are known to be dead, are continued.

    Raises:
        OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    fresh = _create(folder, key)
    try:
        claimed = _claim(folder, key, url, fresh, checked=checked)
    except BaseException:
        os.close(fresh[1])
        fresh[0].unlink(missing_ok=True)
        _open_here.discard(fresh[0].name)
        raise
    if claimed is None:
        part = Part(*fresh, Remote(url))
    else:
        os.close(fresh[1])
        fresh[0].unlink(missing_ok=True)
        _open_here.discard(fresh[0].name)
        part = claimed
    try:
        yield part
    finally:
        part.close()


def is_being_fetched(folder: Path, key: str) -> bool:
    """Whether a living process has a part of this key."""
    found = [path for path in _listing(folder) if path.name.startswith(f"{key}.")]
    return any(is_owned(path, None) for path in found)


def abandoned_parts(folder: Path) -> list[Path]:
    """Parts of dead processes, and sidecars without a part."""
    parts = [path for path in _listing(folder) if not is_owned(path, None)]
    sidecars = folder.glob("*.part.*") if folder.is_dir() else ()
    return parts + sorted(path for path in sidecars if not path.with_suffix("").exists())


def is_owned(path: Path, now: float | None) -> bool:
    """Whether the process that a part belongs to lives; for another machine's, whether it was written to lately.

    Args:
        path: the part.
        now: the file system's own time, so that a wrong clock here does no harm; this machine's if None.
    """
    match = _NAME.fullmatch(path.name)
    if match is None:
        return False
    if match["machine"] == _machine():
        # The age says nothing here: a clock may jump, and a stopped process may go on.
        pid = int(match["pid"])
        return path.name in _open_here if pid == os.getpid() else _process_start(pid) == match["start"]
    try:
        written = path.stat().st_mtime
    except OSError:
        return False
    return (_clock() if now is None else now) - written < _ABANDONED_AFTER


def sync_folder(folder: Path) -> None:
    """Flushes a folder's entries to the disk, where the system can."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError:
        pass  # some network file systems cannot; the rename itself is atomic all the same
    finally:
        os.close(descriptor)


def _listing(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.part") if _NAME.fullmatch(path.name)) if folder.is_dir() else []


def _sidecar(path: Path) -> Path:
    return path.with_name(path.name + ".json")


def _own_name(key: str) -> str:
    return f"{key}.{_machine()}-{os.getpid()}-{_process_start(os.getpid()) or 0}-{secrets.token_hex(4)}.part"


def _create(folder: Path, key: str) -> tuple[Path, int]:
    path = folder / _own_name(key)
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    _open_here.add(path.name)
    try:
        return path, os.open(path, flags, 0o666)
    except BaseException:
        _open_here.discard(path.name)
        raise


def _claim(folder: Path, key: str, url: str, fresh: tuple[Path, int], *, checked: bool) -> Part | None:
    """The longest usable part of a dead process, now ours; the dead's other parts of this key are removed."""
    now = os.fstat(fresh[1]).st_mtime
    best: Part | None = None
    for path in _listing(folder):
        match = _NAME.fullmatch(path.name)
        if match is None or match["key"] != key or path == fresh[0] or is_owned(path, now):
            continue
        if match["machine"] != _machine() and not checked:
            continue
        part = _take(path, folder / _own_name(key), url)
        if part is None:
            continue
        if best is None or part.size > best.size:
            best, part = part, best
        if part is not None:
            part.discard()
            part.close()
    return best


def _take(path: Path, mine: Path, url: str) -> Part | None:
    """Renames a part to ours and opens it; None if somebody else was faster or it is of no use, and then it is gone."""
    _open_here.add(mine.name)
    try:
        os.rename(path, mine)
    except OSError:
        _open_here.discard(mine.name)
        return None
    with contextlib.suppress(OSError):
        os.rename(_sidecar(path), _sidecar(mine))
    try:
        remote = _read_sidecar(_sidecar(mine))
        if remote is not None and remote.url == url and stat.S_ISREG(os.lstat(mine).st_mode):
            descriptor = os.open(mine, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0))
            os.lseek(descriptor, 0, os.SEEK_END)
            return Part(mine, descriptor, remote)
    except OSError:
        pass  # it cannot be opened, so it is of no use
    for leftover in (_sidecar(mine), mine):
        with contextlib.suppress(OSError):
            leftover.unlink(missing_ok=True)
    _open_here.discard(mine.name)
    return None


def _read_sidecar(path: Path) -> Remote | None:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        remote = Remote(record["url"], record["validator"], record["total"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    fits = isinstance(remote.url, str) and isinstance(remote.validator, str | None) and isinstance(remote.total, int | None)
    return remote if fits else None


@functools.cache
def _machine() -> str:
    """A token for this machine since it was started, and for its process numbers (a container has its own)."""
    facts = [platform.node()]
    for source in ("/proc/sys/kernel/random/boot_id",):
        with contextlib.suppress(OSError):
            facts.append(Path(source).read_text())
    with contextlib.suppress(OSError):
        facts.append(os.readlink("/proc/self/ns/pid"))
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:12]


def _process_start(pid: int) -> str | None:
    """When a process of this machine was started, in the kernel's ticks (`0` where the system does not say); None if dead."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if fields[0] in "ZX" else fields[19]
    except FileNotFoundError:
        if Path("/proc/self/stat").exists():
            return None
    except (OSError, IndexError):
        return "0"
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except OSError:
        pass  # it lives, but is another user's
    return "0"


def _clock() -> float:
    import time

    return time.time()
