"""From a file to weights: layouts, names, safe readers of file formats.

`open_checkpoint` reads a file of any layout; a plugin turns it into weights with its table of names. Importing this
package imports no torch until a name that needs it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hubcore.lazy import lazy_exports

if TYPE_CHECKING:
    from hubcore.checkpoints.layouts import Checkpoint as Checkpoint
    from hubcore.checkpoints.layouts import Rename as Rename
    from hubcore.checkpoints.layouts import TensorInfo as TensorInfo
    from hubcore.checkpoints.layouts import check_names as check_names
    from hubcore.checkpoints.layouts import open_checkpoint as open_checkpoint
    from hubcore.checkpoints.layouts import rename as rename
    from hubcore.checkpoints.native import write_native as write_native
    from hubcore.checkpoints.report import LoadReport as LoadReport

__getattr__, __dir__ = lazy_exports(__name__)
