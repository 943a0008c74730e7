"""Acme's file server as a URI scheme: `acme://NAME` is a file in the folder that `ACME_STORE` names."""

from __future__ import annotations

import os
from pathlib import Path

from hubcore import hookimpl
from hubcore.errors import DownloadError

SCHEME = "acme://"


@hookimpl
def hubcore_fetch(uri: str) -> Path | None:
    """The file behind an `acme://` URI; None for any other."""
    if not uri.startswith(SCHEME):
        return None
    store = os.environ.get("ACME_STORE")
    if not store:
        raise DownloadError(f"{uri} cannot be had: ACME_STORE is not set. It names the folder of the file server. Set it.")
    path = Path(store, uri.removeprefix(SCHEME)).resolve()
    if not path.is_relative_to(Path(store).resolve()) or not path.is_file():
        raise DownloadError(f"{uri} is not on the file server ({store}). Ask its keeper, or correct the card.")
    return path
