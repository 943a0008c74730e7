"""A bulk extraction's layers and batches."""

from __future__ import annotations

import contextlib
import operator
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, SupportsIndex, cast

from hubcore.batching import cut_batches
from hubcore.corpus.utterance import Utterance
from hubcore.errors import AudioError, OptionError
from hubcore.text import plural, printable


class Measured(NamedTuple):
    """An utterance to be computed, and its length."""

    utterance: Utterance
    """Its name and its source."""
    samples: int
    """Its length at the upstream's rate, as the header says."""
    seconds: float
    """Its duration."""

    @property
    def name(self) -> str:
        """Its name in the manifest."""
        return self.utterance.name


@dataclass(frozen=True)
class Failure:
    """One utterance that could not be computed, and why."""

    utterance: str
    """Its name."""
    source: str
    """Its file, as it was given."""
    error: str
    """The message, which names the file."""


@dataclass(frozen=True)
class LayerChoice:
    """Hidden states that are written, in one array or several.

    Example:
        >>> choose_layers("all", ("in", "out")), choose_layers("last", ("in", "out"))
        (LayerChoice(indices=(0, 1), stacked=True), LayerChoice(indices=(1,), stacked=False))
    """

    indices: tuple[int, ...]
    """Indices into the upstream's `layer_names`."""
    stacked: bool
    """True for `(L, F, D)`, False for `(F, D)`."""


def choose_layers(choice: str | SupportsIndex | Sequence[str | SupportsIndex], layer_names: Sequence[str]) -> LayerChoice:
    """The layers that `choice` means: `"all"`, `"last"`, one (`9`, `"9"`, `"block_9"`) or several (`[0, 6]`, `"0,6"`, `"1-3"`).

    Args:
        choice: indices, of which negative ones count from the end, and integers of any kind, NumPy's too; or names of layers.
        layer_names: those of the upstream.

    Raises:
        OptionError: not such a choice, or a layer that does not exist or comes twice.

    Example:
        >>> choose_layers("0,-1", ("in", "middle", "out")).indices, choose_layers("1-2", ("in", "middle", "out")).indices
        ((0, 2), (1, 2))
        >>> choose_layers("middle", ("in", "middle", "out"))
        LayerChoice(indices=(1,), stacked=False)
    """
    count = len(layer_names)
    if isinstance(choice, str):
        if choice == "all":
            return LayerChoice(tuple(range(count)), stacked=True)
        if choice == "last":
            return LayerChoice((count - 1,), stacked=False)
    given, single = _layers_given(choice, layer_names)
    if not given:
        usual = f"all, last, one such as 9 or {layer_names[-1]}, or several such as 0,6,12 or 1-3, from 0 to {count - 1}"
        raise OptionError(f"layers is {choice!r}. It must be {usual}.")
    for index in given:
        if not -count <= index < count:
            states = f"{plural(count, 'hidden state')}, 0 ({layer_names[0]}) to {count - 1} ({layer_names[-1]})"
            raise OptionError(f"there is no layer {index}. This upstream has {states}.", fix="Choose one of these.")
    indices = tuple(index % count for index in given)
    if len(set(indices)) < len(indices):
        raise OptionError(f"layers is {choice!r}, which names a layer twice.", fix="Name each once.")
    return LayerChoice(indices, stacked=not single)


def _layers_given(
    choice: str | SupportsIndex | Sequence[str | SupportsIndex], layer_names: Sequence[str]
) -> tuple[list[int], bool]:
    """The indices as given, and whether it is one alone; no indices where they are neither integers nor names."""
    try:
        if isinstance(choice, str):
            parts = choice.split(",")
            found = [index for part in parts for index in _spelt(part.strip(), layer_names)]
            return found, len(parts) == 1 and not _RANGE.fullmatch(choice.strip())
        if isinstance(choice, SupportsIndex):
            with contextlib.suppress(TypeError):  # an array of several numbers has __index__, and raises
                return [operator.index(choice)], True
        items = cast("Sequence[str | SupportsIndex]", choice)
        names = {name: index for index, name in enumerate(layer_names)}
        return [names[item] if isinstance(item, str) else operator.index(item) for item in items], False
    except (KeyError, TypeError, ValueError):
        return [], False


