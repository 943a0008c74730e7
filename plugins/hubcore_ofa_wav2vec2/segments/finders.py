"""The two ways to find segments, with one interface: `PeakFinder` and `ClusterFinder`.

A finder is tuned once for a corpus, on a sample of it that a seed chooses, and what it was tuned to is kept beside the
segments: a run that is resumed, or a second manifest, is segmented by the same rule. Shapes: `T` samples or frames, `D` dim.
"""

from __future__ import annotations

import abc
import hashlib
import itertools
import multiprocessing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from safetensors.torch import save
from torch import Tensor

from hubcore.audio import load_audio, probe
from hubcore.checkpoints.formats.safetensors_file import SafetensorsFile
from hubcore.errors import AudioError, ExtractionError, HubcoreError, OptionError
from hubcore.extract.run import device_of
from hubcore.extract.settings import settings_for
from hubcore.fields import require
from hubcore.protocol import Upstream, UpstreamOutput
from hubcore.text import plural, printable
from hubcore_ofa_wav2vec2.segments.grid import FIELD, SAMPLE_RATE, STRIDE, count_frames
from hubcore_ofa_wav2vec2.segments.kmeans import Codebook, best_boundaries, tune_penalty
from hubcore_ofa_wav2vec2.segments.peaks import Candidates, choose, find_candidates, tune_threshold

CODEBOOK = "codebook.safetensors"
"""The file with the cluster centres, beside the segments."""

_OF_FEATURES = ("upstream", "checkpoint_sha256", "config_sha256", "options")
_PEAK_SAMPLE = 2_000_000
"""Frames that a threshold is tuned on, 11 hours."""
_CLUSTER_SAMPLE = 50_000
"""Frames that clusters are found in, 17 minutes: at 1024 dimensions they take 200 MB."""
_PENALTY_SAMPLE = 200_000
"""Frames that a penalty is tuned on, an hour: their distances to 100 clusters take 80 MB."""
_BATCH_SECONDS = 60.0
_CHUNK = 16


class Task(NamedTuple):
    """One utterance to segment."""

    path: str
    """Its path below the manifest's root."""
    file: Path
    """Path of the file."""
    samples: int
    """Its samples at 16 kHz, as the manifest says."""


Found = tuple[Task, Tensor | str]
"""A task with its boundaries `(N,)`, or with why there are none."""


class Finder(abc.ABC):
    """A way to find segments, with one number that decides how many.

    Args:
        given: that number; tuned to the corpus if None.
    """

    parameter: ClassVar[str]
    """The number's name."""

    def __init__(self, given: float | None) -> None:
        require(given is None or given >= 0, self.parameter, "0 or more, or None to have it tuned", given)
        self.given, self.value = given, given

    @abc.abstractmethod
    def settings(self) -> dict[str, Any]:
        """Settings asked for, as plain values; two finders with the same settings and tuning find the same segments."""

    @abc.abstractmethod
    def tune(self, tasks: Sequence[Task], mean_alpha: float, seed: int) -> None:
        """Finds the number at which these utterances have `mean_alpha` segments a frame."""

    @abc.abstractmethod
    def find(self, tasks: Sequence[Task]) -> Iterator[Found]:
        """The boundaries of each utterance, or why there are none."""

    def tuning(self) -> dict[str, float]:
        """The number that is used, by name."""
        return {self.parameter: self.tuned}

    @property
    def tuned(self) -> float:
        """The number that is used."""
        if self.value is None:
            raise OptionError(f"the {self.parameter} is not known yet.", fix="Call tune or restore.")
        return self.value

    def files(self) -> Mapping[str, bytes]:
        """Further files to keep beside the segments, by name."""
        return {}

    def restore(self, tuning: Mapping[str, float], folder: Path) -> None:  # noqa: ARG002 - for those that keep files
        """Takes over what an earlier run was tuned to."""
        self.value = tuning[self.parameter]


def load_task(task: Task) -> Tensor:
    """The waveform `(T,)` of an utterance at 16 kHz.

    Raises:
        AudioError: it cannot be used, has another rate or another length than the manifest says, or makes no frame.
    """
    info = probe(task.file)
    if info.sample_rate != SAMPLE_RATE:
        what = f"{printable(task.file)} has {info.sample_rate} Hz. Segments are of {SAMPLE_RATE} Hz audio, as training is."
        raise AudioError(what, fix="Convert the file first.")
    wav = load_audio(task.file, SAMPLE_RATE)
    if len(wav) != task.samples:
        what = f"{printable(task.file)} has {plural(len(wav), 'sample')}, but the manifest says {task.samples}."
        raise AudioError(what, fix="Make the manifest again.")
    if not count_frames(len(wav)):
        what = f"{printable(task.file)} has {plural(len(wav), 'sample')}, and the first frame needs {FIELD}."
        raise AudioError(what, fix="Leave the file out, with `hubcore manifest --min-seconds`.")
    return wav


