"""Features as objects of other libraries: lhotse's `FeatureSet` and the Hugging Face `Dataset`."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from typing import Any

import numpy as np

from hubcore.errors import OptionError
from hubcore.extract.formats.lhotse import lhotse_items, why_not_lhotse
from hubcore.features.folder import FeatureFolder
from hubcore.lazy import needs
from hubcore.text import printable

_OF_NPY = ("npy", "lhotse")
"""Formats whose files lhotse reads itself."""


def to_lhotse(folder: FeatureFolder) -> Any:
    """The features of a folder as lhotse's `FeatureSet`; of the formats `npy` and `lhotse` by their files, of others in memory.

    lhotse demands that a duration be a whole number of frames, so it is that of the frames.

    Raises:
        OptionError: several layers, pooled, or of a varying frame rate; or lhotse is not installed.

    Example:
        >>> import soundfile, tempfile
        >>> from pathlib import Path
        >>> from hubcore import features, hub
        >>> from hubcore.extract import extract
        >>> root = Path(tempfile.mkdtemp())
        >>> soundfile.write(root / "a.wav", np.sin(np.arange(16000) / 9), 16000)
        >>> _ = extract([root / "a.wav"], hub.load("fbank"), root / "out", layers="last")
        >>> to_lhotse(features.open(root / "out"))[0].num_frames
        98
    """
    lhotse = needs("lhotse", "lhotse")
    rows = [*folder.rows.values()]
    for row in rows[:1]:
        reason = why_not_lhotse(row["frame_stride"], matrix=not row["pool"] and len(row["shape"]) == 2)
        if reason:
            raise OptionError(f"{printable(folder.folder)} cannot be a FeatureSet: {reason}", fix="Extract it anew.")
    found = []
    for item in lhotse_items(folder.folder, rows):
        if folder.record.settings["format"] not in _OF_NPY:
            array = np.array(folder[item["recording_id"]].array)
            item |= {"storage_type": "memory_raw", "storage_path": "", "storage_key": pickle.dumps(array)}
        found.append(lhotse.Features(**item))
    return lhotse.FeatureSet.from_features(found)


def to_datasets(folder: FeatureFolder, cache_dir: str | None = None) -> Any:
    """The features of a folder as a Hugging Face `datasets.Dataset`: columns `utterance`, `seconds` and `features`.

    Args:
        folder: an open folder.
        cache_dir: where `datasets` keeps its copy; its own cache folder if None.

    Raises:
        OptionError: there is no utterance, or datasets is not installed.
    """
    datasets = needs("datasets", "datasets")
    first = next(iter(folder.values()), None)
    if first is None:
        raise OptionError(f"{printable(folder.folder)} holds no utterance.", fix="Extract some.")
    value = datasets.Value(first.array.dtype.name)
    if first.array.ndim == 2:
        kind = datasets.Array2D((None, first.array.shape[1]), first.array.dtype.name)
    else:
        kind = datasets.List(value) if first.array.ndim == 1 else datasets.List(datasets.List(datasets.List(value)))
    columns = {"utterance": datasets.Value("string"), "seconds": datasets.Value("float64"), "features": kind}
    return datasets.Dataset.from_generator(
        _rows, features=datasets.Features(columns), gen_kwargs={"folder": folder}, cache_dir=cache_dir
    )


def _rows(folder: FeatureFolder) -> Iterator[dict[str, Any]]:
    for name, found in folder.items():
        yield {"utterance": name, "seconds": folder.rows[name]["seconds"], "features": np.array(found.array)}