_RANGE = re.compile(r"([0-9]+)-([0-9]+)", re.ASCII)


def _spelt(part: str, layer_names: Sequence[str]) -> Iterable[int]:
    """The indices that one part of a text means: a name, an integer, or a range with both of its ends.

    Raises:
        ValueError: none of these.
    """
    if part in layer_names:
        return [layer_names.index(part)]
    ends = _RANGE.fullmatch(part)
    if ends and int(ends[1]) <= int(ends[2]) < 10 * len(layer_names):
        return range(int(ends[1]), int(ends[2]) + 1)
    return [int(part)]


def measure(utterances: Iterable[Utterance], *, sample_rate: int, min_samples: int) -> tuple[list[Measured], list[Failure]]:
    """The utterances with their lengths, from their headers alone, longest first, and those that their headers rule out.

    The longest come first so that what does not fit into memory shows at once.

    Example:
        >>> import soundfile, tempfile, pathlib
        >>> from hubcore.corpus import find_utterances
        >>> root = pathlib.Path(tempfile.mkdtemp())
        >>> for name, length in (("a", 8000), ("b", 16000), ("c", 12)):
        ...     soundfile.write(root / f"{name}.wav", [0.0] * length, 16000)
        >>> measured, failures = measure(find_utterances([root]), sample_rate=16000, min_samples=400)
        >>> [item.name for item in measured], [failure.utterance for failure in failures]
        (['b', 'a'], ['c'])
    """
    measured: list[Measured] = []
    failures: list[Failure] = []
    for utterance in utterances:
        try:
            info = utterance.probe()
            item = Measured(utterance, info.samples_at(sample_rate), info.seconds)
            check_length(utterance.source.given, item.samples, sample_rate=sample_rate, min_samples=min_samples)
        except AudioError as error:
            failures.append(failure_of(utterance, error))
        else:
            measured.append(item)
    measured.sort(key=lambda item: (-item.samples, item.name))
    return measured, failures


def batches_of(measured: Sequence[Measured], batch_seconds: float, sample_rate: int) -> tuple[tuple[Measured, ...], ...]:
    """Utterances in their order, cut into batches of at most `batch_seconds`, or of a single longer utterance.

    Example:
        >>> from hubcore.corpus import File
        >>> items = [Measured(Utterance("a", File("a.wav")), samples, 0.0) for samples in (9, 4, 3, 2)]
        >>> [[item.samples for item in batch] for batch in batches_of(items, 8, sample_rate=1)]
        [[9], [4, 3], [2]]
    """
    cuts = cut_batches([item.samples for item in measured], batch_seconds * sample_rate)
    return tuple(tuple(measured[cut]) for cut in cuts)


def failure_of(utterance: Utterance, error: AudioError) -> Failure:
    """The failure of an utterance whose audio cannot be used; the message names it.

    Example:
        >>> from hubcore.corpus import File
        >>> failure_of(Utterance("a", File("x/a.wav")), AudioError("x/a.wav is empty."))
        Failure(utterance='a', source='x/a.wav', error='x/a.wav is empty.')
    """
    return Failure(utterance.name, utterance.source.given, str(error))


def check_length(name: str | os.PathLike[str], samples: int, *, sample_rate: int, min_samples: int) -> None:
    """Raises `AudioError`, naming the audio, if it is too short for one frame."""
    if samples < min_samples:
        there, needed = (f"{plural(count, 'sample')} ({1000 * count / sample_rate:.1f} ms)" for count in (samples, min_samples))
        what = f"{printable(name)} has {there} at {sample_rate} Hz, and one frame needs {needed}."
        raise AudioError(what, fix="Leave it out, or pad it yourself.")
