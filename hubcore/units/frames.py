"""Frames of one layer, utterance by utterance, from a folder of features or straight from audio.

From audio nothing is stored: the worker of `hubcore extract` decodes and computes batch after batch, and hands the arrays over.

Shapes: `F` frames, `D` dim.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from hubcore.corpus.find import utterances_by_name
from hubcore.corpus.utterance import Utterance
from hubcore.errors import AudioError, OptionError
from hubcore.extract.batches import Failure, Measured, batches_of, choose_layers, measure
from hubcore.extract.record import Record
from hubcore.extract.run import device_of
from hubcore.extract.settings import Chunks, settings_for
from hubcore.extract.work import Unit, Worker
from hubcore.features.folder import FeatureFolder
from hubcore.protocol import Upstream
from hubcore.text import listed, plural, printable
from hubcore.units.codebook import final_norm_in

_Item = TypeVar("_Item")
_NO_OPTIONS: Mapping[str, Any] = MappingProxyType({})


class Frames(NamedTuple):
    """The frames of one utterance."""

    name: str
    """Its name."""
    array: NDArray[Any]
    """`(F, D)`."""
    seconds: float
    """Its duration."""


class FrameSource(Protocol):
    """Frames of one layer that can be gone through several times."""

    record: Record
    """Settings that made them, with this one layer."""
    final_norm: bool | None
    """True if the layer includes the final norm; None if that is not known."""
    seconds: float
    """The duration of all utterances."""
    failures: list[Failure]
    """Utterances that could not be computed, once they were tried."""

    def in_order(self, seed: int) -> Iterator[Frames]:
        """All utterances, in a random order that depends on the seed alone."""
        ...


class FolderFrames:
    """The frames of one layer of a folder of features.

    Example:
        >>> import soundfile, tempfile
        >>> from hubcore import features, hub
        >>> from hubcore.extract import extract
        >>> folder = Path(tempfile.mkdtemp())
        >>> soundfile.write(folder / "a.wav", np.sin(np.arange(16000) / 9), 16000)
        >>> _ = extract([folder], hub.load("fbank"), folder / "out")
        >>> [frames.array.shape for frames in FolderFrames(features.open(folder / "out")).in_order(seed=0)]
        [(98, 240)]
    """

    def __init__(self, folder: FeatureFolder, layer: int | str | None = None, *, upstream: Upstream | None = None) -> None:
        """Those of a folder.

        Args:
            folder: of `hubcore.features.open`.
            layer: its index into the upstream's `layer_names`, or its name; may be None where the folder has one alone.
            upstream: the one that made the features, which knows whether the final norm is in them.

        Raises:
            OptionError: the layer is not in the folder, the features are mixed or pooled, or another upstream made them.
        """
        record, where = folder.record, printable(folder.folder)
        for key, made in (("pool", "one vector for each utterance"), ("mix", "a sum of layers")):
            if record.settings[key]:
                raise OptionError(
                    f"{where} has {made}, and units are of the frames of one layer.", fix=f"Extract without --{key}."
                )
        layers: Sequence[int] = record.settings["layers"]
        spelt = {
            str(spelling): place for place, pair in enumerate(zip(layers, record.layer_names, strict=True)) for spelling in pair
        }
        if layer is None and len(layers) == 1:
            layer = layers[0]
        if str(layer) not in spelt:
            there = ", ".join(f"{index} ({name})" for index, name in zip(layers, record.layer_names, strict=True))
            what = "no layer is given" if layer is None else f"there is no layer {layer} in {where}"
            raise OptionError(f"{what}.", fix=f"It has {there}: choose one with --layer.")
        self._place = spelt[str(layer)]
        settings = {**record.settings, "layers": [layers[self._place]]}
        self.record = Record(settings, (record.layer_names[self._place],), record.card, record.version)
        self.final_norm: bool | None = None
        if upstream is not None:
            own = Record.of(upstream, settings_for(upstream, layers[self._place], "float32", None, "npy"))
            other = self.record.other_upstream(own.settings)
            if other:
                what = f"{where} has features of another upstream: {'; '.join(other)}."
                raise OptionError(what, fix="Name the one that made them, or none.")
            self.final_norm = final_norm_in(upstream, layers[self._place])
        self.folder = folder
        self.seconds = float(sum(row["seconds"] for row in folder.rows.values()))
        self.failures: list[Failure] = []

    def __getitem__(self, utterance: str) -> NDArray[Any]:
        """The frames `(F, D)` of an utterance."""
        array = self.folder[utterance].array
        return array[self._place] if array.ndim == 3 else array

    def in_order(self, seed: int) -> Iterator[Frames]:
        """All utterances, those of one shard one after the other, as it is read as a whole."""
        shards: dict[str, list[str]] = {}
        for name, row in self.folder.rows.items():
            shards.setdefault(row["file"], []).append(name)
        for name in (name for shard in _shuffled([*shards.values()], seed) for name in shard):
            yield Frames(name, self[name], self.folder.rows[name]["seconds"])


class AudioFrames:
    """The frames of one layer of an upstream, computed anew each time.

    Example:
        >>> import soundfile, tempfile
        >>> from hubcore import hub
        >>> folder = Path(tempfile.mkdtemp())
        >>> soundfile.write(folder / "a.wav", np.sin(np.arange(16000) / 9), 16000)
        >>> [frames.array.shape for frames in AudioFrames([folder], hub.load("wav2vec2_tiny_prompts"), 2).in_order(seed=0)]
        [(49, 96)]
    """

    def __init__(
        self,
        paths: Iterable[str | os.PathLike[str]] | Iterable[Utterance],
        upstream: Upstream,
        layer: int | str | None = None,
        *,
        name: str | None = None,
        batch_seconds: float = 60.0,
        chunk_seconds: float | None = None,
        workers: int = 1,
        device: str | torch.device | None = None,
        call_options: Mapping[str, Any] = _NO_OPTIONS,
    ) -> None:
        """Those of audio, whose headers are read now.

        Args:
            paths: as `hubcore.extract.extract` takes them, like what follows.
            upstream: in eval mode, on the device that is to compute.
            layer: its index into the upstream's `layer_names`, or its name; may be None where there is one alone.
            name: of the upstream.
            batch_seconds: at most so much audio is computed at once.
            chunk_seconds: what is longer is computed in chunks.
            workers: threads that decode.
            device: where the waveforms go.
            call_options: keywords of each call.

        Raises:
            AudioError: no file can be used.
            OptionError: no such layer, or none is given.
        """
        layer = single_layer(upstream, layer)
        self._upstream, self._workers = upstream, workers
        self._device = device_of(upstream) if device is None else torch.device(device)
        self._scratch = Path(tempfile.gettempdir())
        chunks = None if chunk_seconds is None else Chunks(chunk_seconds, None, self._scratch)
        self._settings = settings_for(upstream, layer, "float32", name, "npy", call_options, chunks=chunks)
        self.record = Record.of(upstream, self._settings)
        self.final_norm = final_norm_in(upstream, layer)
        given = utterances_by_name(paths).values()
        measured, self._unusable = measure(given, sample_rate=upstream.sample_rate, min_samples=upstream.min_samples)
        if not measured:
            first = self._unusable[0].error if self._unusable else "there is none."
            raise AudioError(f"none of {plural(len(given), 'utterance')} can be used. The first: {first}")
        self._batches = batches_of(measured, batch_seconds, upstream.sample_rate)
        self.seconds = sum(item.seconds for item in measured)
        self.failures: list[Failure] = [*self._unusable]

    def in_order(self, seed: int) -> Iterator[Frames]:
        """All utterances: batches of similar lengths, in a random order."""
        hand, found = _Hand(), [*self._unusable]
        worker = Worker(self._upstream, self._settings, hand, self._device, self._workers)
        with contextlib.closing(worker.run(_unit(batch) for batch in _shuffled(self._batches, seed))) as results:
            for result, _ in results:
                found += result.failures
                if result.stopped:
                    raise result.stopped
                for row in result.rows:
                    yield Frames(row["utterance"], hand.arrays.pop(row["utterance"]), row["seconds"])
        self.failures[:] = sorted(found, key=lambda failure: failure.utterance)


def single_layer(upstream: Upstream, layer: int | str | None) -> int:
    """The index of the one layer that is meant; the only one of the upstream if None.

    Raises:
        OptionError: there is none such, or several.

    Example:
        >>> from hubcore import hub
        >>> single_layer(hub.load("fbank"), None), single_layer(hub.load("wav2vec2_tiny_prompts"), "block_2")
        (0, 2)
    """
    names = upstream.layer_names
    if layer is None and len(names) > 1:
        raise OptionError(
            "no layer is given.", fix=f"Choose one of {listed(names, 50)}, by name or by number from 0: --layer 9."
        )
    choice = choose_layers(0 if layer is None else layer, names)
    if choice.stacked:
        raise OptionError(f"the layer is {layer!r}. Units are of one layer.", fix="Name it by its number, such as 9.")
    return choice.indices[0]


def _shuffled(items: Sequence[_Item], seed: int) -> list[_Item]:
    return [items[place] for place in np.random.default_rng(seed).permutation(len(items))]


def _unit(batch: tuple[Measured, ...]) -> Unit:
    return Unit(None, (batch,), frozenset(item.name for item in batch), {})


class _Hand:
    """A writer that keeps arrays until they are taken."""

    def __init__(self) -> None:
        self.arrays: dict[str, NDArray[Any]] = {}

    def write(self, utterance: str, features: NDArray[Any]) -> str:
        self.arrays[utterance] = features
        return ""

    def holds(self, file: str, shape: tuple[int, ...], dtype: str) -> bool:  # noqa: ARG002 - a writer's signature
        return False

    def close(self) -> None:
        pass
