"""Discrete units of speech: the number of the nearest centroid of each frame.

`read_units` and `write_units` are for files of them. `score` compares them with a phone alignment of `read_alignment`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hubcore.lazy import lazy_exports

if TYPE_CHECKING:
    from hubcore.units.alignment import Alignment as Alignment
    from hubcore.units.alignment import read_alignment as read_alignment
    from hubcore.units.files import Units as Units
    from hubcore.units.files import read_units as read_units
    from hubcore.units.files import write_units as write_units
    from hubcore.units.foreign import read_centroids as read_centroids
    from hubcore.units.scoring import Score as Score
    from hubcore.units.scoring import score as score

__getattr__, __dir__ = lazy_exports(__name__)
