"""Everything that is cached, with the names it goes by; checking and removing it. Imports no torch."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import time
from collections.abc import Iterator
from pathlib import Path

from hubcore.card import Card, Source
from hubcore.errors import DownloadError
from hubcore.hookspecs import Expectation
from hubcore.sources.folders import cache_dir, read_only_caches
from hubcore.sources.hub.cache import blob_of, hf_cache_dir, orphans, remove, why_wrong
from hubcore.sources.locks import is_locked, last_written
from hubcore.sources.pins import all_pins, forget_pins, read_pin
from hubcore.sources.schemes import scheme_of
from hubcore.sources.stamps import stamp_path, stamp_record
from hubcore.sources.store import all_stored, is_intact, stored_path, unusable
from hubcore.text import redacted


@dataclasses.dataclass(frozen=True)
class CacheItem:
    """One cached file."""

    path: Path
    """Path of the file."""
    size: int
    """Bytes."""
    sha256: str | None
    """The digest in its name; None for a file of the hub that is not in LFS."""
    names: tuple[str, ...]
    """Cards that use it."""
    uris: tuple[str, ...]
    """Addresses that it was downloaded from, as far as they are recorded."""
    writable: bool
    """True if it may be removed: it is not in a read-only cache."""

    @property
    def label(self) -> str:
        """Name to show: its card, else its address, else its path."""
        return next(iter((*self.names, *self.uris)), str(self.path))

    @property
    def is_stored(self) -> bool:
        """True if it lies in hubcore's own store, under its digest."""
        return self.path.parent.name == "files"

    def to_dict(self) -> dict[str, object]:
        """Plain data, for JSON."""
        return {**dataclasses.asdict(self), "path": str(self.path)}


def cache_items() -> list[CacheItem]:
    """Every file in the cache and its read-only layers, and those of the hub's cache that cards name. No file is read."""
    return sorted((*_stored_items(), *_named_items()), key=lambda item: (item.label, str(item.path)))


def _stored_items() -> Iterator[CacheItem]:
    """The files of hubcore's own store."""
    cards = _cards()
    pins = [pin for cache in (cache_dir(), *read_only_caches()) for pin in all_pins(cache)]
    for path, sha256 in all_stored():
        uris = {pin.uri for pin in pins if pin.sha256 == sha256}
        uris |= {source.uri for card in cards for source in card.sources if source.sha256 == sha256}
        stamped = str(stamp_record(stamp_path(path)).get("uri", ""))
        uris |= {stamped} if "://" in stamped else set()
        names = {card.name for card in cards for source in card.sources if {source.uri, redacted(source.uri)} & uris}
        yield _item(path, sha256, names, uris)


def _named_items() -> Iterator[CacheItem]:
    """The files outside of the store that cards name."""
    found: dict[Path, tuple[set[str], set[str]]] = {}
    for card in _cards():
        for source in card.sources:
            for path in filter(Path.is_file, _find(source.uri)):
                names, uris = found.setdefault(path, (set(), set()))
                names.add(card.name)
                uris.add(source.uri)
    for path, (names, uris) in found.items():
        blob = blob_of(path)
        yield _item(path, blob.name if blob is not None and len(blob.name) == 64 else None, names, uris)


def _item(path: Path, sha256: str | None, names: set[str], uris: set[str]) -> CacheItem:
    writable = not any(layer in path.parents for layer in read_only_caches())
    return CacheItem(path, path.stat().st_size, sha256, tuple(sorted(names)), tuple(sorted(uris)), writable)


def _find(uri: str) -> list[Path]:
    try:
        return scheme_of(uri).find(uri)
    except DownloadError:
        return []  # malformed


def find_present(card: Card) -> tuple[Path, int] | None:
    """The first file or folder of a card that is on this machine, and its bytes. It is not read, and no plugin is asked."""
    for path in itertools.chain.from_iterable(_present(source, card) for source in card.sources):
        with contextlib.suppress(OSError):
            files = [file for file in path.iterdir() if file.is_file()] if path.is_dir() else [path]
            return path, sum(file.stat().st_size for file in files)
    return None


def _present(source: Source, card: Card) -> list[Path]:
    if "://" not in source.uri:
        path = Path(card.file or "").parent / source.uri
        return [path] if path.exists() else []
    if not scheme_of(source.uri).remote:
        with contextlib.suppress(DownloadError):
            return [scheme_of(source.uri).fetch(source.uri, cache_dir(), True, Expectation())]
        return []
    pin = None if source.sha256 else read_pin(source.uri)
    digest = source.sha256 or (pin.sha256 if pin else None)
    stored = [stored_path(digest, cache) for cache in (cache_dir(), *read_only_caches())] if digest else []
    return [*(path for path in stored if path.is_file()), *_find(source.uri)]


def _cards() -> list[Card]:
    from hubcore.registry.names import current_registry

    return [entry.card for entry in current_registry().entries if entry.card is not None]


def matches(item: CacheItem, target: str) -> bool:
    """True if a card's name, an address, or a digest (its first 8 digits or more) means this file."""
    digest = target.removeprefix("sha256-")
    by_digest = len(digest) >= 8 and item.sha256 is not None and item.sha256.startswith(digest)
    return target in item.names or target in item.uris or redacted(target) in item.uris or by_digest


def what_is_wrong(item: CacheItem) -> str | None:
    """The fault of a file, after reading every byte of it; None if it is intact."""
    if item.is_stored and item.sha256 is not None:
        return None if is_intact(item.path, item.sha256) else "its bytes do not have the SHA-256 in its name"
    return why_wrong(item.path, None, every_byte=True)


def remove_target(target: str) -> list[Path]:
    """Removes the files that a name, an address or a digest means, and their pins; gives the paths removed.

    Raises:
        DownloadError: the cache cannot be written.
    """
    removed = []
    cards = _cards()
    target = next((card.name for card in cards if target in card.aliases), target)
    uris = {target} if "://" in target else set()
    try:
        for item in cache_items():
            if not item.writable or not matches(item, target):
                continue
            uris |= set(item.uris)
            stamp_path(item.path).unlink(missing_ok=True)
            if item.is_stored:
                item.path.unlink(missing_ok=True)
            else:
                remove(item.path)
            removed.append(item.path)
        uris |= {source.uri for card in cards if card.name == target for source in card.sources}
        removed += forget_pins(uris, cache_dir())
    except OSError as error:
        raise unusable(Path(error.filename or cache_dir()), error) from error
    return removed


def partial_files() -> list[Path]:
    """Partial downloads, finished or not."""
    return sorted((cache_dir() / "parts").glob("*.part"))


def garbage(older_than: float) -> list[Path]:
    """Files that nobody needs: old partial downloads that no process is working on, and stamps of files that are gone.

    Old is what was written more than `older_than` seconds ago.
    """
    limit = time.time() - older_than
    old = [path for path in partial_files() if last_written(path) <= limit]
    found = {path for path in old if not is_locked(path.name.partition(".")[0], cache_dir())}
    sidecars = {path: path.with_suffix("") for path in (cache_dir() / "parts").glob("*.part.json")}
    found |= {path for path, part in sidecars.items() if part in found or (not part.exists() and last_written(path) <= limit)}
    for cache in {hf_cache_dir(), cache_dir() / "hub"}:
        found |= set(orphans(cache, older_than))
    for stamp in (cache_dir() / "stamps").glob("*.json"):
        path = stamp_record(stamp).get("path")
        if not isinstance(path, str) or not Path(path).exists():
            found.add(stamp)
    return sorted(found)
