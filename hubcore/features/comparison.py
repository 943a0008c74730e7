"""`compare`: two folders of features, utterance by utterance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from hubcore.errors import OptionError
from hubcore.features.folder import FeatureFolder


@dataclass(frozen=True)
class Difference:
    """An utterance that two folders do not share."""

    utterance: str
    """Its name."""
    what: str
    """The difference, as a phrase."""


@dataclass(frozen=True)
class Comparison:
    """Result of comparing two folders."""

    same: int
    """Utterances whose numbers agree."""
    largest: float
    """The largest difference of two numbers, of the utterances whose shapes agree."""
    differences: tuple[Difference, ...]
    """The other utterances, in the order of their names."""
    settings: dict[str, tuple[Any, Any]]
    """Settings that differ, with both values; they may, where the numbers agree."""


def compare(one: FeatureFolder, other: FeatureFolder, *, tolerance: float = 2e-5) -> Comparison:
    """Compares two folders, whatever their formats.

    Args:
        one: an open folder.
        other: another one.
        tolerance: the largest difference of two numbers that is none. NaN differs from everything.

    Raises:
        OptionError: the tolerance is negative or no number.

    Example:
        >>> import soundfile, tempfile
        >>> from pathlib import Path
        >>> from hubcore import features, hub
        >>> from hubcore.extract import extract
        >>> root = Path(tempfile.mkdtemp())
        >>> soundfile.write(root / "a.wav", np.sin(np.arange(8000) / 9), 16000)
        >>> for format in ("npy", "safetensors"):
        ...     _ = extract([root / "a.wav"], hub.load("fbank"), root / format, format=format)
        >>> compare(features.open(root / "npy"), features.open(root / "safetensors")).differences
        ()
    """
    if not tolerance >= 0:
        raise OptionError(f"tolerance is {tolerance}.", fix="It must be 0 or more.")
    differences: list[Difference] = []
    largest = 0.0
    for name in sorted({*one, *other}):
        what = ""
        if name not in other or name not in one:
            what = f"is only in {(one if name in one else other).folder}"
        else:
            here, there = one[name].array, other[name].array
            if here.shape != there.shape:
                what = f"has the shapes {here.shape} and {there.shape}"
            else:
                off = float(np.abs(here.astype(np.float64) - there.astype(np.float64)).max())
                largest = max(largest, off)
                if not off <= tolerance:
                    what = f"differs by up to {off:.3g}"
        if what:
            differences.append(Difference(name, what))
    mine, theirs = one.record.settings, other.record.settings
    settings = {key: (mine[key], theirs.get(key)) for key in mine if mine[key] != theirs.get(key)}
    return Comparison(len({*one, *other}) - len(differences), largest, tuple(differences), settings)
