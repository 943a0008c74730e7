"""`fit`: a codebook from frames, in memory that does not grow with the hours of audio.

Shapes: `N` frames, `D` dim, `K` centroids.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hubcore.errors import ExtractionError, OptionError
from hubcore.extract.batches import Failure
from hubcore.tools.plotting import STYLE, load_matplotlib
from hubcore.units.codebook import Codebook
from hubcore.units.frames import FrameSource
from hubcore.units.kmeans import KMeans, Sample, plus_plus

NORMALIZE = ("none", "standard")
"""Frames as they are, or each dimension standardised with the mean and the deviation of the sample."""
FRAMES_PER_CENTROID = 256
"""Frames of the sample for each centroid, if none are asked for; faiss: `max_points_per_centroid`."""
_START_FRAMES = 64
"""Frames of the sample for each centroid that k-means++ chooses from."""
_AT_ONCE = 10_000
"""Frames that statistics are computed of at once."""
_LLOYD_STEPS = 100
_ENOUGH = 1e-4
"""The steps on the sample end when one makes the distance smaller by less than this part."""
Report = Callable[[float, float, str], None]
"""Called with the hours of audio that are done, of how many in all passes, and what is being done in words."""


class Point(NamedTuple):
    """One step of a fit."""

    stage: str
    """`sample` or `stream`."""
    frames: int
    """Frames that were looked at so far, those of the sample once for each step."""
    inertia: float
    """The mean squared distance of the step's frames from their centroids, before it moved them."""


@dataclass(frozen=True)
class Fitted:
    """Result of a fit."""

    codebook: Codebook
    """The centroids."""
    frames: int
    """The number of frames that there are."""
    curve: tuple[Point, ...]
    """The steps."""
    failures: tuple[Failure, ...]
    """Utterances that could not be computed."""


def fit(
    source: FrameSource,
    *,
    clusters: int,
    seed: int = 0,
    passes: int = 1,
    sample_frames: int | None = None,
    batch_frames: int = 10_000,
    normalize: str = "none",
    device: str | torch.device = "cpu",
    report: Report | None = None,
) -> Fitted:
    """A codebook of so many centroids.

    A first pass draws a random sample of frames. K-means++ chooses the first centroids from it, and Lloyd's steps improve them
    until they stand. Then each frame of the corpus moves its centroid in `passes` passes of mini-batch k-means; if the sample
    holds all frames, there is nothing more to learn from, and these are left out. On one CPU, the same seed and the same number
    of threads give the same centroids.

    Args:
        source: `FolderFrames` or `AudioFrames`; audio is computed anew in each pass.
        clusters: the number `K` of centroids.
        seed: of all that is random.
        passes: after the first; with 0 the sample alone counts.
        sample_frames: frames of the sample, 4 D bytes each in memory; 256 for each centroid if None.
        batch_frames: frames of a mini-batch.
        normalize: `none`, or `standard` for features whose dimensions differ in scale.
        device: where distances are computed.
        report: see `Report`.

    Raises:
        OptionError: an impossible number.
        ExtractionError: there are fewer frames than centroids, or frames that are not finite.

    Example:
        >>> import soundfile, tempfile, pathlib
        >>> from hubcore import hub
        >>> from hubcore.units import AudioFrames
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> soundfile.write(folder / "a.wav", np.sin(np.arange(32000) ** 1.5 / 999), 16000)
        >>> fitted = fit(AudioFrames([folder], hub.load("fbank")), clusters=8)
        >>> fitted.codebook, fitted.frames
        (Codebook(8 centroids of features of fbank), 198)
    """
    numbers = {"clusters": clusters, "sample_frames": sample_frames, "batch_frames": batch_frames, "passes": passes + 1}
    for name, number in numbers.items():
        if number is not None and number < 1:
            raise OptionError(f"{name} is {number - (name == 'passes')}.", fix="500 clusters and 1 pass are usual.")
    if normalize not in NORMALIZE:
        raise OptionError(f"normalize is {normalize!r}.", fix=f"It must be {' or '.join(NORMALIZE)}.")
    size = sample_frames or FRAMES_PER_CENTROID * clusters
    tell, draws = _Telling(source, 1 + passes, report), np.random.default_rng(seed)
    sample = Sample(size, draws)
    for array in tell.about(source, seed, "sample"):
        sample.add(array)
    frames = sample.frames()
    if len(frames) < clusters:
        what = f"there are {len(frames)} frames for {clusters} centroids."
        raise ExtractionError(what, fix="Use more audio, a larger sample, or fewer clusters.")
    mean, scale = _statistics(frames) if normalize == "standard" else (None, None)

    def prepared(array: NDArray[Any]) -> Tensor:
        ready = torch.from_numpy(array).to(device)
        return ready if mean is None or scale is None else (ready - mean.to(device)) / scale.to(device)

    draws.shuffle(frames)
    kmeans, curve = _on_sample(prepared(frames), clusters, seed, tell)
    inertia = curve[-1].inertia
    if sample.seen > len(frames):
        seen = curve[-1].frames
        del frames, sample._kept
        for number in range(passes):
            total = 0.0
            for batch in _batches(tell.about(source, seed + 1 + number, "stream"), batch_frames):
                seen += len(batch)
                curve.append(Point("stream", seen, kmeans.step(prepared(batch))))
                total += curve[-1].inertia * len(batch)
            inertia = total / sample.seen
    found = {
        "clusters": clusters,
        "seed": seed,
        "frames": sample.seen,
        "sample_frames": min(size, sample.seen),
        "passes": passes if sample.seen > size else 0,
        "inertia": inertia,
        "normalize": normalize,
    }
    codebook = Codebook(
        kmeans.centroids.cpu(), source.record, final_norm=source.final_norm, mean=mean, scale=scale, fitted=found
    )
    return Fitted(codebook, sample.seen, tuple(curve), tuple(source.failures))


