"""`taking_turns`: one process at a time fetches an address. Imports no torch."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

from hubcore.sources.pins import address_key
from hubcore.text import logger

_log = logger("checkpoints")
PATIENCE = 150.0
"""Seconds without progress of the partial download after which nobody waits for it any longer."""


@contextlib.contextmanager
def taking_turns(uri: str, cache: Path) -> Iterator[bool]:
    """Waits while another process fetches the same address.

    Yields:
        Whether a lock is held, so that nobody else writes to the partial download of this address. False where files cannot
        be locked, or where the process that holds the lock hangs.
    """
    import filelock

    key = address_key(uri)
    lock = filelock.FileLock(str(lock_path(key, cache)))
    seen, since = 0.0, time.monotonic()
    held = False
    try:
        lock_path(key, cache).parent.mkdir(parents=True, exist_ok=True)
        while not held and time.monotonic() - since < PATIENCE:
            try:
                lock.acquire(timeout=0)
                held = True
            except filelock.Timeout:
                written = last_written(cache / "parts" / f"{key}.part")
                if written != seen:
                    seen, since = written, time.monotonic()
                time.sleep(0.05)
    except (OSError, NotImplementedError) as error:  # a read-only cache, or a network file system without locks
        _log.info("files cannot be locked in %s (%s)", cache / "locks", error)
    try:
        yield held and is_locked(key, cache)  # a lock that can be taken twice is none
    finally:
        lock.release()


def lock_path(key: str, cache: Path) -> Path:
    """The lock of an address, by its key."""
    return cache / "locks" / f"{key}.lock"


def is_locked(key: str, cache: Path) -> bool:
    """True if this process or another one holds the lock of a key."""
    import filelock

    if not lock_path(key, cache).exists():
        return False
    try:
        with filelock.FileLock(str(lock_path(key, cache)), timeout=0):
            return False
    except filelock.Timeout:
        return True
    except (OSError, NotImplementedError):
        return False


def last_written(path: Path) -> float:
    """When a file was last written to, in seconds; 0 if it is not there."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
