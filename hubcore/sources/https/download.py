"""`download`: one URL into the cache, whole or not at all; `probe`: whether it could be downloaded. Imports no torch.

Bytes go into a part, are hashed once they are all there, flushed to the disk and renamed to their own digest.
"""

from __future__ import annotations

import contextlib
import errno
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

from hubcore.card import Source
from hubcore.errors import ChecksumError, DownloadError
from hubcore.hookspecs import Expectation
from hubcore.progress import Progress
from hubcore.sources.https.addresses import check_url
from hubcore.sources.https.parts import Part, Remote, open_part
from hubcore.sources.https.transfer import Watcher, transfer
from hubcore.sources.pages import NotTheFileError
from hubcore.sources.stamps import write_stamp
from hubcore.sources.store import find_stored, is_plain_file, not_cached, stored_path, unusable
from hubcore.text import logger

_log = logger("checkpoints")
_FULL = (errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC))
_ENOUGH = 64
"""Bytes by which a page in place of the file is recognised."""


def download(url: str, cache_dir: Path, offline: bool, promise: Expectation, watcher: Watcher | None = None) -> Path:
    """The cached file of a URL, downloaded if it is not there; `promise` is what is known of it.

    Read-only caches are looked into as well. An error from `watcher` ends the download and leaves the part for the next one.

    Raises:
        OfflineError: it is not there and `offline` is set.
        ChecksumError: the bytes are not the promised ones.
        DownloadError: the URL is not acceptable, or the file cannot be obtained whole.
    """
    check_url(url)
    found = find_stored(promise.sha256, cache_dir) if promise.sha256 else None
    if found is not None:
        return found
    if offline:
        raise not_cached(url, cache_dir, promise)
    try:
        if watcher is not None:
            return _fetch(url, cache_dir, promise, watcher)
        name = urlsplit(url).path.rpartition("/")[2] or url
        with Progress("B", name, say=_log.info, keep=True) as progress:
            return _fetch(url, cache_dir, promise, progress)
    except OSError as error:
        if error.errno in _FULL:
            raise _no_room(url, cache_dir / "parts", error) from error
        raise unusable(Path(error.filename) if isinstance(error.filename, str) else cache_dir / "parts", error) from error


def probe(source: Source, cache_dir: Path) -> None:
    """Begins the very transfer that a download would be, and breaks it off after the first bytes.

    Raises:
        DownloadError: the download would fail.
    """

    def stop(done: int, total: int | None) -> None:  # noqa: ARG001 - the signature of `Watcher`
        if done >= _ENOUGH:
            raise _EnoughError

    check_url(source.uri)
    with (
        tempfile.TemporaryDirectory(prefix=".probe-", dir=_writable(cache_dir)) as folder,
        open_part(Path(folder), source.uri, shared=False) as part,
        contextlib.suppress(_EnoughError),
    ):
        transfer(source.uri, part, Expectation(source.sha256, source.size), stop)


class _EnoughError(Exception):
    """The first bytes are there; the rest is not wanted."""


def _writable(cache_dir: Path) -> Path | None:
    """The cache, so that a check for free space means the right disk; None if it cannot be written."""
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=cache_dir).close()
    except OSError:
        return None
    return cache_dir


def _fetch(url: str, folder: Path, promise: Expectation, watcher: Watcher) -> Path:
    """Downloads the file and keeps it, if its digest is right; a wrong one is fetched a second time, from the beginning."""
    if promise.sha256 is not None:
        stored_path(promise.sha256, folder)
    with open_part(folder / "parts", url, shared=promise.exclusive) as part:
        wrong = 0
        while True:
            resumed = part.size > 0
            try:
                transfer(url, part, promise, watcher)
            except NotTheFileError:
                part.restart(Remote(url))
                raise
            digest, size = part.sha256(), part.size
            if promise.size not in (None, size):
                part.restart(Remote(url))
                raise _wrong_size(url, size, promise.size)
            if promise.sha256 in (None, digest):
                return _keep(part, digest, url, folder)
            # Bytes of an earlier process may be what is wrong, and do not count against the server.
            wrong += not (resumed and part.resumed_from)
            part.restart(Remote(url))
            if wrong == 2:
                raise _wrong_digest(url, digest, promise.sha256)
            _log.warning("%s gave SHA-256 %s instead of %s; trying again from the beginning", url, digest, promise.sha256)


def _keep(part: Part, sha256: str, url: str, folder: Path) -> Path:
    """Moves a complete part into the store and stamps it."""
    path = stored_path(sha256, folder)
    is_plain_file(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part.move_to(path)
    write_stamp(path, url, sha256)
    return path


# Errors ---------------------------------------------------------------------------------------------------------------


def _no_room(url: str, folder: Path, error: OSError) -> DownloadError:
    return DownloadError(
        f"{url} does not fit into {folder} ({error.strerror}). The partial download is kept and can be resumed.",
        "Free some space or set HUBCORE_CACHE elsewhere.",
    )


def _wrong_size(url: str, size: int, wanted: int | None) -> ChecksumError:
    return ChecksumError(f"{url} has {size} bytes, but must have {wanted}. It is another file.", "Use another source.")


def _wrong_digest(url: str, digest: str, wanted: str | None) -> ChecksumError:
    return ChecksumError(
        f"{url} has SHA-256 {digest}, but must have {wanted}. These are not the published bytes, in two downloads. Nothing was "
        "kept.",
        "Use another source; if the publisher changed the file, the card needs its new SHA-256.",
        found=digest,
    )
