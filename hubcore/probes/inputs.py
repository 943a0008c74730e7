"""Features as a probe reads them: `Vectors`, one of an utterance, in memory; `Frames`, read from the folder batch by batch.

Shapes: `B` batch, `L` layers, `F` frames, `D` dim.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hubcore.batching import shuffled_batches
from hubcore.errors import OptionError
from hubcore.extract.reduce import pooled
from hubcore.features.folder import FeatureFolder
from hubcore.text import printable

Told = Callable[[float, float, str], None]
"""Called with what is done, how much there is, and a note."""


class Vectors:
    """One vector of each layer for an utterance, pooled over its frames unless the folder holds such: 4 bytes a number.

    Args:
        folder: an open folder.
        utterances: those wanted.
        pool: `mean`, `mean+std` or `max` over the frames.
        batch: utterances of a batch.
        report: called as they are read.
    """

    def __init__(
        self, folder: FeatureFolder, utterances: Sequence[str], pool: str, batch: int, report: Told | None = None
    ) -> None:
        self._batch, rows = batch, []
        for number, name in enumerate(utterances, 1):
            array = layered(folder, folder[name].array)
            rows.append(array if folder.record.settings["pool"] else torch.stack([pooled(one, pool) for one in array]))
            if report:
                report(number, len(utterances), "read")
        self._table = torch.stack(rows)  # (N, L, D)

    @property
    def width(self) -> int:
        """The width of a vector."""
        return self._table.shape[-1]

    def batches(self, chosen: Sequence[int], seed: int, epoch: int) -> list[list[int]]:
        """The utterances of an epoch, by number, in random batches."""
        return [
            [chosen[place] for place in one] for one in shuffled_batches([1] * len(chosen), self._batch, seed=seed, epoch=epoch)
        ]

    def states(self, chosen: Sequence[int], layers: Sequence[int]) -> tuple[Tensor, Tensor]:
        """`(B, L, D)` of utterances, and ones."""
        return self._table[torch.tensor(chosen)[:, None], torch.tensor(layers)], torch.ones(len(chosen), dtype=torch.int64)


class Frames:
    """All frames of an utterance, read from the folder when they are asked for.

    Args:
        folder: an open folder, not of pooled features.
        utterances: those wanted.
        batch_frames: frames of a batch.
    """

    def __init__(self, folder: FeatureFolder, utterances: Sequence[str], batch_frames: int) -> None:
        self._folder, self._utterances, self._batch_frames = folder, utterances, batch_frames
        self.lengths: list[int] = [folder.rows[name]["frames"] for name in utterances]
        """Frames of each."""

    @property
    def width(self) -> int:
        """The width of a frame."""
        return int(self._folder.rows[self._utterances[0]]["shape"][-1])

    def batches(self, chosen: Sequence[int], seed: int, epoch: int) -> list[list[int]]:
        """The utterances of an epoch, by number, in random batches of similar lengths."""
        lengths = [self.lengths[index] for index in chosen]
        return [
            [chosen[place] for place in one] for one in shuffled_batches(lengths, self._batch_frames, seed=seed, epoch=epoch)
        ]

    def states(self, chosen: Sequence[int], layers: Sequence[int]) -> tuple[Tensor, Tensor]:
        """`(B, L, F, D)` of utterances, zero beyond their lengths, and these `(B,)`."""
        lengths = [self.lengths[index] for index in chosen]
        states = torch.zeros(len(chosen), len(layers), max(lengths), self.width)
        for row, index in enumerate(chosen):
            found = layered(self._folder, self._folder[self._utterances[index]].array, layers)
            states[row, :, : lengths[row]] = found
        return states, torch.tensor(lengths)


def layered(folder: FeatureFolder, array: Any, layers: Sequence[int] | None = None) -> Tensor:
    """The layers of an array of a folder, `(L, F, D)`, or `(L, D)` of pooled ones, as float32."""
    several = array.ndim == (2 if folder.record.settings["pool"] else 3)
    kept = (array if several else array[None])[slice(None) if layers is None else list(layers)]
    return torch.from_numpy(np.array(kept, dtype=np.float32))


def layers_held(folder: FeatureFolder) -> list[str]:
    """The names of the layers along the first axis of a folder's arrays; a sum of layers is one."""
    names = folder.layer_names
    return [f"sum of {', '.join(names)}"] if folder.record.settings["mix"] is not None else [*names]


def open_inputs(
    folder: FeatureFolder,
    utterances: Sequence[str],
    *,
    frames: bool,
    pool: str | None,
    batch: int,
    batch_frames: int,
    report: Told | None,
) -> Vectors | Frames:
    """Features of a folder for a probe: all frames, or one vector for each utterance.

    Raises:
        OptionError: frames are wanted, and the folder holds none; or vectors of another kind.
    """
    there = folder.record.settings["pool"]
    if there and frames:
        what = f"{printable(folder.folder)} holds one vector for each utterance (--pool {there})."
        raise OptionError(what, fix="A ctc probe needs frames: extract without --pool.")
    if there and pool not in (None, there):
        what = f"pool is {pool!r}, and the features of {printable(folder.folder)} were pooled by {there!r}."
        raise OptionError(what, fix="Leave --pool out, or extract without it.")
    if frames:
        return Frames(folder, utterances, batch_frames)
    return Vectors(folder, utterances, pool or "mean", batch, report)
