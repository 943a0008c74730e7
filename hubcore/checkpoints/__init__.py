"""From a file to weights: layouts, names, safe readers of file formats.

`open_checkpoint` reads a file of any layout; a plugin turns it into weights with its table of names. Importing this
package imports no torch until a name that needs it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hubcore.lazy import lazy_exports

if TYPE_CHECKING:
    from hubcore.checkpoints.layouts import Checkpoint, Rename, TensorInfo, check_names, open_checkpoint, rename
    from hubcore.checkpoints.native import write_native
    from hubcore.checkpoints.report import LoadReport

_MODULE_OF = {
    "Checkpoint": "layouts",
    "LoadReport": "report",
    "Rename": "layouts",
    "TensorInfo": "layouts",
    "check_names": "layouts",
    "open_checkpoint": "layouts",
    "rename": "layouts",
    "write_native": "native",
}

__all__ = [
    "Checkpoint",
    "LoadReport",
    "Rename",
    "TensorInfo",
    "check_names",
    "open_checkpoint",
    "rename",
    "write_native",
]

__getattr__, __dir__ = lazy_exports(__name__, _MODULE_OF)
