"""`statistics`: a folder of features in numbers. Shapes: `L` layers, `F` frames, `D` dim."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hubcore.features.folder import FeatureFolder


@dataclass(frozen=True)
class Statistics:
    """A folder in numbers."""

    utterances: int
    """The number of utterances."""
    hours: float
    """The duration of their audio."""
    frames: int
    """The number of frames."""
    files: int
    """The number of feature files."""
    bytes: int
    """Their size."""
    layers: tuple[str, ...]
    """The names of the layers."""
    width: int
    """The width `D`; 0 of a folder without utterances."""
    dtype: str
    """The type of a number."""
    mean: tuple[float, ...]
    """The mean of each layer, over all finite numbers; of a mix, of the sum."""
    std: tuple[float, ...]
    """The standard deviation of each."""
    smallest: float
    """The smallest finite number."""
    largest: float
    """The largest finite number."""
    not_finite: tuple[str, ...]
    """Utterances with NaN or infinity in them."""
    dead: tuple[tuple[int, ...], ...]
    """For each layer the dimensions that have the same value in every frame."""


def statistics(folder: FeatureFolder) -> Statistics:
    """Reads all features of a folder, one utterance at a time.

    Example:
        >>> import soundfile, tempfile
        >>> from pathlib import Path
        >>> from hubcore import features, hub
        >>> from hubcore.extract import extract
        >>> root = Path(tempfile.mkdtemp())
        >>> soundfile.write(root / "a.wav", np.sin(np.arange(16000) / 9), 16000)
        >>> _ = extract([root / "a.wav"], hub.load("fbank"), root / "out")
        >>> found = statistics(features.open(root / "out"))
        >>> found.utterances, found.frames, found.width, found.not_finite
        (1, 98, 240, ())
    """
    rows = [*folder.rows.values()]
    pooled = folder.record.settings["pool"] is not None
    shape = rows[0]["shape"] if rows else [0]
    layers = shape[0] if len(shape) == (2 if pooled else 3) else 1
    low, high = np.full((layers, shape[-1]), np.inf), np.full((layers, shape[-1]), -np.inf)
    count, total, squares = np.zeros(layers), np.zeros(layers), np.zeros(layers)
    not_finite: list[str] = []
    for name, found in folder.items():
        array = found.array.astype(np.float64).reshape(layers, -1, shape[-1])  # (L, F, D), F = 1 where pooled
        finite = np.isfinite(array)
        if not finite.all():
            not_finite.append(name)
        low = np.minimum(low, array.min(1, where=finite, initial=np.inf))
        high = np.maximum(high, array.max(1, where=finite, initial=-np.inf))
        count += finite.sum((1, 2))
        total += array.sum((1, 2), where=finite)
        squares += np.square(array, where=finite, out=np.zeros_like(array)).sum((1, 2))
    mean = total / np.maximum(count, 1)
    std = np.sqrt(np.maximum(squares / np.maximum(count, 1) - mean**2, 0))
    files = {row["file"] for row in rows}
    return Statistics(
        utterances=len(rows),
        hours=sum(row["seconds"] for row in rows) / 3600,
        frames=sum(row["frames"] for row in rows),
        files=len(files),
        bytes=sum((folder.folder / file).stat().st_size for file in files),
        layers=folder.layer_names,
        width=shape[-1],
        dtype=folder.record.settings["dtype"],
        mean=tuple(mean.tolist()),
        std=tuple(std.tolist()),
        smallest=float(low.min(initial=np.inf)),
        largest=float(high.max(initial=-np.inf)),
        not_finite=tuple(not_finite),
        dead=tuple(tuple(np.flatnonzero(a == b).tolist()) for a, b in zip(low, high, strict=True)),
    )
