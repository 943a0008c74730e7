"""The cache's files: each under its own SHA-256, so that mirrors share one and no name comes from a server. Imports no torch.

```text
HUBCORE_CACHE/
    files/sha256-<digest>       whole, verified files
    pins/url-<key>.json         the digest that an address without a published checksum had first
    parts/url-<key>.part        downloads that are not complete
    locks/url-<key>.lock        so that two processes do not fetch the same address at once
    stamps/                     which files were verified and have not changed since
```
"""

from __future__ import annotations

import os
import re
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from hubcore.errors import DownloadError, OfflineError
from hubcore.files import write_whole
from hubcore.hookspecs import Expectation
from hubcore.sources.folders import cache_dir, read_only_caches
from hubcore.sources.stamps import file_sha256, hash_file, write_stamp
from hubcore.text import logger

_log = logger("checkpoints")
_STORED = re.compile(r"sha256-([0-9a-f]{64})")


def stored_path(sha256: str, folder: Path) -> Path:
    """Path for the file of this digest in the cache `folder`.

    Raises:
        DownloadError: that is no digest, so no path is made of it.
    """
    if not _STORED.fullmatch(f"sha256-{sha256}"):
        raise DownloadError(f"the SHA-256 {sha256!r} is not 64 lower-case hex digits.", "Correct the card.")
    return folder / "files" / f"sha256-{sha256}"


def find_stored(sha256: str, folder: Path) -> Path | None:
    """The verified file of this digest in the cache `folder`, else in a read-only one; None if there is no intact one."""
    for cache in (folder, *read_only_caches()):
        path = stored_path(sha256, cache)
        if not is_plain_file(path):
            continue
        if file_sha256(path) == sha256:
            return path
        _log.warning("%s is damaged: its bytes do not have the SHA-256 in its name. It is not used", path)
    return None


def is_plain_file(path: Path) -> bool:
    """True if a path is a file; links are not followed.

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
        raise DownloadError(f"{path} is a {kind}. The cache holds plain files only, and it is not followed.", "Remove it.")
    return True


def copy_stored(path: Path, folder: Path) -> Path:
    """Copies a file into the store of another cache.

    Raises:
        OSError: that cache cannot be written.
    """
    digest = file_sha256(path)
    target = stored_path(digest, folder)
    if not target.is_file() or file_sha256(target) != digest:
        target.parent.mkdir(parents=True, exist_ok=True)
        with write_whole(target) as temporary:
            shutil.copyfile(path, temporary)
    return target


def all_stored() -> Iterator[tuple[Path, str]]:
    """Path and digest of every file of the cache and its read-only layers."""
    for cache in (cache_dir(), *read_only_caches()):
        files = cache / "files"
        for path in sorted(files.iterdir()) if files.is_dir() else ():
            match = _STORED.fullmatch(path.name)
            if match and not path.is_symlink() and path.is_file():
                yield path, match[1]


def is_intact(path: Path, sha256: str) -> bool:
    """True if a file has this digest; every byte is read, whatever its stamp says."""
    digest = hash_file(path)
    if digest == sha256:
        write_stamp(path, str(path), digest)
    return digest == sha256


def unusable(path: Path, error: OSError) -> DownloadError:
    """The error for a cache that cannot be read or written."""
    return DownloadError(
        f"the cache cannot be used at {path} ({error.strerror or error}).",
        "Set HUBCORE_CACHE to a folder that you may write to, and HUBCORE_CACHE_READONLY to one that you may only read.",
    )


def not_cached(address: object, cache: Path, promise: Expectation) -> OfflineError:
    """The error for a file that is not cached while offline mode is on."""
    return OfflineError(
        f"{address} is not in the cache {cache} and offline mode is on.",
        f"With a network, run `hubcore fetch {promise.name or address}`; HUBCORE_OFFLINE and HF_HUB_OFFLINE must be unset.",
    )
