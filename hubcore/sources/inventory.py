"""Everything that is cached, with the names it goes by; checking and removing it. Imports no torch."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path

from hubcore.card import Card
from hubcore.sources.folders import cache_dir, read_only_caches
from hubcore.sources.https.parts import abandoned_parts, is_owned
from hubcore.sources.hub.cache import blob_of, hf_cache_dir, orphans, remove, why_wrong
from hubcore.sources.pins import all_pins, forget_pin, pin_path
from hubcore.sources.seeding import hub_files
from hubcore.sources.stamps import stamp_path
from hubcore.sources.store import Stored, all_stored, is_intact, unusable


@dataclasses.dataclass(frozen=True)
class CacheItem:
    """One cached file."""

    path: Path
    """Where it is."""
    size: int
    """Bytes."""
    sha256: str | None
    """The digest in its name; None for a file of the hub that is not in LFS."""
    names: tuple[str, ...]
    """Cards that use it."""
    uris: tuple[str, ...]
    """Addresses that it came from, as far as they are recorded."""
    writable: bool
    """Whether it may be removed: it is not in a read-only layer."""

    @property
    def label(self) -> str:
        """What to call it: its card, else its address, else its path."""
        return next(iter((*self.names, *self.uris)), str(self.path))

    def to_dict(self) -> dict[str, object]:
        """Plain data, for JSON."""
        return {**dataclasses.asdict(self), "path": str(self.path)}


def cache_items() -> list[CacheItem]:
    """Every file in the cache and its layers, and those of the hub's cache that cards name. No file is read."""
    cards = _cards()
    pins = [pin for cache in (cache_dir(), *read_only_caches()) for pin in all_pins(cache)]
    items = []
    for stored in all_stored():
        uris = {pin.uri for pin in pins if pin.sha256 == stored.sha256}
        uris |= {source.uri for card in cards for source in card.sources if source.sha256 == stored.sha256}
        stamped = _stamped_uri(stored)
        uris |= {stamped} if stamped else set()
        names = {card.name for card in cards for source in card.sources if source.uri in uris}
        items.append(
            CacheItem(stored.path, stored.size, stored.sha256, tuple(sorted(names)), tuple(sorted(uris)), stored.writable)
        )
    found: dict[Path, tuple[set[str], set[str]]] = {}
    for card in cards:
        for source, path in hub_files(card):
            names, uris = found.setdefault(path, (set(), set()))
            names.add(card.name)
            uris.add(source.uri)
    for path, (names, uris) in found.items():
        blob = blob_of(path)
        digest = blob.name if blob is not None and len(blob.name) == 64 else None
        writable = not any(layer in path.parents for layer in read_only_caches())
        items.append(CacheItem(path, path.stat().st_size, digest, tuple(sorted(names)), tuple(sorted(uris)), writable))
    return sorted(items, key=lambda item: (item.label, str(item.path)))


def matches(item: CacheItem, target: str) -> bool:
    """Whether a card's name, an address, or a digest (its first 8 digits or more) means this file."""
    digest = target.removeprefix("sha256-")
    by_digest = len(digest) >= 8 and item.sha256 is not None and item.sha256.startswith(digest)
    return target in item.names or target in item.uris or by_digest


def what_is_wrong(item: CacheItem) -> str | None:
    """What is wrong with a file after reading every byte of it; None if it is intact."""
    if item.path.parent.name == "files" and item.sha256 is not None:
        stored = Stored(item.path, item.sha256, item.size, item.writable)
        return None if is_intact(stored) else "its bytes do not have the SHA-256 in its name"
    return why_wrong(item.path, None, every_byte=True)


def remove_target(target: str) -> list[Path]:
    """Removes the files that a name, an address or a digest means, and their pins; what was removed.

    Raises:
        DownloadError: the cache cannot be written.
    """
    removed = []
    aliases = {alias: card.name for card in _cards() for alias in card.aliases}
    target = aliases.get(target, target)
    uris = {target} if "://" in target else set()
    try:
        for item in cache_items():
            if not item.writable or not matches(item, target):
                continue
            uris |= set(item.uris)
            stamp_path(item.path).unlink(missing_ok=True)
            if item.path.parent.name == "files":
                item.path.unlink(missing_ok=True)
            else:
                remove(item.path)
            removed.append(item.path)
        uris |= {source.uri for card in _cards() if card.name == target for source in card.sources}
        removed += [pin_path(uri, cache_dir()) for uri in sorted(uris) if forget_pin(uri)]
    except OSError as error:
        raise unusable(Path(error.filename or cache_dir()), error) from error
    return removed


def partial_files() -> list[Path]:
    """Partial downloads of hubcore, whoever they belong to."""
    return sorted((cache_dir() / "parts").glob("*.part"))


def garbage(older_than: float) -> list[Path]:
    """What nobody will use any more: parts of dead processes, the hub's partial files, stamps and copies of lost files.

    Args:
        older_than: seconds since the last write.
    """
    limit = time.time() - older_than
    parts = cache_dir() / "parts"
    found = [path for path in abandoned_parts(parts) if _written(path) <= limit and not is_owned(path, None)]
    found += [path.with_name(path.name + ".json") for path in found if path.with_name(path.name + ".json").exists()]
    for cache in {hf_cache_dir(), cache_dir() / "hub"}:
        found += orphans(cache, older_than)
    for stamp in sorted((cache_dir() / "stamps").glob("*.json")):
        try:
            gone = not Path(json.loads(stamp.read_text(encoding="utf-8"))["path"]).exists()
        except (OSError, ValueError, KeyError, TypeError):
            gone = True
        if gone:
            found.append(stamp)
    return sorted({*found, *_stale_copies(cache_dir() / "converted", limit)})


def _stale_copies(folder: Path, limit: float) -> list[Path]:
    """Converted copies whose source is gone, and what killed writers left."""
    found = [path for path in folder.glob(".*") if _written(path) <= limit]
    for about in folder.glob("[!.]*.json"):
        try:
            gone = not Path(json.loads(about.read_text(encoding="utf-8"))["report"]["source"]).exists()
        except (OSError, ValueError, KeyError, TypeError):
            gone = True
        if gone:
            found += [about, about.with_suffix(".safetensors")]
    return found


def _written(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _stamped_uri(stored: Stored) -> str | None:
    try:
        uri = json.loads(stamp_path(stored.path).read_text(encoding="utf-8"))["uri"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return uri if isinstance(uri, str) and "://" in uri else None


def _cards() -> list[Card]:
    from hubcore.registry.names import current_registry

    return [entry.card for entry in current_registry().entries if entry.card is not None]
