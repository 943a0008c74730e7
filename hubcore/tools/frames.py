"""The hidden states of one utterance after another, for pictures: computed from audio, or read from a folder of features.

`ComputedFrames` and `StoredFrames` have the same attributes and the same `read`. Shapes: `F` frames, `D` dim.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from hubcore import features
from hubcore.corpus import File, Utterance
from hubcore.errors import AudioError, ExtractionError, OptionError, nearest_hint
from hubcore.extract.batches import check_length, choose_layers
from hubcore.protocol import Upstream
from hubcore.text import plural, printable, text_path

MOST_SECONDS = 600.0
"""Longest utterance that is computed in one pass, as attention takes memory by the square of the length."""


class Frames(NamedTuple):
    """The frames of one utterance."""

    states: tuple[NDArray[Any], ...]
    """`(F, D)` for each layer."""
    times: NDArray[np.float64]
    """`(F, 2)` seconds: start and end of each frame."""


class ComputedFrames:
    """Frames that an upstream computes when they are asked for.

    Args:
        upstream: any upstream.
        utterances: the corpus.
        layers: a choice of layers, as `hubcore extract --layers` takes it; the upstream's default if None.
        name: what to call the upstream; as its card does, or its class, if empty.
        options: options of each call.

    Raises:
        OptionError: no such layer.

    Example:
        >>> import soundfile, tempfile
        >>> from hubcore import hub
        >>> path = Path(tempfile.mkdtemp()) / "a.wav"
        >>> soundfile.write(path, np.sin(np.arange(16000) / 9), 16000)
        >>> frames = ComputedFrames(hub.load("wav2vec2_tiny_prompts"), [Utterance("a", File(path))], layers="0,4")
        >>> frames.layer_names, [state.shape for state in frames.read("a").states]
        (('input', 'block_4'), [(49, 96), (49, 96)])
    """

    def __init__(
        self,
        upstream: Upstream,
        utterances: Iterable[Utterance],
        *,
        layers: str | None = None,
        name: str = "",
        options: Mapping[str, Any] | None = None,
    ) -> None:
        card = upstream.card
        self.upstream, self.options = upstream, dict(options or {})
        usual = getattr(upstream, "options", {}).get("layers")
        self._layers = choose_layers(layers if layers is not None else usual or "all", upstream.layer_names).indices
        self.name = name or (card.name if card else type(upstream).__name__)
        """The upstream."""
        self.note = card.note if card and card.note and card.needs_weights else ""
        """A remark about the weights that a reader must know; may be empty."""
        self.layer_names = tuple(upstream.layer_names[index] for index in self._layers)
        """The layers that are read."""
        self.utterances: Mapping[str, Utterance] = {utterance.name: utterance for utterance in utterances}
        """The corpus, by name."""

    def seconds(self, utterance: str) -> float | None:  # noqa: ARG002 - that of StoredFrames
        """None: an upstream computes on the audio that is there."""
        return None

    def waveform(self, utterance: str) -> torch.Tensor:
        """`(T,)` samples at the upstream's rate.

        Raises:
            AudioError: the audio cannot be used, or is too long for one pass.
        """
        found = self.utterances[utterance]
        seconds = found.probe().seconds
        if seconds > MOST_SECONDS:
            what = f"{printable(found.source.given)} has {seconds:.0f} s, and a picture is computed in one pass."
            raise AudioError(what, fix=f"Name parts of up to {MOST_SECONDS:.0f} s in a list: `hubcore docs corpora`.")
        wav, upstream = found.read(self.upstream.sample_rate), self.upstream
        check_length(found.source.given, len(wav), sample_rate=upstream.sample_rate, min_samples=upstream.min_samples)
        return wav

    def read(self, utterance: str) -> Frames:
        """The frames of an utterance.

        Raises:
            AudioError: the audio cannot be used.
        """
        with torch.inference_mode():
            out = self.upstream([self.waveform(utterance)], layers=self._layers, **self.options)
            states = tuple(state.float().cpu().numpy() for state in out.unpad()[0])
            return Frames(states, out.frame_times()[0].double().cpu().numpy())


class StoredFrames:
    """Frames that `hubcore extract` wrote.

    Args:
        folder: its output folder.
        layers: a choice among the layers that it holds; all if None.
        corpus: utterances that replace the audio files of the manifest, by their names.

    Raises:
        ExtractionError: it holds no features, or vectors and no frames.
        OptionError: no such layer.

    Example:
        >>> import soundfile, tempfile
        >>> from hubcore import hub
        >>> from hubcore.extract import extract
        >>> root = Path(tempfile.mkdtemp())
        >>> soundfile.write(root / "a.wav", np.sin(np.arange(16000) / 9), 16000)
        >>> _ = extract([root], hub.load("fbank"), root / "out")
        >>> frames = StoredFrames(root / "out")
        >>> frames.name, frames.layer_names, frames.read("a").states[0].shape
        ('fbank', ('features',), (98, 240))
    """

    upstream: None = None
    """No upstream is loaded."""

    def __init__(
        self, folder: str | os.PathLike[str], *, layers: str | None = None, corpus: Iterable[Utterance] | None = None
    ) -> None:
        self.folder = features.open(folder)
        settings, card = self.folder.record.settings, self.folder.card
        if settings["pool"]:
            what = f"{printable(folder)} holds one vector for each utterance (pool is {settings['pool']!r}), and no frames."
            raise ExtractionError(what, fix="Extract without --pool.")
        mixed = settings["mix"] is not None
        names = (f"mix of {', '.join(self.folder.layer_names)}",) if mixed else self.folder.layer_names
        self._layers = choose_layers(layers or "all", names).indices
        self.layer_names = tuple(names[index] for index in self._layers)
        """The layers that are read."""
        self.name = str(settings["upstream"])
        """The upstream that made them."""
        self.options: Mapping[str, Any] = settings["options"]
        """The options that it had."""
        self.note = card.note if card and card.note and card.needs_weights else ""
        """A remark about its weights."""
        given = None if corpus is None else {utterance.name: utterance for utterance in corpus}
        rows = self.folder.rows
        self.utterances: Mapping[str, Utterance] = (
            {name: _utterance(row) for name, row in rows.items()}
            if given is None
            else {name: given[name] for name in rows if name in given}
        )
        """The utterances with their audio, by name."""

    def seconds(self, utterance: str) -> float | None:
        """The duration of the audio that the features were made from."""
        return float(self.folder.rows[utterance]["seconds"])

    def read(self, utterance: str) -> Frames:
        """The frames of an utterance.

        Raises:
            ExtractionError: its file cannot be read.
        """
        found = self.folder[utterance]
        arrays = found.array[None] if found.array.ndim == 2 else found.array
        return Frames(tuple(np.asarray(arrays[index], dtype=np.float32) for index in self._layers), found.times)


AnyFrames = ComputedFrames | StoredFrames


def is_features(path: str | os.PathLike[str]) -> bool:
    """True for a folder that `hubcore extract` wrote.

    Example:
        >>> is_features("no/such/folder")
        False
    """
    return (Path(path) / "run.json").is_file()


def chosen(frames: AnyFrames, named: Sequence[str]) -> list[str]:
    """Names of utterances, checked.

    Raises:
        OptionError: there is no such utterance.

    Example:
        >>> from hubcore import hub
        >>> chosen(ComputedFrames(hub.load("fbank"), [Utterance("a", File("a.wav"))]), ["b"])
        Traceback (most recent call last):
        hubcore.errors.OptionError: no utterance is called 'b'. There is 1 utterance, such as a.
    """
    for name in named:
        if name not in frames.utterances:
            count = len(frames.utterances)
            there = f"There {'is' if count == 1 else 'are'} {plural(count, 'utterance')}"
            otherwise = f"{there}, such as {printable(next(iter(frames.utterances)))}." if count else f"{there}."
            raise OptionError(f"no utterance is called {printable(name)!r}.", nearest_hint(name, frames.utterances, otherwise))
    return [*named]


def _utterance(row: Mapping[str, Any]) -> Utterance:
    """The audio of a row of a manifest."""
    source = File(text_path(row["source"]))
    return Utterance(row["utterance"], source, row.get("start") or 0.0, row.get("end"), row.get("channel"))
