"""Panels that `hubcore plot` and `hubcore view` draw of one recording, as data: `Steps`, `Spans` and `Heatmap`.

An upstream may declare such panels in a method `panels(wav, variants)`, where `wav` is the waveform `(T,)` and each of
`variants` has options of a call that are to be compared. They are drawn above the last hidden state; where there are
variants, in place of it. An attribute `panel_variants` has the variants that a slider of `hubcore view` goes through, where the
user names none. Imports no torch. Shapes: `T` samples, `F` frames, `D` dim.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Steps:
    """A curve of one value from 0 to 1 for each frame, and its mean.

    Example:
        >>> import numpy as np
        >>> Steps("loudness", "each 10 ms", np.ones(2), np.array([0.0, 0.01, 0.02])).label
        'loudness'
    """

    label: str
    """Label of the axis."""
    legend: str
    """Name of the values."""
    values: NDArray[Any]
    """`(F,)`."""
    edges: NDArray[Any]
    """`(F + 1,)` seconds where values begin and end."""


@dataclass(frozen=True, eq=False)
class Row:
    """The frames of one variant.

    Example:
        >>> import numpy as np
        >>> len(Row("as loaded", np.zeros((3, 2)), "3 frames").times)
        3
    """

    label: str
    """The variant."""
    times: NDArray[Any]
    """`(F, 2)` seconds: start and end of each frame."""
    note: str
    """A few figures about it; the command prints them too."""


@dataclass(frozen=True, eq=False)
class Spans:
    """Begin and end of frames, a row for each variant.

    Example:
        >>> Spans("frames", ()).rows
        ()
    """

    label: str
    """Label of the axis."""
    rows: tuple[Row, ...]
    """From top to bottom."""


@dataclass(frozen=True, eq=False)
class Heatmap:
    """A vector for each frame, drawn as standard deviations of each dimension from its own mean.

    Example:
        >>> import numpy as np
        >>> Heatmap("block_4", np.zeros((3, 8)), np.zeros((3, 2))).values.shape
        (3, 8)
    """

    label: str
    """Label of the axis."""
    values: NDArray[Any]
    """`(F, D)`."""
    times: NDArray[Any]
    """`(F, 2)` seconds: start and end of each frame."""


Panel = Steps | Spans | Heatmap
