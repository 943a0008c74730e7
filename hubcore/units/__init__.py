"""Discrete units of speech: the number of the nearest centroid of each frame.

`read_units` and `write_units` are for files of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hubcore.lazy import lazy_exports

if TYPE_CHECKING:
    from hubcore.units.files import Units as Units
    from hubcore.units.files import read_units as read_units
    from hubcore.units.files import write_units as write_units

__getattr__, __dir__ = lazy_exports(__name__)