def draw_sample(tasks: Iterable[Task], frames: int, seed: int) -> list[Task]:
    """Utterances up to so many frames together, at least one; which ones depends on their paths and the seed alone.

    Example:
        >>> tasks = [Task(name, Path(name), 16000) for name in "abcdef"]
        >>> draw_sample(tasks, 100, 42) == draw_sample(tasks[::-1], 100, 42)
        True
    """

    def order(task: Task) -> bytes:
        return hashlib.blake2b(f"segment\n{seed}\n{task.path}".encode("utf-8", "surrogateescape"), digest_size=8).digest()

    chosen: list[Task] = []
    total = 0
    for task in sorted(tasks, key=lambda task: (order(task), task.path)):
        if chosen and total + count_frames(task.samples) > frames:
            break
        chosen.append(task)
        total += count_frames(task.samples)
    return chosen


class PeakFinder(Finder):
    """Boundaries at peaks of the spectral transition; see `peaks`.

    Args:
        threshold: the least prominence of a boundary; tuned if None.
        workers: processes to compute in; 1 is this one.
    """

    parameter = "threshold"

    def __init__(self, threshold: float | None = None, workers: int = 1) -> None:
        super().__init__(threshold)
        require(workers >= 1, "workers", "at least 1, which is this process", workers)
        self._workers = workers
        self._known: dict[str, Candidates | str] = {}  # of the sample, so that it is not computed twice

    def settings(self) -> dict[str, Any]:
        """Settings asked for."""
        return {"method": "peaks", "threshold": self.given}

    def tune(self, tasks: Sequence[Task], mean_alpha: float, seed: int) -> None:
        """Finds the threshold."""
        if self.given is None:
            self._known = {task.path: found for task, found in self._candidates(draw_sample(tasks, _PEAK_SAMPLE, seed))}
            usable = [found for found in self._known.values() if isinstance(found, Candidates)]
            self.value = tune_threshold(usable, mean_alpha)

    def find(self, tasks: Sequence[Task]) -> Iterator[Found]:
        """The boundaries of each utterance."""
        known = [(task, self._known[task.path]) for task in tasks if task.path in self._known]
        new = [task for task in tasks if task.path not in self._known]
        for task, found in itertools.chain(known, self._candidates(new)):
            yield task, choose(found, self.tuned) if isinstance(found, Candidates) else found

    def _candidates(self, tasks: Sequence[Task]) -> Iterator[tuple[Task, Candidates | str]]:
        chunks = [tasks[start : start + _CHUNK] for start in range(0, len(tasks), _CHUNK)]
        if self._workers == 1 or len(chunks) < 2:
            for chunk in chunks:
                yield from zip(chunk, _chunk_of_candidates(chunk), strict=True)
            return
        # Fresh interpreters: a fork would copy locks that torch's threads may hold.
        context = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(min(self._workers, len(chunks)), context, initializer=torch.set_num_threads, initargs=(1,))
        try:
            for chunk, found in zip(chunks, pool.map(_chunk_of_candidates, chunks), strict=True):
                yield from zip(chunk, found, strict=True)
        finally:
            pool.shutdown(cancel_futures=True)


