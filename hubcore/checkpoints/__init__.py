"""Where checkpoints come from and how they are read: sources, downloads, safe readers, layouts.

`resolve` turns a source into a file on this machine; `open_checkpoint` reads one of any layout; a plugin turns it into
weights with a table of `Rename` rows. Importing this package imports no torch until a name that needs it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hubcore.lazy import lazy_exports

if TYPE_CHECKING:
    from hubcore.checkpoints.layouts import Checkpoint, Rename, TensorInfo, check_names, open_checkpoint, rename
    from hubcore.checkpoints.native import write_native
    from hubcore.checkpoints.report import LoadReport
    from hubcore.sources.resolve import cache_dir, fetch_card, file_sha256, find_cached, is_offline, resolve

_MODULE_OF = {
    "Checkpoint": "layouts",
    "LoadReport": "report",
    "Rename": "layouts",
    "TensorInfo": "layouts",
    "cache_dir": "sources",
    "check_names": "layouts",
    "fetch_card": "sources",
    "file_sha256": "sources",
    "find_cached": "sources",
    "is_offline": "sources",
    "open_checkpoint": "layouts",
    "rename": "layouts",
    "resolve": "sources",
    "write_native": "native",
}

__all__ = [
    "Checkpoint",
    "LoadReport",
    "Rename",
    "TensorInfo",
    "cache_dir",
    "check_names",
    "fetch_card",
    "file_sha256",
    "find_cached",
    "is_offline",
    "open_checkpoint",
    "rename",
    "resolve",
    "write_native",
]

__getattr__, __dir__ = lazy_exports(__name__, _MODULE_OF)
