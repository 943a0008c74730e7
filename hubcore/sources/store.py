"""The cache's files: each under its own SHA-256, so that mirrors share one and no name comes from a server. Imports no torch.

```text
HUBCORE_CACHE/
    files/sha256-<digest>       whole, verified files
    pins/url-<digest>.json      what an address without a published checksum gave first
    parts/                      downloads that are not complete
    stamps/                     what was verified and has not changed since
    locks/                      so that two processes do not download the same file
```
"""

from __future__ import annotations

import logging
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hubcore.errors import DownloadError
from hubcore.sources.folders import cache_dir, read_only_caches
from hubcore.sources.https.parts import Part
from hubcore.sources.stamps import file_sha256, hash_file, write_stamp

_log = logging.getLogger("hubcore.checkpoints")
_STORED = re.compile(r"sha256-([0-9a-f]{64})")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Stored:
    """One file of a cache."""

    path: Path
    """Where it is."""
    sha256: str
    """The digest that its name promises."""
    size: int
    """Bytes."""
    writable: bool
    """Whether it is in the user's own cache, not in a read-only layer."""


def stored_path(sha256: str, folder: Path) -> Path:
    """Where the file of this digest lies in the cache `folder`.

    Raises:
        DownloadError: that is no digest, so no path is made of it.
    """
    if not _SHA256.fullmatch(sha256):
        raise DownloadError(f"the SHA-256 {sha256!r} is not 64 lower-case hex digits. No file can have it. Correct the card.")
    return folder / "files" / f"sha256-{sha256}"


def find_stored(sha256: str, folder: Path | None = None) -> Path | None:
    """The verified file of this digest in the cache, else in a read-only layer; None if there is none that is intact.

    A damaged one in the cache is reported, and removed by the download that replaces it.
    """
    for cache in (folder or cache_dir(), *read_only_caches()):
        path = stored_path(sha256, cache)
        if not is_plain_file(path):
            continue
        if file_sha256(path) == sha256:
            return path
        _log.warning("%s is damaged: its bytes do not have the SHA-256 in its name. It is not used", path)
    return None


def is_plain_file(path: Path) -> bool:
    """Whether a path is a file; links are not followed.

    Raises:
        DownloadError: it is something else, or its folder is none.
    """
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return False
    except OSError as error:
        raise unusable(path, error) from error
    if not stat.S_ISREG(mode):
        kind = "symbolic link" if stat.S_ISLNK(mode) else "folder" if stat.S_ISDIR(mode) else "special file"
        raise DownloadError(f"{path} is a {kind}. Only plain files belong there, and it is not followed. Remove it.")
    return True


def unusable(path: Path, error: OSError) -> DownloadError:
    """The error for a cache that cannot be read or written."""
    return DownloadError(
        f"the cache cannot be used at {path} ({error.strerror or error}). It must be a folder that you may write to. "
        "Set HUBCORE_CACHE to one; a shared one that you only read belongs into HUBCORE_CACHE_READONLY."
    )


def keep(part: Part, sha256: str, uri: str, folder: Path) -> Path:
    """Moves a complete part into the store and stamps it.

    Raises:
        OSError: the cache cannot be written.
    """
    path = stored_path(sha256, folder)
    is_plain_file(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part.move_to(path)
    write_stamp(path, uri, sha256)
    return path


def all_stored(folder: Path | None = None) -> Iterator[Stored]:
    """Every file of the cache and its read-only layers, or of one cache."""
    own = folder or cache_dir()
    for cache in (own,) if folder else (own, *read_only_caches()):
        files = cache / "files"
        for path in sorted(files.iterdir()) if files.is_dir() else ():
            match = _STORED.fullmatch(path.name)
            if match and not path.is_symlink() and path.is_file():
                yield Stored(path, match[1], path.stat().st_size, cache == own)


def is_intact(stored: Stored) -> bool:
    """Whether a file has the digest in its name; every byte is read, whatever its stamp says."""
    digest = hash_file(stored.path)
    if digest == stored.sha256:
        write_stamp(stored.path, str(stored.path), digest)
    return digest == stored.sha256
