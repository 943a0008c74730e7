"""`s3prl.util.download` on hubcore's cache. Imports no torch."""

from __future__ import annotations

import os
import time
from pathlib import Path

from hubcore.card import Card
from hubcore.errors import OfflineError
from hubcore.sources.folders import cache_dir, is_offline
from hubcore.sources.resolve import resolve

_NEW_ENOUGH_S = 60.0


def set_dir(folder: str | os.PathLike[str]) -> None:
    """Makes a folder the cache of this process and of those that it starts: `HUBCORE_CACHE` is set to it.

    Files of the Hugging Face Hub stay in that library's own cache, which `HF_HOME` moves.

    Example:
        >>> import os, tempfile
        >>> before = os.environ.get("HUBCORE_CACHE", "")
        >>> set_dir(tempfile.mkdtemp())
        >>> os.environ["HUBCORE_CACHE"] == before
        False
        >>> os.environ["HUBCORE_CACHE"] = before
    """
    # Absolute, since a recipe may change its working folder between this and the download.
    os.environ["HUBCORE_CACHE"] = os.path.abspath(os.path.expanduser(folder))


def get_dir() -> Path:
    """The folder that downloads go to, made if it is not there."""
    folder = cache_dir()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def urls_to_filepaths(*urls: str, refresh: bool = False) -> str | list[str]:
    """The local file of each address, downloaded if need be: a list, or one path for one address.

    Raises:
        DownloadError: one cannot be obtained.
    """
    if refresh:
        for url in urls:
            forget(url)
    paths = [str(resolve(url)) for url in urls]
    return paths[0] if len(paths) == 1 else paths


def forget(source: str | Card) -> None:
    """Removes what was downloaded for a card or an address, pins included, so that the next use downloads it again.

    Nothing is removed that another process fetched within the last minute: of the processes of one training run that all
    ask for a fresh file, one downloads it and the others use that. A path is left alone, and so is an `hf://` address that
    no card has: the hub is asked at each use whether it changed.

    Raises:
        OfflineError: it could not be downloaded again.
        DownloadError: the cache cannot be written.
    """
    from hubcore.sources.inventory import cache_items, matches, remove_target
    from hubcore.sources.schemes import scheme_of

    target = source if isinstance(source, str) else source.name
    uris = [source] if isinstance(source, str) else [each.uri for each in source.sources]
    if not any(scheme_of(uri).can_ask for uri in uris):
        return
    if is_offline():
        raise OfflineError(
            f"refresh=True asks for {target} to be downloaded again, but offline mode is on. The cached file was kept. "
            "Leave refresh out, or unset HUBCORE_OFFLINE and HF_HUB_OFFLINE."
        )
    written = [item.path.stat().st_mtime for item in cache_items() if matches(item, target)]
    if not written or time.time() - max(written) > _NEW_ENOUGH_S:
        remove_target(target)
