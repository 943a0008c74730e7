"""What of the cached files belongs to which card, and copying it to another cache, for machines without a network."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from hubcore.card import Card, Source
from hubcore.errors import DownloadError, HubcoreError
from hubcore.files import write_whole
from hubcore.sources.hub.cache import hf_caches, repo_folder, seed, snapshot
from hubcore.sources.hub.hugging_face import parse_hub_uri
from hubcore.sources.pins import read_pin, record_pin
from hubcore.sources.resolve import find_cached
from hubcore.sources.stamps import file_sha256
from hubcore.sources.store import stored_path


@dataclass(frozen=True)
class CachedSource:
    """One source of a card that is on this machine."""

    name: str
    """The card's name, or the URI where a user gave that."""
    source: Source
    path: Path
    """A file, or the folder of a whole model."""


def cached_source(sources: tuple[Source, ...], card: Card | None, name: str) -> CachedSource | None:
    """The first of the sources that is here and intact."""
    for source in sources:
        path = find_cached(source, card)
        if path is not None:
            return CachedSource(name, source, path)
    return None


def copy_to_cache(cached: CachedSource, folder: Path) -> Path | None:
    """Copies a source's file into the cache `folder`, so that it is found there by its card or URI.

    Returns:
        The copy; None if the file needs none, because it comes with a package or a registry file.

    Raises:
        DownloadError: it cannot be copied, or only the plugin that fetched it knows where it must be.
    """
    source = cached.source
    try:
        if source.uri.startswith("hf://"):
            copy = _copy_hub(source.uri, cached.path, folder)
        elif source.uri.startswith(("https://", "http://")):
            copy = _copy_stored(cached.path, folder)
        elif "://" not in source.uri or source.uri.startswith("package://"):
            return None
        else:
            raise DownloadError(f"{source.uri} is kept by the plugin that fetched it. Only that can copy it. See its manual.")
        if source.sha256 is None and cached.path.is_file() and (read_pin(source.uri) or cached.name != source.uri):
            record_pin(source.uri, file_sha256(cached.path), cached.path.stat().st_size, folder)
    except OSError as error:
        raise DownloadError(f"{folder} cannot be written ({error}). Choose another folder, or make room.") from error
    return copy


def _copy_stored(path: Path, folder: Path) -> Path:
    digest = file_sha256(path)
    target = stored_path(digest, folder)
    if target.is_file() and file_sha256(target) == digest:
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with write_whole(target) as temporary:
        shutil.copyfile(path, temporary)
    return target


def _copy_hub(uri: str, path: Path, folder: Path) -> Path:
    file = parse_hub_uri(uri)
    for cache in hf_caches():
        root = repo_folder(file.repo, cache) / "snapshots"
        if root in path.parents:
            files = [path] if path.is_file() else sorted(item for item in path.rglob("*") if item.is_file())
            for item in files:
                copy = seed(item, file.repo, file.revision, cache, folder / "hub")
            return copy if path.is_file() else folder / "hub" / path.relative_to(cache)
    raise DownloadError(f"{path} is in no cache of the hub. It cannot be copied. Fetch {uri} first.")


def hub_files(card: Card) -> list[tuple[Source, Path]]:
    """The cached files that a card's sources on the hub name, intact or not; no byte of them is read."""
    found = []
    for source in card.sources:
        try:
            file = parse_hub_uri(source.uri) if source.uri.startswith("hf://") else None
        except HubcoreError:
            continue
        for cache in hf_caches() if file is not None else ():
            path = snapshot(file.repo, file.name, file.revision, cache) if file and file.name else None
            if path is not None:
                found.append((source, path))
    return found
