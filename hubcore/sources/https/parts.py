"""Partial downloads: files that outlive a killed process, so that the next attempt resumes them. Imports no torch.

While a lock keeps other processes away, the part has a fixed name and is resumed; else it has a random name and is private to
one attempt. Beside it lies a sidecar with the URL, the validator and the length that the server told.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import secrets
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hubcore.errors import DownloadError
from hubcore.files import parse_json, read_small, sync, write_whole
from hubcore.sources.https.headers import is_validator
from hubcore.sources.pins import address_key
from hubcore.text import redacted

_FLAGS = os.O_RDWR | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)


@dataclass(frozen=True)
class Remote:
    """Facts that a server stated about a file, kept in the sidecar."""

    url: str
    """The URL that was asked for, before redirects; on the disk, `redacted`."""
    validator: str | None = None
    """A strong ETag or a Last-Modified, for `If-Range`; None if a resumed download could be spliced from two versions."""
    total: int | None = None
    """Bytes of the whole file."""


class Part:
    """One partial file, open for appending: the existing one of the same URL, or a new one."""

    def __init__(self, path: Path, url: str, *, shared: bool) -> None:
        self.path = path
        self.shared = shared
        """True if it stays for the next attempt."""
        self.sidecar = path.with_name(path.name + ".json")
        self.remote = Remote(url)
        self._descriptor = -1
        self.size = 0
        known = _read_sidecar(self.sidecar)
        if known is None or known.url != redacted(url) or not self._reopen():
            self.restart(Remote(url))
        else:
            self.remote = dataclasses.replace(known, url=url)
        self.resumed_from = self.size
        """Bytes that were there before this process wrote any."""

    def _reopen(self) -> bool:
        """Opens the file that is there; whether it is one."""
        try:
            self._descriptor = os.open(self.path, _FLAGS)
        except OSError:
            return False
        self.size = os.lseek(self._descriptor, 0, os.SEEK_END)
        return stat.S_ISREG(os.fstat(self._descriptor).st_mode)

    @property
    def is_complete(self) -> bool:
        """True if it has as many bytes as the server said the file has."""
        return self.size > 0 and self.size == self.remote.total

    def restart(self, remote: Remote) -> None:
        """Begins a new file, of which the server says `remote`."""
        # In this order a crash never leaves a sidecar beside bytes that it does not describe. The old file is removed, not
        # emptied: where locks hold on one machine only, another may have renamed it into the store.
        self.discard()
        self.close()
        self._descriptor = os.open(self.path, _FLAGS | os.O_CREAT | os.O_EXCL, 0o666)
        self.size = self.resumed_from = 0
        self.remote = remote
        with write_whole(self.sidecar, durable=False) as temporary:
            temporary.write_text(json.dumps({**vars(remote), "url": redacted(remote.url)}, indent=1) + "\n", encoding="utf-8")

    def append(self, data: bytes) -> None:
        """Writes `data` at the end."""
        rest = memoryview(data)
        while rest:
            count = os.write(self._descriptor, rest)
            rest = rest[count:]
            self.size += count

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
        """Flushes it to the disk and renames it to `target`, replacing an existing file.

        Raises:
            DownloadError: another process took or removed it.
        """
        sync(self._descriptor)
        mine = os.fstat(self._descriptor)
        there = os.lstat(self.path) if self.path.exists() else None
        if there is None or (there.st_dev, there.st_ino) != (mine.st_dev, mine.st_ino):
            raise DownloadError(f"another process took or removed {self.path} during the download.", "Try again.")
        os.replace(self.path, target)
        sync(target.parent)
        self.sidecar.unlink(missing_ok=True)

    def discard(self) -> None:
        """Removes it and its sidecar."""
        self.sidecar.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)

    def close(self) -> None:
        """Closes the file, which stays."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1


@contextlib.contextmanager
def open_part(folder: Path, url: str, *, shared: bool) -> Iterator[Part]:
    """The partial download of a URL; when the block ends, it stays for the next attempt if it is `shared` and not empty.

    A part of another URL is not resumed. `shared` says that a lock keeps other processes away from the part of this one.

    Raises:
        OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    part = Part(folder / f"{address_key(url)}{'' if shared else '.' + secrets.token_hex(8)}.part", url, shared=shared)
    try:
        yield part
    finally:
        part.close()
        if not part.size or not shared:
            with contextlib.suppress(OSError):
                part.discard()


def _read_sidecar(path: Path) -> Remote | None:
    try:
        record = parse_json(read_small(path, 1 << 16))
        remote = Remote(record["url"], record["validator"], record["total"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    usable = remote.validator is None or is_validator(remote.validator)
    return remote if usable and isinstance(remote.url, str) and isinstance(remote.total, int | None) else None