def _on_sample(frames: Tensor, clusters: int, seed: int, tell: _Telling) -> tuple[KMeans, list[Point]]:
    """Centroids that stand on the sample, in random order."""
    start = frames[: max(clusters, _START_FRAMES * clusters)]
    kmeans, curve = KMeans(plus_plus(start, clusters, torch.Generator().manual_seed(seed))), list[Point]()
    for step in range(1, _LLOYD_STEPS + 1):
        curve.append(Point("sample", step * len(frames), kmeans.lloyd(frames)))
        tell.say(f"step {step} on the sample, mean squared distance {curve[-1].inertia:.4g}")
        if step > 1 and curve[-2].inertia - curve[-1].inertia <= _ENOUGH * curve[-2].inertia:
            break
    return kmeans, curve


def _statistics(frames: NDArray[np.float32]) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each dimension; a constant one is left as it is."""
    mean = frames.mean(0, dtype=np.float64)
    parts = (frames[start : start + _AT_ONCE] - mean for start in range(0, len(frames), _AT_ONCE))
    scale = np.sqrt(sum(np.square(part).sum(0) for part in parts) / len(frames))
    scale[scale < 1e-6 * (1 + np.abs(mean))] = 1.0
    return torch.from_numpy(mean).float(), torch.from_numpy(scale).float()


def _batches(arrays: Iterator[NDArray[np.float32]], size: int) -> Iterator[NDArray[np.float32]]:
    """Frames `(N, D)` of several utterances, `size` at once and the rest at the end."""
    held: list[NDArray[np.float32]] = []
    count = 0
    for array in arrays:
        held.append(array)
        count += len(array)
        if count >= size:
            whole = np.concatenate(held)
            last = count - count % size
            yield from (whole[start : start + size] for start in range(0, last, size))
            held, count = [whole[last:]], count - last
    if count:
        yield np.concatenate(held)


class _Telling:
    """Hours that are done so far, for `Report`."""

    def __init__(self, source: FrameSource, passes: int, report: Report | None) -> None:
        self._total, self._report = source.seconds * passes / 3600, report
        self._done = 0.0

    def about(self, source: FrameSource, seed: int, stage: str) -> Iterator[NDArray[np.float32]]:
        """The frames of one pass, float32."""
        for name, array, seconds in source.in_order(seed):
            ready = np.ascontiguousarray(array, dtype=np.float32)
            if not np.isfinite(ready).all():
                raise ExtractionError(f"the features of {name!r} are not finite.", fix="Extract them again, or leave it out.")
            yield ready
            self._done += seconds / 3600
            self.say("drawing a sample" if stage == "sample" else "moving centroids")

    def say(self, note: str) -> None:
        """Reports what is done, with a note."""
        if self._report is not None:
            self._report(self._done, self._total, note)


def draw_curve(fitted: Fitted) -> Any:
    """A `matplotlib.figure.Figure` of the curve of a fit.

    Raises:
        HubcoreError: matplotlib is missing or broken.
    """
    with load_matplotlib("style").context(STYLE, after_reset=True):
        figure = load_matplotlib("figure").Figure(figsize=(7, 3.2), layout="constrained")
        axis = figure.subplots()
        # A mini-batch is of few utterances, so its distance says little: it is a point without a line.
        looks = (("sample", "#0072B2", "-", "steps on the sample"), ("stream", "#D55E00", "", "mini-batches of all frames"))
        for stage, colour, line, label in looks:
            points = [(frames, inertia) for kind, frames, inertia in fitted.curve if kind == stage]
            if points:
                axis.plot(*zip(*points, strict=True), color=colour, label=label, linestyle=line, marker=".", markersize=4)
        if points:
            mean = float(fitted.codebook.fitted["inertia"])
            start = fitted.curve[-1 - len(points)].frames  # of the last step on the sample
            axis.hlines(mean, start, points[-1][0], color="#D55E00", linewidth=1.1, label=f"mean of a pass, {mean:.4g}")
        axis.set_xlabel("frames that were looked at")
        axis.set_ylabel("mean squared distance\nfrom the nearest centroid")
        axis.set_title(f"{fitted.codebook.extra_repr()}, {fitted.frames} frames", loc="left", fontsize=9, parse_math=False)
        axis.legend(frameon=False, fontsize=8)
        return figure