class ClusterFinder(Finder):
    """Boundaries between runs of frames of like clusters of a hidden layer; see `kmeans`.

    Args:
        upstream: any upstream at 16 kHz, in eval mode, on the device that is to compute.
        layer: the hidden state to use, negative from the end.
        clusters: how many centres.
        penalty: the cost of a segment; tuned if None.
        name: what to call the upstream in the settings.
    """

    parameter = "penalty"

    def __init__(
        self, upstream: Upstream, *, layer: int = -1, clusters: int = 100, penalty: float | None = None, name: str | None = None
    ) -> None:
        super().__init__(penalty)
        if upstream.sample_rate != SAMPLE_RATE:
            what = f"{name or type(upstream).__name__} takes {upstream.sample_rate} Hz. Segments are of {SAMPLE_RATE} Hz audio."
            raise OptionError(what, fix="Choose another upstream.")
        self._made = settings_for(upstream, layer, "float32", name, "npy")
        self._upstream, self._clusters = upstream, clusters
        self._codebook: Codebook | None = None

    def settings(self) -> dict[str, Any]:
        """Settings asked for, and the weights that the features come from."""
        made = {key: value for key, value in self._made.in_row().items() if key in _OF_FEATURES}
        layer = self._made.layers[0]
        return {"method": "kmeans", "penalty": self.given, "clusters": self._clusters, "layer": layer, **made}

    def tune(self, tasks: Sequence[Task], mean_alpha: float, seed: int) -> None:
        """Finds the clusters and the penalty."""
        sample = draw_sample(tasks, _CLUSTER_SAMPLE, seed)
        features = [found for _, found in self._features(sample) if isinstance(found, Tensor)]
        if not features:
            what = "no utterance of the sample could be used to find clusters in."
            raise OptionError(what, fix="Check that the audio is where the manifest says.")
        book = self._codebook = Codebook.fit(torch.cat(features), self._clusters, seed)
        if self.given is not None:
            return
        distances = [book.distances(each) for each in features]
        rest = draw_sample(tasks, _PENALTY_SAMPLE, seed)[len(sample) :]  # the rest of the same draw
        distances += [book.distances(found) for _, found in self._features(rest) if isinstance(found, Tensor)]
        self.value = tune_penalty(distances, mean_alpha)

    def find(self, tasks: Sequence[Task]) -> Iterator[Found]:
        """The boundaries of each utterance."""
        book = self._fitted()
        for task, found in self._features(tasks):
            yield task, found if isinstance(found, str) else best_boundaries([book.distances(found)], self.tuned)[0]

    def files(self) -> Mapping[str, bytes]:
        """The cluster centres."""
        return {CODEBOOK: save(vars(self._fitted()))}

    def restore(self, tuning: Mapping[str, float], folder: Path) -> None:
        """Takes penalty and centres over."""
        super().restore(tuning, folder)
        with SafetensorsFile(folder / CODEBOOK) as file:
            if sorted(file.names) != ["centres", "deviation", "mean"]:
                what = f"{printable(file.path)} holds {', '.join(file.names)}. It is not the codebook of these segments."
                raise ExtractionError(what, fix="Segment into another folder.")
            self._codebook = Codebook(**file.read_many(file.refs))

    def _fitted(self) -> Codebook:
        if self._codebook is None:
            raise OptionError("the clusters are not known yet.", fix="Call tune or restore.")
        return self._codebook

    def _features(self, tasks: Sequence[Task]) -> Iterator[tuple[Task, Tensor | str]]:
        """`(T, D)` of each utterance on the grid, or why there is none; utterances of like length are computed together."""
        batch: list[tuple[Task, Tensor]] = []
        for task in sorted(tasks, key=lambda task: task.samples):
            try:
                wav = load_task(task)
            except AudioError as error:
                yield task, str(error)
                continue
            if batch and (len(batch) + 1) * len(wav) > _BATCH_SECONDS * SAMPLE_RATE:
                yield from self._compute(batch)
                batch = []
            batch.append((task, wav))
        if batch:
            yield from self._compute(batch)

    def _compute(self, batch: Sequence[tuple[Task, Tensor]]) -> Iterator[tuple[Task, Tensor | str]]:
        device = device_of(self._upstream)
        try:
            with torch.inference_mode():
                out = self._upstream([wav.to(device) for _, wav in batch], layers=list(self._made.layers))
        except HubcoreError as error:
            if len(batch) == 1:
                yield batch[0][0], f"{printable(batch[0][0].file)}: {error}"
                return
            for single in batch:  # one that cannot be computed must not cost the others
                yield from self._compute([single])
            return
        for row, (task, wav) in enumerate(batch):
            yield task, on_grid(out, row, count_frames(len(wav)))


def on_grid(out: UpstreamOutput, row: int, frames: int) -> Tensor:
    """`(frames, D)` of one utterance: for each frame of the grid, the upstream's frame whose centre is nearest.

    For wav2vec 2.0 that is its own frame.

    Example:
        >>> from hubcore import hub
        >>> on_grid(hub.load("mfcc")([torch.sin(torch.arange(16000) / 9)]), 0, 49).shape
        torch.Size([49, 39])
    """
    state = out.hidden_states[0][row, : int(out.lengths[row])].float().cpu()
    centres = out.frame_times()[row, : len(state)].cpu().mean(1)
    wanted = (torch.arange(frames, dtype=torch.float64) * STRIDE + FIELD / 2) / SAMPLE_RATE
    return state[torch.searchsorted((centres[1:] + centres[:-1]) / 2, wanted)]


def _chunk_of_candidates(tasks: Sequence[Task]) -> list[Candidates | str]:
    found: list[Candidates | str] = []
    for task in tasks:
        try:
            found.append(find_candidates(load_task(task)))
        except AudioError as error:
            found.append(str(error))
    return found
