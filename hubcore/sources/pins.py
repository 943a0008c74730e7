"""Pins: the digest that an address had at its first download, so that a later change is noticed. Imports no torch."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import re
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path

from hubcore.errors import ChecksumError
from hubcore.files import parse_json, read_small, write_whole
from hubcore.sources.folders import cache_dir, read_only_caches
from hubcore.text import logger, redacted

_log = logger("checkpoints")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Pin:
    """The file that an address gave when it was first downloaded."""

    uri: str
    """The address, `redacted`: others may read this record."""
    sha256: str
    """64 hex digits of the file."""
    size: int
    """Its bytes."""
    recorded: str
    """When, in UTC, as ISO 8601."""


def address_key(uri: str) -> str:
    """The name under which the pin, the lock and the partial download of an address lie; no part of the address is in it."""
    return f"url-{hashlib.sha256(uri.encode(errors='surrogateescape')).hexdigest()}"


def pin_path(uri: str, folder: Path) -> Path:
    """Path of an address's pin in the cache `folder`."""
    return folder / "pins" / f"{address_key(uri)}.json"


def read_pin(uri: str, folder: Path | None = None) -> Pin | None:
    """The pin of an address: that of the cache (`HUBCORE_CACHE` if None), else of the first read-only cache that has one."""
    for cache in (folder or cache_dir(), *read_only_caches()):
        pin = parse_pin(pin_path(uri, cache))
        if pin is not None and pin.uri == redacted(uri):
            return pin
    return None


def parse_pin(path: Path) -> Pin | None:
    """The pin in a file; None if there is none or it is damaged."""
    try:
        record = parse_json(read_small(path, 1 << 16))
        pin = Pin(redacted(str(record["uri"])), str(record["sha256"]), int(record["size"]), str(record["recorded"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, OverflowError) as error:
        _log.warning("the pin %s is damaged (%s) and was ignored; the next download records a new one", path, error)
        return None
    return pin if _SHA256.fullmatch(pin.sha256) else None


def all_pins(folder: Path) -> list[Pin]:
    """Every pin of one cache, by address."""
    found = (parse_pin(path) for path in sorted((folder / "pins").glob("url-*.json")))
    return sorted((pin for pin in found if pin is not None), key=lambda pin: pin.uri)


def record_pin(uri: str, sha256: str, size: int, folder: Path | None = None) -> None:
    """Records what an address gave, or checks it against what was recorded first.

    Raises:
        ChecksumError: the address gave something else at its first download.
        OSError: the cache cannot be written.
    """
    folder = folder or cache_dir()
    pin = read_pin(uri, folder)
    if pin is None:
        path = pin_path(uri, folder)
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and parse_pin(path) is None:
            path.unlink()  # damaged: a pin that another process has just made is whole
        new = Pin(redacted(uri), sha256, size, dt.datetime.now(dt.timezone.utc).isoformat(timespec="seconds"))
        try:
            with write_whole(path, replace=False) as temporary:
                temporary.write_text(json.dumps(asdict(new), indent=1) + "\n", encoding="utf-8")
        except FileExistsError:  # another process was faster
            pin = parse_pin(path)
    if pin is not None and pin.sha256 != sha256:
        raise changed_since_pinned(pin, sha256)


def forget_pins(uris: Collection[str], folder: Path) -> list[Path]:
    """Removes the pins of some addresses, `redacted` or not, from a cache; gives those that there were."""
    shown = {redacted(uri) for uri in uris}
    pins = {path: parse_pin(path) for path in sorted((folder / "pins").glob("url-*.json"))}
    known = {pin_path(uri, folder) for uri in uris}
    found = [path for path, pin in pins.items() if path in known or (pin is not None and pin.uri in shown)]
    for path in found:
        path.unlink(missing_ok=True)
    return found


def changed_since_pinned(pin: Pin, sha256: str) -> ChecksumError:
    """The error for an address whose file is not the one that was downloaded first."""
    return ChecksumError(
        f"{pin.uri} gives SHA-256 {sha256} now, but gave {pin.sha256} at its first download here ({pin.recorded}). Its "
        "publisher or somebody on the way changed the file; no published checksum says which file is right.",
        f"To accept the new file, run `hubcore cache rm '{pin.uri}'` and fetch again; `hubcore registry pin FILE` then writes "
        "its checksum into your card, for everybody who uses it.",
        found=sha256,
    )
