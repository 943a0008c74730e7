"""Folders of downloads, and offline mode: read from the environment at each call. Imports no torch."""

from __future__ import annotations

import os
from pathlib import Path

from hubcore.errors import OptionError

_TRUE = ("1", "true", "yes", "on")


def cache_dir() -> Path:
    """The folder for downloads: `HUBCORE_CACHE`, or `$XDG_CACHE_HOME/hubcore`, or `~/.cache/hubcore`, read at each call.

    Raises:
        OptionError: none of them is set, and the home folder is unknown.
    """
    own, base = os.environ.get("HUBCORE_CACHE"), os.environ.get("XDG_CACHE_HOME")
    try:
        if own:
            return Path(own).expanduser()
        return Path(base).expanduser() / "hubcore" if base else Path.home() / ".cache" / "hubcore"
    except RuntimeError as error:
        raise OptionError(
            f"the folder for downloads is not known: {error} There must be a home folder, or a full path in HUBCORE_CACHE. "
            "Set HUBCORE_CACHE=/some/folder."
        ) from error


def read_only_caches() -> tuple[Path, ...]:
    """Caches that are looked into and never written: the folders in `HUBCORE_CACHE_READONLY`, in their order."""
    listed = os.environ.get("HUBCORE_CACHE_READONLY", "").split(os.pathsep)
    return tuple(Path(os.path.expanduser(text)) for text in listed if text)


def is_offline() -> bool:
    """True if `HUBCORE_OFFLINE` or `HF_HUB_OFFLINE` forbids downloads, read at each call."""
    return any(os.environ.get(name, "").lower() in _TRUE for name in ("HUBCORE_OFFLINE", "HF_HUB_OFFLINE"))
