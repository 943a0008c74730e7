"""Discrete units of speech: the number of the nearest centroid of each frame.

`fit` makes a `Codebook` from `AudioFrames` or `FolderFrames`, `apply` writes the units of a corpus, and `load` reads a codebook
back: `load(path)(out)` gives the units of an upstream's output. `read_units` and `write_units` are for files of units. `score`
compares units with a phone alignment of `read_alignment`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hubcore.lazy import lazy_exports

if TYPE_CHECKING:
    from hubcore.units.alignment import Alignment as Alignment
    from hubcore.units.alignment import read_alignment as read_alignment
    from hubcore.units.applying import Applied as Applied
    from hubcore.units.applying import apply as apply
    from hubcore.units.codebook import Codebook as Codebook
    from hubcore.units.codebook import load as load
    from hubcore.units.codebook import record_of as record_of
    from hubcore.units.files import Units as Units
    from hubcore.units.files import read_units as read_units
    from hubcore.units.files import write_units as write_units
    from hubcore.units.fitting import Fitted as Fitted
    from hubcore.units.fitting import fit as fit
    from hubcore.units.foreign import import_codebook as import_codebook
    from hubcore.units.foreign import read_centroids as read_centroids
    from hubcore.units.frames import AudioFrames as AudioFrames
    from hubcore.units.frames import FolderFrames as FolderFrames
    from hubcore.units.scoring import Score as Score
    from hubcore.units.scoring import score as score

__getattr__, __dir__ = lazy_exports(__name__)
