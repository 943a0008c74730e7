"""Reading audio for a run: `Corpus`, the utterances of manifests; `Epochs`, their batches; `BatchReader`, audio ahead of use.

A batch is a function of the run's seed, its epoch and its place in it. Reading may happen in any order and in any thread.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hubcore.audio import load_audio
from hubcore.batching import shuffled_batches
from hubcore.corpus.manifest import read_manifest
from hubcore.errors import AudioError, HubcoreError, OptionError, nearest_hint
from hubcore.pretrain.objective import Batch
from hubcore.pretrain.seeds import derive_seed
from hubcore.text import listed, plural, printable

_STAND_INS = 100
"""Utterances that are tried where one must stand in for what cannot be read."""


@dataclass(frozen=True)
class Utterance:
    """One audio file to learn from."""

    key: str
    """Its path below the manifest's root."""
    path: Path
    samples: int
    """Its length as the manifest says."""


@dataclass(frozen=True)
class Corpus:
    """The utterances of some manifests, those that are too short apart."""

    utterances: tuple[Utterance, ...]
    too_short: tuple[Utterance, ...]
    """Below `min_samples`."""

    @property
    def samples(self) -> int:
        """Samples of all utterances."""
        return sum(item.samples for item in self.utterances)

    def fingerprint(self) -> str:
        """A digest of which utterances there are, in their order, and of their lengths; not of their audio."""
        digest = hashlib.sha256()
        for item in self.utterances:
            digest.update(f"{item.key}\t{item.samples}\n".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()


def read_corpus(manifests: Sequence[str], min_samples: int, max_samples: int | None, max_samples_per_batch: int) -> Corpus:
    r"""The utterances of some manifests, in their order.

    Raises:
        OptionError: the root of a manifest is not there, no utterance is long enough, or one does not fit into a batch.
        ExtractionError: a manifest cannot be read.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "train.tsv"
        >>> _ = path.write_text(f"{path.parent}\na.flac\t40000\nb.flac\t100\n")
        >>> corpus = read_corpus([str(path)], min_samples=32000, max_samples=None, max_samples_per_batch=1400000)
        >>> [item.key for item in corpus.utterances], len(corpus.too_short)
        (['a.flac'], 1)
    """
    items: list[Utterance] = []
    short: list[Utterance] = []
    for name in manifests:
        manifest = read_manifest(name)
        if not manifest.root.is_dir():
            where = "" if manifest.root.is_absolute() else " in the working folder"
            raise OptionError(
                f"{printable(name)}:1: the root {printable(manifest.root)} is not a folder{where}. Write its absolute path."
            )
        for entry in manifest:
            item = Utterance(entry.path, manifest.locate(entry), entry.samples)
            (items if item.samples >= min_samples else short).append(item)
    names = ", ".join(map(printable, manifests))
    if not items:
        raise OptionError(
            f"{names}: of {plural(len(short), 'utterance')} none has {min_samples} samples (data.min_samples).",
            fix="Lower it, or use longer recordings.",
        )
    longest = max(items, key=lambda item: item.samples)
    size = min(longest.samples, max_samples or longest.samples)
    if size > max_samples_per_batch:
        raise OptionError(
            f"{names}: {printable(longest.key)} has {longest.samples} samples, of which {size} would be used. A batch holds "
            f"{max_samples_per_batch} (data.max_samples_per_batch). Raise that, or set data.max_samples to crop."
        )
    return Corpus(tuple(items), tuple(short))


@dataclass(frozen=True)
class Place:
    """Position in the endless sequence of batches."""

    epoch: int
    position: int
    """Its place among the epoch's batches."""


class Epochs:
    """The endless sequence of batches of a corpus: one epoch after the other.

    Example:
        >>> epochs = Epochs([16000, 16000], seed=1, max_samples_per_batch=16000)
        >>> [place.epoch for place, _ in epochs.take(Place(0, 1), 3)], epochs.after(Place(0, 1), 3)
        ([0, 1, 1], Place(epoch=2, position=0))
    """

    def __init__(self, lengths: Sequence[int], *, seed: int, max_samples_per_batch: int) -> None:
        self.lengths = list(lengths)
        self._seed, self._cap = seed, max_samples_per_batch
        self._epochs: dict[int, list[tuple[int, ...]]] = {}

    def epoch(self, number: int) -> list[tuple[int, ...]]:
        """The batches of an epoch."""
        if number not in self._epochs:
            self._epochs = {old: batches for old, batches in self._epochs.items() if old == number - 1}
            self._epochs[number] = shuffled_batches(self.lengths, self._cap, seed=self._seed, epoch=number)
        return self._epochs[number]

    def take(self, start: Place, count: int) -> list[tuple[Place, tuple[int, ...]]]:
        """The `count` batches from `start` on."""
        found: list[tuple[Place, tuple[int, ...]]] = []
        epoch, position = start.epoch, start.position
        while len(found) < count:
            batches = self.epoch(epoch)
            if position >= len(batches):
                epoch, position = epoch + 1, 0
                continue
            found.append((Place(epoch, position), batches[position]))
            position += 1
        return found

    def after(self, start: Place, count: int) -> Place:
        """The place `count` batches behind `start`."""
        last = self.take(start, count)[-1][0]
        if last.position + 1 == len(self.epoch(last.epoch)):
            return Place(last.epoch + 1, 0)
        return Place(last.epoch, last.position + 1)


@dataclass(frozen=True)
class Loaded:
    """A batch with its audio."""

    batch: Batch
    samples: int
    """Samples of its waveforms together; 0 for a stand-in."""
    unreadable: Mapping[str, str] = field(default_factory=dict)
    """Utterances that are not in it, and why."""
    stand_in: bool = False
    """Nothing could be read: it holds noise, and must count nothing."""


@dataclass(frozen=True)
class Cropping:
    """Limits to which waveforms are cut."""

    max_samples: int | None = None
    """Most samples of an utterance; None for no limit."""
    stride: int = 1
    """Cuts are at multiples of it, so that frames stay whole."""
    to_shortest: bool = False
    """Cut all to the shortest of their batch at any sample, as fairseq's collater does."""


@dataclass(frozen=True)
class BatchReader:
    """Reads batches of a corpus: waveforms and what guides them."""

    utterances: Sequence[Utterance]
    sample_rate: int
    """Of the model, in Hz."""
    cropping: Cropping
    guidance: Mapping[str, Any] | None = None
    """Supervision of each utterance, by its key."""
    seed: int = 0
    """Seed of random crops."""
    exclude: frozenset[str] = frozenset()
    """Keys of utterances that are left out."""

    def load(self, place: Place, indices: Sequence[int]) -> Loaded:
        """One batch; an utterance that cannot be read is left out of it, and reported."""
        read: list[tuple[Utterance, Tensor, Any]] = []
        failed: dict[str, str] = {}
        for item in self.named(indices):
            try:
                wav = load_audio(item.path, self.sample_rate)
                if len(wav) != item.samples:
                    raise AudioError(
                        f"{printable(item.path)} gives {len(wav)} samples at {self.sample_rate} Hz, but the manifest says "
                        f"{item.samples}. The file was changed, or has another rate. Make the manifest again."
                    )
                read.append((item, wav, self._guide(item)))
            except (HubcoreError, OSError, KeyError) as error:
                failed[item.key] = str(error) if not isinstance(error, KeyError) else f"there is no supervision of {error}"
        stand_in = not read
        if stand_in:
            read = [self._noise(indices[0])]
        starts, wavs = self._crop(place, [wav for _, wav, _ in read])
        guides = [guide for _, _, guide in read] if self.guidance is not None else None
        batch = Batch(wavs, [item.key for item, _, _ in read], starts, guides)
        return Loaded(batch, 0 if stand_in else sum(map(len, wavs)), failed, stand_in)

    def named(self, indices: Sequence[int]) -> list[Utterance]:
        """The utterances of a batch, without those that are left out."""
        return [item for item in map(self.utterances.__getitem__, indices) if item.key not in self.exclude]

    def _guide(self, item: Utterance) -> Any:
        """Supervision of an utterance; where it can be compared with the audio's length, it is."""
        if self.guidance is None:
            return None
        read = getattr(self.guidance, "read", None)
        return self.guidance[item.key] if read is None else read(item.key, samples=item.samples)

    def _noise(self, index: int) -> tuple[Utterance, Tensor, Any]:
        """Noise instead of an utterance that cannot be read, so that every process still has something to compute.

        Raises:
            OptionError: neither it nor any of those behind it has supervision that can be read.
        """
        reason, count = "", min(len(self.utterances), _STAND_INS)
        for step in range(count):
            item = self.utterances[(index + step) % len(self.utterances)]
            try:
                guide = self._guide(item)
            except (HubcoreError, OSError, KeyError) as error:
                reason = reason or str(error)
                continue
            generator = torch.Generator().manual_seed(derive_seed(self.seed, "noise", item.key))
            samples = min(item.samples, self.cropping.max_samples or item.samples)
            return item, torch.randn(samples, generator=generator) * 1e-3, guide
        raise OptionError(
            f"supervision was found of {plural(count, 'utterance')}, and none can be used, the first because: {reason}",
            fix="data.segments or data.units must be of this corpus; two roots of segments are given alphas first.",
        )

    def _crop(self, place: Place, wavs: Sequence[Tensor]) -> tuple[list[int], list[Tensor]]:
        cropping = self.cropping
        limit = cropping.max_samples or max(map(len, wavs))
        if cropping.to_shortest:
            limit = min(limit, *map(len, wavs))
        stride = 1 if cropping.to_shortest else cropping.stride
        starts = []
        for item, wav in enumerate(wavs):
            choices = max(len(wav) - limit, 0) // stride + 1
            drawn = derive_seed(self.seed, "crop", place.epoch, place.position, item)
            starts.append(drawn * choices // 2**32 * stride)
        return starts, [wav[start : start + limit].contiguous() for start, wav in zip(starts, wavs, strict=True)]


def read_ahead(reader: BatchReader, places: Iterator[tuple[Place, tuple[int, ...]]], *, workers: int) -> Iterator[Loaded]:
    """The batches at `places`, in that order, read by `workers` threads before they are asked for; by none, when they are."""
    if workers == 0:
        for place, indices in places:
            yield reader.load(place, indices)
        return
    with ThreadPoolExecutor(workers, thread_name_prefix="hubcore-audio") as pool:
        ahead: deque[Future[Loaded]] = deque()
        try:
            for place, indices in places:
                ahead.append(pool.submit(reader.load, place, indices))
                if len(ahead) > 2 * workers:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()


def check_excluded(exclude: Sequence[str], *corpora: Corpus) -> None:
    """Raises `OptionError` unless each excluded key is of an utterance, and some utterances of each corpus are left."""
    listed = {item.key for corpus in corpora for item in (*corpus.utterances, *corpus.too_short)}
    unknown = next((key for key in exclude if key not in listed), None)
    if unknown is not None:
        raise OptionError(
            f"data.exclude names {printable(unknown)}, which no manifest lists. {nearest_hint(unknown, list(listed))}",
            fix="Write its path as the manifest does.",
        )
    if any({item.key for item in corpus.utterances} <= set(exclude) for corpus in corpora):
        raise OptionError("data.exclude leaves no utterance of a manifest.", fix="Shorten it.")


def check_guidance(utterances: Sequence[Utterance], guidance: Mapping[str, Any] | None, kind: str) -> None:
    """Raises `OptionError` if an utterance has no supervision; `kind` is the key of `data` that should hold it."""
    if guidance is None:
        return
    missing = [item.key for item in utterances if item.key not in guidance]
    if missing:
        command = {"segments": "hubcore segment", "units": "hubcore units apply"}.get(kind, "")
        raise OptionError(
            f"there are no {kind} of {len(missing)} of {plural(len(utterances), 'utterance')}: "
            f"{listed(map(printable, missing))}.",
            fix=f"Run `{command}` on the manifest, or correct data.{kind}; what it reports as failed must leave the manifest.",
        )
