"""Asks servers whether a source can be fetched, without fetching it whole. Imports no torch."""

from __future__ import annotations

from hubcore.card import Source
from hubcore.errors import DownloadError
from hubcore.sources.folders import cache_dir
from hubcore.sources.schemes import scheme_of


def is_link(source: Source) -> bool:
    """True if a source is an address that can be asked without a plugin: `https://` or `hf://`.

    Example:
        >>> is_link(Source("hf://org/repo/model.pt")), is_link(Source("weights/model.pt"))
        (True, False)
    """
    return scheme_of(source.uri).can_ask


def why_dead(source: Source) -> str | None:
    """The reason for which a link does not give its file now, in a sentence; None if it does.

    A server that announces another size, or the hub another hash, than the source promises counts as dead.
    """
    try:
        scheme_of(source.uri).ask(source, cache_dir())
    except DownloadError as error:
        return str(error)
    return None
