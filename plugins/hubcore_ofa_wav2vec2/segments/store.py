"""`open_segments`: alpha and boundaries of a corpus, read one utterance at a time.

They are `alpha/<path>.pt` and `boundaries/<path>.pt`, one tensor each, as `hubcore segment` and the original's archives have
them; or two folders anywhere, one for each kind. An utterance is known by its path below the manifest's root. Shapes: `T`
frames, `N` segments.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from hubcore.checkpoints.formats.tensor_ref import TensorRef
from hubcore.checkpoints.formats.torch_file import TorchFile
from hubcore.corpus.manifest import why_not_below
from hubcore.errors import CheckpointError, ExtractionError
from hubcore.text import plural, printable
from hubcore_ofa_wav2vec2.segments.grid import count_frames

SETTINGS = "segments.json"
"""The file beside segments made here: how they were made. Where it is, a path loses its ending and nothing more."""

PathLike = str | os.PathLike[str]


class Segment(NamedTuple):
    """The segments of one utterance.

    Example:
        >>> segment = Segment(alpha=torch.tensor([0.5, 0.5, 1.0]), boundaries=torch.tensor([2, 3]))
        >>> alpha, boundaries = segment
    """

    alpha: Tensor
    """`(T,)` float32, at least 0, which adds up to 1 over each segment."""
    boundaries: Tensor
    """`(N,)` int64, strictly rising: the number of frames up to the end of each segment, so that the last is `T`."""


class Segments:
    """Segments of a corpus by path: `segments[path]`, `path in segments`. Nothing is read before it is asked for.

    It can be sent to other processes. Made by `open_segments`.

    Args:
        alpha_root: the folder of alphas.
        boundaries_root: the folder of boundaries.
        exact: whether the files were named here, by taking the ending off; the original's names stop at the first dot.
        strict: whether alpha must add up to the number of segments.
    """

    def __init__(self, alpha_root: Path, boundaries_root: Path, *, exact: bool, strict: bool = True) -> None:
        self.alpha_root, self.boundaries_root, self.exact, self.strict = alpha_root, boundaries_root, exact, strict
        self._cut_for: dict[Path, str] = {}  # file whose name stops at the first dot -> the path that it was read for

    def __contains__(self, path: object) -> bool:
        if not isinstance(path, str) or why_not_below(path):
            return False
        names = [f"{name}.pt" for name in self._names(path)]
        return all(any((root / name).is_file() for name in names) for root in (self.alpha_root, self.boundaries_root))

    def __getitem__(self, path: str) -> Segment:
        return self.read(path)

    def read(self, path: str, *, samples: int | None = None) -> Segment:
        """The segments of an utterance, checked.

        Args:
            path: its path below the manifest's root.
            samples: its samples at 16 kHz; if given, alpha must have as many frames as wav2vec 2.0 makes of them.

        Raises:
            ExtractionError: there are none, or they contradict themselves or the audio; the message names the file.
            CheckpointError: the file is damaged.
        """
        files = self._file(self.alpha_root, path), self._file(self.boundaries_root, path)
        segment = Segment(*map(_read_tensor, files))
        problem = what_is_wrong(segment.alpha, segment.boundaries, samples, strict=self.strict)
        if problem:
            raise ExtractionError(
                f"the segments of {printable(path)} in {printable(files[0])} cannot be used: {problem}.",
                fix="Make them again with `hubcore segment`, from the same audio.",
            )
        return segment

    def _names(self, path: str) -> list[str]:
        """Names that its files may have, without `.pt`: the ending taken off, and cut at the first dot as the original does."""
        name, cut = name_of(path), path.split(".")[0]
        return [name] if self.exact or cut in ("", name) or cut.endswith("/") else [name, cut]

    def _file(self, root: Path, path: str) -> Path:
        problem = why_not_below(path)
        if problem:
            raise ExtractionError(
                f"the path {printable(path)!r} {problem}.", fix="Give the utterance's path below the manifest's root."
            )
        tried = [root / f"{name}.pt" for name in self._names(path)]
        files = [file for file in tried if file.is_file()]
        if not files:
            names = " and ".join(map(printable, tried))
            raise ExtractionError(f"there are no segments of {printable(path)}: {names} is missing.", fix=_MAKE_THEM)
        if len(files) > 1:
            raise ExtractionError(
                f"two files could belong to {printable(path)}: {printable(files[0])}, and {printable(files[1])}, since the "
                "original cuts a path at its first dot.",
                fix="Rename the one that does not.",
            )
        if files[0] in tried[1:]:
            first = self._cut_for.setdefault(files[0], path)
            if first != path:
                raise _shared(first, path, files[0])
        return files[0]


def open_segments(paths: PathLike | Sequence[PathLike], *, strict: bool = True) -> Segments:
    """The segments of a corpus; tensors are read when asked for.

    Args:
        paths: the folder that `hubcore segment` filled, one with `alpha/` and `boundaries/` of another origin, or a pair of
            folders (alpha root, boundaries root).
        strict: whether alpha must add up to the number of segments, as those made here do.

    Raises:
        ExtractionError: it is no folder of segments.

    Example:
        >>> import tempfile
        >>> root = Path(tempfile.mkdtemp())
        >>> for kind, tensor in {"alpha": torch.tensor([0.5, 0.5, 1.0]), "boundaries": torch.tensor([2, 3])}.items():
        ...     (root / kind / "en").mkdir(parents=True)
        ...     torch.save(tensor, root / kind / "en/1.pt")
        >>> segments = open_segments(root)
        >>> "en/1.flac" in segments, "en/2.flac" in segments, segments["en/1.flac"].boundaries.tolist()
        (True, False, [2, 3])
    """
    given = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    roots = [Path(path) for path in given]
    for root in roots:
        if not root.is_dir():
            raise _no_segments(root, "it is not a folder")
    if len(roots) == 1:
        roots = [roots[0] / "alpha", roots[0] / "boundaries"]
        if not all(root.is_dir() for root in roots):
            raise _no_segments(roots[0].parent, "it does not have both alpha/ and boundaries/")
    if len(roots) != 2:
        raise _no_segments(roots[0] if roots else Path(), f"{len(roots)} folders are given, not one or two")
    ours = roots[0].parent == roots[1].parent and (roots[0].parent / SETTINGS).is_file()
    return Segments(roots[0], roots[1], exact=ours, strict=strict)


def name_of(path: str) -> str:
    """Name of an utterance's files here: its path without the ending.

    Example:
        >>> name_of("v1.0/a.b.flac"), name_of("v1.0/readme")
        ('v1.0/a.b', 'v1.0/readme')
    """
    folder, slash, file = path.rpartition("/")
    stem, dot, _ = file.rpartition(".")
    return f"{folder}{slash}{stem if dot and stem else file}"


def what_is_wrong(alpha: Tensor, boundaries: Tensor, samples: int | None = None, *, strict: bool = True) -> str | None:
    """Says in a phrase why these are not the segments of an utterance; None if they are. See `Segments.read`.

    Example:
        >>> what_is_wrong(torch.tensor([0.5, 0.5, 1.0]), torch.tensor([2, 2, 3]))
        'the boundaries do not rise strictly: 2 follows 2'
    """
    if alpha.ndim != 1 or alpha.dtype != torch.float32:
        return f"alpha is {alpha.dtype} of shape {tuple(alpha.shape)}, not float32 of shape (T,)"
    if boundaries.ndim != 1 or boundaries.dtype != torch.int64:
        return f"the boundaries are {boundaries.dtype} of shape {tuple(boundaries.shape)}, not int64 of shape (N,)"
    frames, ends = len(alpha), boundaries.tolist()
    if samples is not None and frames != count_frames(samples):
        return f"alpha has {frames} frames, but {samples} samples make {count_frames(samples)}"
    if not ends or ends[0] < 1:
        return f"the boundaries begin with {ends[0] if ends else 'nothing'}, but a segment has a frame at least"
    for left, right in itertools.pairwise(ends):
        if right <= left:
            return f"the boundaries do not rise strictly: {right} follows {left}"
    if ends[-1] != frames:
        return f"the last boundary is {ends[-1]}, but alpha has {frames} frames"
    if not bool(alpha.isfinite().all()) or bool((alpha < 0).any()):
        return "alpha has values that are negative or not finite"
    total = float(alpha.sum(dtype=torch.float64))
    if strict and abs(total - len(ends)) > 1e-3 * len(ends):
        return f"alpha adds up to {total:.4f}, but the boundaries make {plural(len(ends), 'segment')}"
    return None


def _read_tensor(file: Path) -> Tensor:
    with TorchFile(file) as opened:
        if not isinstance(opened.tree, TensorRef):
            raise CheckpointError(
                f"{printable(file)} holds a {type(opened.tree).__name__}, not a tensor.",
                fix="Make it again with `hubcore segment`.",
            )
        return opened.read(opened.tree).contiguous()


_MAKE_THEM = "Run `hubcore segment` on the manifest, or leave the utterance out of it."


def _shared(first: str, second: str, file: Path) -> ExtractionError:
    return ExtractionError(
        f"{printable(first)} and {printable(second)} both lead to {printable(file)}, since the original cuts a path at its "
        "first dot.",
        fix="Make the segments again with `hubcore segment`, which keeps them apart.",
    )


def _no_segments(folder: Path, what: str) -> ExtractionError:
    return ExtractionError(
        f"{printable(folder)} has no segments: {what}.",
        fix="Name the folder that `hubcore segment` wrote, or a pair of folders, alpha's and boundaries'.",
    )
