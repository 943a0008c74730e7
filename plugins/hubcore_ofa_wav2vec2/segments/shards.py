"""Segments of many utterances in few files: `shard-00000.safetensors` and on, each with its own index.

A shard has `alpha` and `boundaries` of its utterances end to end, `frames` and `segments` with the share of each, and their
paths as JSON in its header. It appears whole or not at all. Shapes: `T` frames, `N` segments, `U` utterances.
"""

from __future__ import annotations

import contextlib
import json
import re
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from hubcore.corpus.files import write_together
from hubcore.errors import CheckpointError, ExtractionError
from hubcore.text import printable

UTTERANCES_PER_SHARD = 2048
"""A shard of LibriSpeech is then about 6 MB."""

_NAME = re.compile(r"shard-([0-9]{5,})\.safetensors")
_DTYPES = {"alpha": torch.float32, "boundaries": torch.int64, "frames": torch.int64, "segments": torch.int64}


class ShardIndex:
    """Which utterance is where in the shards of a folder. Reads headers at once, tensors on demand.

    Args:
        folder: where the shards are.

    Raises:
        CheckpointError: a shard is damaged.
        ExtractionError: two shards have the same utterance.
    """

    def __init__(self, folder: Path) -> None:
        self._files = shard_files(folder)
        self._opened: dict[int, Any] = {}
        self._where: dict[str, int] = {}
        spans: list[Tensor] = []
        for number, file in enumerate(self._files):
            paths, frames, segments = _read_index(file)
            for path in paths:
                if self._where.setdefault(path, len(self._where)) < sum(len(span) for span in spans):
                    raise ExtractionError(
                        f"{printable(path)} is in {printable(file)} and in an earlier shard. Which one is meant cannot be "
                        "told. Remove the shard that was copied there."
                    )
            ends = torch.stack([frames, segments]).cumsum(1)  # (2, U)
            starts = ends - torch.stack([frames, segments])
            spans.append(torch.cat([torch.full((1, len(paths)), number), starts, ends]).T)  # (U, 5)
        self._spans = torch.cat(spans) if spans else torch.zeros(0, 5, dtype=torch.int64)

    def __contains__(self, path: object) -> bool:
        return path in self._where

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": {}}

    def shard(self, path: str) -> Path:
        """The shard that has an utterance.

        Raises:
            ExtractionError: none has.
        """
        return self._files[self._span(path)[0]]

    def read(self, path: str) -> tuple[Tensor, Tensor]:
        """Alpha `(T,)` and boundaries `(N,)` of an utterance.

        Raises:
            ExtractionError: no shard has it.
            CheckpointError: the shard cannot be read any more.
        """
        number, alpha_start, start, alpha_end, end = self._span(path)
        try:
            if number not in self._opened:
                self._opened[number] = safe_open(self._files[number], framework="pt")
            shard = self._opened[number]
            alpha = shard.get_slice("alpha")[alpha_start:alpha_end]
            return alpha.clone(), shard.get_slice("boundaries")[start:end].clone()
        except (OSError, SafetensorError) as error:
            raise _unreadable(self._files[number], str(error)) from error

    def _span(self, path: str) -> list[int]:
        if path not in self._where:
            raise ExtractionError(
                f"there are no segments of {printable(path)} in the {len(self._files)} shards of this folder. Every utterance "
                "that is trained on needs them. Run `hubcore segment` on the manifest, or leave the utterance out of it."
            )
        return [int(value) for value in self._spans[self._where[path]]]


class ShardWriter:
    """Writes segments into new shards of a folder; `close` writes what is left.

    Args:
        folder: where to write; shards that are there are kept.
        size: utterances in a shard.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> with ShardWriter(folder) as writer:
        ...     writer.add("en/1.flac", torch.tensor([0.5, 0.5, 1.0]), torch.tensor([2, 3]))
        >>> [tensor.tolist() for tensor in ShardIndex(folder).read("en/1.flac")]
        [[0.5, 0.5, 1.0], [2, 3]]
    """

    def __init__(self, folder: Path, size: int = UTTERANCES_PER_SHARD) -> None:
        self._folder, self._size = folder, size
        numbers = [int(match[1]) for file in shard_files(folder) if (match := _NAME.fullmatch(file.name))]
        self._next = max(numbers, default=-1) + 1
        self._waiting: dict[str, tuple[Tensor, Tensor]] = {}

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        # What is finished is kept when a run is interrupted; a second failure must not hide the first.
        with contextlib.suppress(ExtractionError) if error else contextlib.nullcontext():
            self.close()

    def add(self, path: str, alpha: Tensor, boundaries: Tensor) -> None:
        """Adds one utterance.

        Raises:
            ExtractionError: the file system refuses.
        """
        self._waiting[path] = (alpha, boundaries)
        if len(self._waiting) >= self._size:
            self.close()

    def close(self) -> None:
        """Writes what waits, in one step.

        Raises:
            ExtractionError: the file system refuses.
        """
        if not self._waiting:
            return
        alphas, boundaries = zip(*self._waiting.values(), strict=True)
        tensors = {
            "alpha": torch.cat(alphas),
            "boundaries": torch.cat(boundaries),
            "frames": torch.tensor([len(alpha) for alpha in alphas]),
            "segments": torch.tensor([len(each) for each in boundaries]),
        }
        header = {"hubcore_segments": json.dumps({"version": 1, "utterances": list(self._waiting)})}
        write_together({self._folder / f"shard-{self._next:05}.safetensors": save(tensors, header)})
        self._next += 1
        self._waiting.clear()


def shard_files(folder: Path) -> list[Path]:
    """The shards of a folder, in order.

    Example:
        >>> import tempfile
        >>> shard_files(Path(tempfile.mkdtemp()))
        []
    """
    return sorted(file for file in folder.glob("shard-*.safetensors") if _NAME.fullmatch(file.name))


def _read_index(file: Path) -> tuple[list[str], Tensor, Tensor]:
    """The paths `U`, frames `(U,)` and segments `(U,)` of a shard, checked against each other."""
    try:
        with safe_open(file, framework="pt") as shard:
            about = json.loads((shard.metadata() or {}).get("hubcore_segments", "null"))
            paths = about.get("utterances") if isinstance(about, dict) and about.get("version") == 1 else None
            if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths) or len(set(paths)) < len(paths):
                raise _unreadable(file, "its header has no list of utterances of version 1")
            shapes = {name: shard.get_slice(name).get_shape() for name in _DTYPES}
            frames, segments = shard.get_tensor("frames"), shard.get_tensor("segments")
    except (OSError, SafetensorError, ValueError, RecursionError) as error:
        raise _unreadable(file, str(error)) from error
    shares = {"alpha": frames, "boundaries": segments}
    for name, share in shares.items():
        if share.dtype != torch.int64 or share.shape != (len(paths),) or bool((share < 1).any()):
            raise _unreadable(file, f"the lengths of {name} are not one above 0 for each of its {len(paths)} utterances")
        if shapes[name] != [int(share.sum())]:
            raise _unreadable(file, f"{name} has shape {shapes[name]}, but its utterances need {int(share.sum())} values")
    return paths, frames, segments


def _unreadable(file: Path, what: str) -> CheckpointError:
    return CheckpointError(
        f"{printable(file)} is not a whole shard of segments: {what}. What is in it cannot be trusted. Remove it and run "
        "`hubcore segment` again, which makes what is missing."
    )
