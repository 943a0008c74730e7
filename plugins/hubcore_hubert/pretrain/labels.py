"""Labels of a corpus: the units that frames are to predict, checked against the audio, and brought to the encoder's frames.

Shapes: `S` sets of labels, `U` labels of an utterance, `F` its frames.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hubcore.errors import ExtractionError, OptionError
from hubcore.text import plural, printable
from hubcore_hubert.pretrain.config import HubertObjective

if TYPE_CHECKING:
    from hubcore.units.files import Units

_TOLERANCE = 0.1
"""Seconds by which labels may end before or after the audio, as in fairseq."""


class Labels(Mapping[str, NDArray[np.int64]]):
    """Labels of each utterance, `(S, U)`, by its path below the manifest's root; units may be named without its ending.

    Args:
        sets: what `read_units` gave, for each set of labels.
        names: the files they came from, for messages.
        config: the objective's options.
        sample_rate: the model's, in Hz.

    Raises:
        OptionError: a set has a unit beyond its clusters.

    Example:
        >>> from hubcore.units import Units
        >>> units = {"a": Units(np.array([5, 12]), durations=np.array([30, 20]))}
        >>> labels = Labels([units], ["units.npz"], HubertObjective(clusters=[20]), 16000)
        >>> labels.read("a.flac", samples=16000).shape
        (1, 50)
    """

    def __init__(
        self, sets: Sequence[Mapping[str, Units]], names: Sequence[str], config: HubertObjective, sample_rate: int
    ) -> None:
        for units, name, clusters in zip(sets, names, config.clusters, strict=True):
            highest = max((int(one.units.max()) for one in units.values() if len(one.units)), default=0)
            if highest >= clusters:
                raise OptionError(
                    f"{printable(name)} has the unit {highest}, and objective.clusters is {clusters}.",
                    fix=f"Set objective.clusters to the number of clusters of its codebook, at least {highest + 1}.",
                )
        # 1,000 hours have hundreds of millions of labels, and every process holds them.
        self._sets = [{name: _per_frame(one) for name, one in units.items()} for units in sets]
        self._rate, self._sample_rate = config.label_rate, sample_rate

    @classmethod
    def open(cls, paths: Sequence[Path], config: HubertObjective, sample_rate: int) -> Labels:
        """The labels in files of units: for each set one, or several that hold different utterances, such as fairseq's.

        Raises:
            ExtractionError: a file cannot be read.
            OptionError: as above, or files of one set have an utterance in common.
        """
        from hubcore.units.files import read_units

        count = len(config.clusters)
        if len(paths) % count:
            raise OptionError(
                f"data.units has {plural(len(paths), 'file')}, and objective.clusters has {count} numbers.",
                fix="Give as many files for each set of labels, such as [train.km, valid.km], set after set.",
            )
        each = len(paths) // count
        parts = [paths[first : first + each] for first in range(0, len(paths), each)]
        return cls([_merged(files, read_units) for files in parts], [str(files[0]) for files in parts], config, sample_rate)

    def __len__(self) -> int:
        return len(self._sets[0])

    def __iter__(self) -> Iterator[str]:
        return iter(self._sets[0])

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and all(_name(units, key) is not None for units in self._sets)

    def __getitem__(self, key: str) -> NDArray[np.int64]:
        """The labels of an utterance; the sets end where the shortest does."""
        found = []
        for units in self._sets:
            name = _name(units, key)
            if name is None:
                raise KeyError(key)
            found.append(units[name])
        shortest = min(map(len, found))
        return np.stack([row[:shortest] for row in found]).astype(np.int64)

    def read(self, key: str, *, samples: int) -> NDArray[np.int64]:
        """The labels of an utterance of so many samples.

        Raises:
            ExtractionError: labels and audio differ by more than a tenth of a second.
        """
        labels = self[key]
        seconds, labelled = samples / self._sample_rate, labels.shape[1] / self._rate
        if abs(seconds - labelled) > _TOLERANCE:
            raise ExtractionError(
                f"{printable(key)} lasts {seconds:.2f} s, but its {labels.shape[1]} labels last {labelled:.2f} s at "
                f"{self._rate:g} a second (objective.label_rate).",
                fix="Set label_rate to the frame rate of the features that were clustered, write durations with deduplicated "
                "units, or make the units again.",
            )
        return labels


def _merged(paths: Sequence[Path], read: Callable[[Path], dict[str, Units]]) -> dict[str, Units]:
    """The units of all utterances in files of one set of labels."""
    found = read(paths[0])
    for path in paths[1:]:
        more = read(path)
        twice = next(iter(found.keys() & more.keys()), None)
        if twice is not None:
            raise OptionError(
                f"{printable(twice)} has units in {printable(path)} and in another file of data.units.",
                fix="If these are two sets of labels, give objective.clusters a number for each; if not, leave one file out.",
            )
        found.update(more)
    return found


def _per_frame(one: Units) -> NDArray[Any]:
    """One label for each frame, deduplicated units as often as they last, in as few bytes as they need."""
    labels = one.units if one.durations is None else np.repeat(one.units, one.durations)
    return labels.astype(np.uint16 if len(labels) == 0 or int(labels.max()) < 1 << 16 else np.int32)


def _name(units: Mapping[str, Any], key: str) -> str | None:
    """The name of an utterance in a file of units: its path, or its path without the ending, as in a folder of features."""
    return next((name for name in (key, os.path.splitext(key)[0]) if name in units), None)


def align(
    labels: NDArray[np.int64], frames: int, *, start: int, samples: int, stride: int, label_rate: float, sample_rate: int
) -> Tensor:
    """One label for each frame of a crop, `(S, F)`; fairseq: `collater_frm_label`, then `forward_targets`.

    Labels are cropped with the audio, and a frame has the label at its start. Frames that the labels do not reach are cut, so
    `F` may be below `frames`.

    Args:
        labels: `(S, U)`, of the whole file.
        frames: of the encoder, in the crop.
        start: the crop's first sample.
        samples: the crop's length.
        stride: samples from frame to frame.
        label_rate: labels in a second.
        sample_rate: samples in a second.

    Example:
        >>> labels = np.arange(98)[None]  # 1 s of a filter bank: its last window ends 15 ms before the audio
        >>> align(labels, 49, start=320, samples=15680, stride=320, label_rate=100, sample_rate=16000)[0, :3].tolist()
        [2, 4, 6]
    """
    first = round(start * label_rate / sample_rate)
    own = labels[:, first : first + round(samples * label_rate / sample_rate)]
    ratio = label_rate * stride / sample_rate
    if ratio * frames > own.shape[1]:
        frames = int(own.shape[1] / ratio)
    return torch.from_numpy(own[:, (np.arange(frames, dtype=np.float32) * np.float32(ratio)).astype(np.int64)])
