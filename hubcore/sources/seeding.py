"""Copying what is cached for a card into another cache, for machines without a network. Imports no torch."""

from __future__ import annotations

from pathlib import Path

from hubcore.card import Card, Source
from hubcore.errors import DownloadError
from hubcore.sources.pins import record_pin
from hubcore.sources.resolve import find_source, is_pinned
from hubcore.sources.schemes import scheme_of
from hubcore.sources.stamps import file_sha256


def copy_to_cache(sources: tuple[Source, ...], card: Card | None, folder: Path) -> Path | None:
    """Copies the first cached one of some sources into the cache `folder`, so that it is found there by its card or address.

    Returns:
        The copy; None if none is cached, or it comes with a package or a registry file.

    Raises:
        DownloadError: it cannot be copied, or only the plugin that fetched it knows where it must be.
    """
    found = find_source(sources, card)
    if found is None or "://" not in found[0].uri:
        return None
    source, path = found
    try:
        copy = scheme_of(source.uri).copy(source.uri, path, folder)
        if path.is_file() and is_pinned(source, card):
            record_pin(source.uri, file_sha256(path), path.stat().st_size, folder)
    except OSError as error:
        raise DownloadError(f"{folder} cannot be written ({error}).", "Choose another folder, or make room.") from error
    return copy
