"""`download`: one URL into the cache, whole or not at all. Imports no torch.

The bytes go into a private part that outlives this process, are hashed once they are all there, flushed to disk and renamed
to their own digest. Locks only keep two processes from downloading the same file; nothing rests on them.
"""

from __future__ import annotations

import errno
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from hubcore.errors import ChecksumError, DownloadError, OfflineError, OptionError
from hubcore.progress import Progress as Display
from hubcore.sources.expectations import Expectation, expected
from hubcore.sources.https.addresses import check_url
from hubcore.sources.https.parts import is_being_fetched, open_part
from hubcore.sources.https.transfer import Limits, NotTheFileError, Progress, transfer
from hubcore.sources.pins import Pin, changed_since_pinned, pin_path, read_pin, record_pin
from hubcore.sources.store import find_stored, keep, stored_path, unusable

_log = logging.getLogger("hubcore.checkpoints")
_FULL = (errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC))
_MOST = 64 << 30
_GRACE = 2.0
"""Seconds for which a lock is respected although no living process has a part of the file."""


def download(url: str, cache_dir: Path, offline: bool, progress: Progress | None = None) -> Path:
    """The cached file of a URL, downloaded if it is not there.

    What the file must be is asked of `hubcore.sources.expectations.expected`. Without a published digest, that of the
    first download is recorded and holds from then on.

    Args:
        url: `https://...`.
        cache_dir: the cache to write to; read-only layers are looked into as well.
        offline: whether the network is forbidden.
        progress: called with the bytes that are here and the bytes there will be (None if unknown); what it raises ends the
            download and leaves the part for the next one.

    Raises:
        OfflineError: it is not there and `offline` is set.
        ChecksumError: the bytes are not the published or the pinned ones.
        DownloadError: the URL is not acceptable, or the file cannot be obtained whole.
    """
    check_url(url)
    promise = expected(url)
    pin = read_pin(url, cache_dir) if promise.sha256 is None else None
    sha256 = promise.sha256 or (pin.sha256 if pin else None)

    def ready() -> Path | None:
        digest = sha256
        if digest is None:
            recorded = read_pin(url, cache_dir)
            digest = recorded.sha256 if recorded else None
        return None if digest is None else find_stored(digest, cache_dir)

    found = ready()
    if found is not None:
        return found
    if offline:
        raise OfflineError(
            f"{url} is not in the cache {cache_dir} and offline mode is on. Where there is a network, "
            f"`hubcore fetch {promise.name or url}` puts it there; HUBCORE_OFFLINE and HF_HUB_OFFLINE must be unset."
        )
    key = f"sha256-{sha256}" if sha256 else pin_path(url, cache_dir).stem
    parts = cache_dir / "parts"
    try:
        with _taking_turns(cache_dir, key, ready):
            found = ready()
            if found is not None:
                return found
            if progress is not None:
                return _fetch(url, cache_dir, key, promise, pin, progress)
            with Display("B", urlsplit(url).path.rpartition("/")[2] or url, say=_log.info, keep=True) as display:
                return _fetch(url, cache_dir, key, promise, pin, display)
    except OSError as error:
        if error.errno in _FULL:
            raise DownloadError(
                f"{url} does not fit into {parts} ({error.strerror}). What came is kept, to go on from later. "
                "Free some space or set HUBCORE_CACHE elsewhere."
            ) from error
        raise unusable(Path(error.filename) if isinstance(error.filename, str) else parts, error) from error


def most_bytes() -> int:
    """The size above which nothing is downloaded unless its card states it: `HUBCORE_MAX_DOWNLOAD`, else 64 GiB."""
    text = os.environ.get("HUBCORE_MAX_DOWNLOAD", "")
    if not text:
        return _MOST
    if not text.isdigit():
        raise OptionError(f"HUBCORE_MAX_DOWNLOAD is {text!r}. It must be a number of bytes. Correct or unset it.")
    return int(text)


def _fetch(url: str, folder: Path, key: str, promise: Expectation, pin: Pin | None, progress: Progress) -> Path:
    """Downloads the file and keeps it, if its digest is right; a wrong one is fetched a second time, from the beginning."""
    sha256 = promise.sha256 or (pin.sha256 if pin else None)
    if sha256 is not None:
        stored_path(sha256, folder)
    # A published size is part of the promise; a pinned one is not, since the new file may be announced with its own.
    limits = Limits(promise.size, most_bytes() if promise.size is None else promise.size, sha256 is not None)
    digest, wrong = "", 0
    while wrong < 2:
        with open_part(folder / "parts", key, url, checked=limits.checked) as part:
            earlier = part.size
            try:
                transfer(url, part, limits, progress)
            except NotTheFileError:
                part.discard()
                raise
            digest = part.sha256()
            if promise.size is not None and part.size != promise.size:
                part.discard()
                raise ChecksumError(
                    f"{url} has {part.size} bytes, but must have {promise.size}. It is another file. Use another source."
                )
            if sha256 in (None, digest):
                if promise.sha256 is None:
                    record_pin(url, digest, part.size, folder)
                    if pin is None:
                        _log.warning(
                            "nobody has published a SHA-256 for %s. It is %s now, and any other will be refused from here on",
                            url,
                            digest,
                        )
                return keep(part, digest, url, folder)
            # Bytes of an earlier process may be what is wrong, and do not count against the server.
            wrong += not (earlier and part.resumed_from)
            part.discard()
            if wrong < 2:
                _log.warning("%s gave SHA-256 %s instead of %s; trying again from the beginning", url, digest, sha256)
    if promise.sha256 is None and pin is not None:
        raise changed_since_pinned(pin, digest)
    raise ChecksumError(
        f"{url} has SHA-256 {digest}, but must have {sha256}. These are not the published bytes, in two downloads. "
        "Nothing was kept. Use another source; if the publisher changed the file, the card needs its new SHA-256."
    )


@contextmanager
def _taking_turns(folder: Path, key: str, ready: Callable[[], Path | None]) -> Iterator[None]:
    """Waits while another process downloads the same file; gives up waiting where that cannot be known."""
    import filelock

    locks, parts = folder / "locks", folder / "parts"
    locks.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(str(locks / f"{key}.lock"))
    quiet_since, waited = time.monotonic(), False
    while True:
        try:
            lock.acquire(timeout=0)
            break
        except filelock.Timeout:
            if is_being_fetched(parts, key):
                quiet_since = time.monotonic()
            if not waited:
                _log.info("another process is downloading this file; waiting for it")
                waited = True
            # A lock whose holder died may live on in a child that was forked from it.
            if time.monotonic() - quiet_since > _GRACE or ready() is not None:
                break
            time.sleep(0.05)
        except (OSError, NotImplementedError) as error:
            if getattr(error, "errno", None) in (errno.EACCES, errno.EROFS, errno.EPERM, *_FULL):
                raise
            _log.info("files cannot be locked in %s (%s)", locks, error)  # some network file systems cannot
            break
    try:
        yield
    finally:
        lock.release()
