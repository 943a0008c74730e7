"""Features for training: `FeatureDataset`, `LengthBuckets` and `collate`, for a `torch.utils.data.DataLoader`.

Shapes: `B` batch, `L` layers, `F` frames, `D` dim.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from hubcore.batching import shuffled_batches
from hubcore.errors import OptionError
from hubcore.features.folder import FeatureFolder


class FeatureItem(NamedTuple):
    """One utterance of a dataset."""

    utterance: str
    """Its name."""
    features: Tensor
    """`(F, D)` or `(L, F, D)`, pooled without `F`; float32."""
    frames: int
    """The number of frames."""
    target: Any
    """Its target; None where the dataset has none."""


@dataclass(frozen=True)
class FeatureBatch:
    """Several utterances, made by `collate`."""

    utterances: tuple[str, ...]
    """Their names."""
    features: Tensor
    """`(B, F, D)` or `(B, L, F, D)`, exactly zero beyond each length; pooled without `F`."""
    lengths: Tensor
    """`(B,)` number of frames of each."""
    targets: Any
    """`(B,)` where targets are numbers, else a list; None where there are none."""


class FeatureDataset(Dataset[FeatureItem]):
    """The features of a folder as a dataset of torch, read when they are asked for.

    Args:
        folder: an open folder.
        targets: the target of each utterance; those without one are left out. All utterances, without a target, if None.

    Raises:
        OptionError: a target is of an utterance that the folder does not have.

    Example:
        >>> import soundfile, tempfile
        >>> from pathlib import Path
        >>> from torch.utils.data import DataLoader
        >>> from hubcore import features, hub
        >>> from hubcore.extract import extract
        >>> root = Path(tempfile.mkdtemp())
        >>> for name, samples in (("a", 8000), ("b", 16000), ("c", 12000)):
        ...     soundfile.write(root / f"{name}.wav", np.sin(np.arange(samples) / 9), 16000)
        >>> _ = extract([root], hub.load("fbank"), root / "out", layers="last")
        >>> dataset = FeatureDataset(features.open(root / "out"), {"a": 0, "b": 1})
        >>> loader = DataLoader(dataset, batch_sampler=LengthBuckets(dataset, max_frames=200), collate_fn=collate)
        >>> [(batch.features.shape, sorted(batch.lengths.tolist())) for batch in loader]
        [(torch.Size([2, 98, 240]), [48, 98])]
    """

    def __init__(self, folder: FeatureFolder, targets: Mapping[str, Any] | None = None) -> None:
        self.folder = folder
        self.targets = targets
        self.utterances: Sequence[str] = [name for name in folder if targets is None or name in targets]
        """The names, in the order of the folder."""
        unknown = sorted(set(targets or ()) - set(self.utterances))
        if unknown:
            what = f"{folder.folder} has no utterance {unknown[0]!r}, which has a target."
            raise OptionError(what, fix="Leave it out of the targets, or extract it too.")

    @property
    def lengths(self) -> list[int]:
        """The number of frames of each utterance; no features are read."""
        return [self.folder.rows[name]["frames"] for name in self.utterances]

    def __len__(self) -> int:
        return len(self.utterances)

    def __getitem__(self, index: int) -> FeatureItem:
        name = self.utterances[index]
        found = self.folder[name]
        array = torch.from_numpy(np.array(found.array, dtype=np.float32))  # a copy: torch has no read-only tensors
        return FeatureItem(name, array, found.lengths, self.targets[name] if self.targets is not None else None)


class LengthBuckets(Sampler[list[int]]):
    """Batches of utterances of similar length, so that little is padding; in another order in each epoch.

    Each pass is the next epoch; `set_epoch` chooses one, for a training that is resumed.

    Args:
        dataset: the dataset.
        max_frames: frames of a batch at most, padding aside.
        seed: together with the epoch it determines the batches.

    Example:
        >>> from types import SimpleNamespace
        >>> buckets = LengthBuckets(SimpleNamespace(lengths=[10, 30, 11]), max_frames=30)
        >>> sorted(sorted(batch) for batch in buckets)
        [[0, 2], [1]]
    """

    def __init__(self, dataset: FeatureDataset, *, max_frames: int, seed: int = 0) -> None:
        self.lengths = dataset.lengths
        self.max_frames = max_frames
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Makes the next pass that of an epoch, from 0."""
        self.epoch = epoch

    def _batches(self) -> list[tuple[int, ...]]:
        if not self.lengths:
            return []
        return shuffled_batches(self.lengths, self.max_frames, seed=self.seed, epoch=self.epoch)

    def __iter__(self) -> Iterator[list[int]]:
        batches = self._batches()
        self.epoch += 1
        return map(list, batches)

    def __len__(self) -> int:
        return len(self._batches())


def collate(items: Sequence[FeatureItem]) -> FeatureBatch:
    """Utterances as one batch, padded with zeros at the end.

    Example:
        >>> batch = collate([FeatureItem("a", torch.ones(2, 3), 2, 0), FeatureItem("b", torch.ones(4, 3), 4, 1)])
        >>> batch.features.shape, batch.lengths.tolist(), batch.targets.tolist()
        (torch.Size([2, 4, 3]), [2, 4], [0, 1])
    """
    tensors = [item.features for item in items]
    if tensors[0].ndim > 1:
        longest = max(tensor.shape[-2] for tensor in tensors)
        tensors = [torch.nn.functional.pad(tensor, (0, 0, 0, longest - tensor.shape[-2])) for tensor in tensors]
    targets: Any = [item.target for item in items]
    if all(target is None for target in targets):
        targets = None
    elif all(isinstance(target, int | float) for target in targets):
        targets = torch.tensor(targets)
    lengths = torch.tensor([item.frames for item in items])
    return FeatureBatch(tuple(item.utterance for item in items), torch.stack(tensors), lengths, targets)
