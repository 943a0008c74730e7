"""From a file to weights: layouts, names, safe readers of file formats.

`open_checkpoint` reads a file of any layout; a family's `Reader` turns it into a model with weights by its table of `Names`.
Importing this package imports no torch until a name that needs it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hubcore.lazy import lazy_exports

if TYPE_CHECKING:
    from hubcore.checkpoints.encoder_names import CONFORMER_NAMES as CONFORMER_NAMES
    from hubcore.checkpoints.encoder_names import ENCODER_NAMES as ENCODER_NAMES
    from hubcore.checkpoints.encoder_names import FRONT_NAMES as FRONT_NAMES
    from hubcore.checkpoints.layouts import Checkpoint as Checkpoint
    from hubcore.checkpoints.layouts import Layout as Layout
    from hubcore.checkpoints.layouts import TensorInfo as TensorInfo
    from hubcore.checkpoints.layouts import open_checkpoint as open_checkpoint
    from hubcore.checkpoints.names import Name as Name
    from hubcore.checkpoints.names import Names as Names
    from hubcore.checkpoints.names import Turn as Turn
    from hubcore.checkpoints.native import write_native as write_native
    from hubcore.checkpoints.report import LoadReport as LoadReport
    from hubcore.checkpoints.weights import Loaded as Loaded
    from hubcore.checkpoints.weights import Reader as Reader
    from hubcore.checkpoints.weights import encoder_values as encoder_values

__getattr__, __dir__ = lazy_exports(__name__)
