"""`open`: a folder of features as a mapping. Shapes: `L` layers, `F` frames, `D` dim."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hubcore.card import Card
from hubcore.errors import ExtractionError, OptionError, nearest_hint
from hubcore.extract.journal import rows_of
from hubcore.extract.record import read_record
from hubcore.extract.writers import Readable, find_writer
from hubcore.text import printable


@dataclass(frozen=True)
class Features:
    """The features of one utterance."""

    array: NDArray[Any]
    """`(F, D)`, or `(L, F, D)` of several layers; pooled without `F`. It is mapped into memory, and read only, where the format
    allows it; bfloat16 is float32 here."""
    times: NDArray[np.float64]
    """`(F, 2)`: start and end in seconds of the audio of each frame; of a pooled vector the whole utterance, `(1, 2)`."""
    lengths: int
    """The number of frames `F`, or of those that were pooled."""
    layer_names: tuple[str, ...]
    """The name of each layer, in the order of `array`; of a mix, those that were summed."""
    card: Card | None
    """The card of the upstream that made them."""


class FeatureFolder(Mapping[str, Features]):
    """The features of a folder by utterance, in the order of its manifest. Nothing is read until an utterance is asked for."""

    def __init__(self, folder: Path) -> None:
        """Those of a folder; see `open`."""
        self.folder = folder
        self.record = read_record(folder)
        self.rows: Mapping[str, Mapping[str, Any]] = rows_of(folder)
        """The row of the manifest for each utterance: source, seconds, frames, shape, dtype, and the settings."""
        format = self.record.settings["format"]
        reader = find_writer(format, pooled=self.record.settings["pool"] is not None)
        if not issubclass(reader, Readable):
            what = f"the format {format!r} of {printable(folder)} has no reader: its class {reader.__qualname__} lacks `read`."
            raise OptionError(what, fix="Ask its authors for one, or read the files yourself: `rows` names them.")
        self._reader: type[Readable] = reader

    @property
    def layer_names(self) -> tuple[str, ...]:
        """The names of the layers."""
        return self.record.layer_names

    @property
    def card(self) -> Card | None:
        """The card of the upstream."""
        return self.record.card

    def __getitem__(self, utterance: str) -> Features:
        try:
            row = self.rows[utterance]
        except KeyError as error:
            raise KeyError(f"no utterance is called {utterance!r}. {nearest_hint(utterance, self.rows)}") from error
        try:
            array = self._reader.read(self.folder, row)
        except (OSError, ValueError, KeyError, EOFError) as error:
            file = printable(self.folder / row["file"])
            what = f"{file} cannot be read for {printable(utterance)!r}: {error}."
            raise ExtractionError(what, fix="Run the same extraction again; it makes them anew.") from error
        return Features(array, times_of(row), row["frames"], self.layer_names, self.card)

    def __iter__(self) -> Iterator[str]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __contains__(self, utterance: object) -> bool:
        return utterance in self.rows

    def __repr__(self) -> str:
        made = self.record.settings["upstream"]
        return f"<{len(self)} utterances of {made} in {printable(self.folder)}, {self.record.settings['format']}>"


def times_of(row: Mapping[str, Any]) -> NDArray[np.float64]:
    """`(F, 2)` start and end of each frame of a manifest row in seconds, as far as the utterance has audio.

    Example:
        >>> row = {"frames": 2, "seconds": 0.04, "frame_stride": 320, "first_sample": 0, "receptive_field": 400}
        >>> times_of({**row, "sample_rate": 16000, "pool": None}).tolist()
        [[0.0, 0.025], [0.02, 0.04]]
    """
    if row["pool"]:
        return np.array([[0.0, row["seconds"]]])
    if "frame_times" in row:
        return np.array(row["frame_times"], dtype=np.float64)
    if row["first_sample"] is None:
        what = f"the row of {printable(row['utterance'])!r} is of a version that did not store when its frames were."
        raise ExtractionError(what, fix="Extract into another folder.")
    starts = row["first_sample"] + row["frame_stride"] * np.arange(row["frames"])
    times: NDArray[np.float64] = np.stack([starts, starts + row["receptive_field"]], 1) / row["sample_rate"]
    return times.clip(0, row["seconds"])


def open(folder: str | os.PathLike[str]) -> FeatureFolder:
    """The features of a folder that `hubcore extract` wrote, in any format.

    Raises:
        ExtractionError: it holds no features, or its manifest is damaged.
        OptionError: the format's plugin or package is not installed, or has no reader.

    Example:
        >>> import soundfile, tempfile
        >>> from hubcore import hub
        >>> from hubcore.extract import extract
        >>> folder = Path(tempfile.mkdtemp())
        >>> soundfile.write(folder / "a.wav", np.sin(np.arange(16000) / 9), 16000)
        >>> _ = extract([folder], hub.load("fbank"), folder / "out", layers="last", format="safetensors")
        >>> features = open(folder / "out")
        >>> list(features), features["a"].array.shape, features["a"].times[0].tolist(), features["a"].layer_names
        (['a'], (98, 240), [0.0, 0.025], ('features',))
    """
    return FeatureFolder(Path(folder))
