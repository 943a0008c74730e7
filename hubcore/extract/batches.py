"""Utterances of a bulk extraction: their names, their layers and their batches."""

from __future__ import annotations

import contextlib
import itertools
import operator
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import SupportsIndex, cast

from hubcore.audio import check_exist, find_audio, full_name, probe
from hubcore.corpus import read_manifest
from hubcore.errors import AudioError, ExtractionError, OptionError
from hubcore.text import path_text, plural, printable


@dataclass(frozen=True)
class Utterance:
    """One audio file to be computed."""

    name: str
    """Its name in the manifest: the path below the folder it was found in, without the ending."""
    path: Path
    """The file."""
    samples: int
    """Its length at the upstream's rate, as the header says."""
    seconds: float
    """Its duration."""


@dataclass(frozen=True)
class Failure:
    """One utterance that could not be computed, and why."""

    utterance: str
    """Its name."""
    source: str
    """Its file."""
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


@dataclass(frozen=True)
class Batches:
    """Batches to compute, longest utterances first, and the files that their headers rule out."""

    batches: tuple[tuple[Utterance, ...], ...]
    """Utterances of similar length, computed together."""
    failures: tuple[Failure, ...] = ()
    """Files whose header rules them out."""

    @property
    def utterances(self) -> tuple[Utterance, ...]:
        """All of them, in the order in which they are computed."""
        return tuple(itertools.chain.from_iterable(self.batches))

    @property
    def seconds(self) -> float:
        """The duration of them all."""
        return sum(item.seconds for item in self.utterances)


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
            states = f"{count} hidden states, 0 ({layer_names[0]}) to {count - 1} ({layer_names[-1]})"
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


def name_utterances(paths: Iterable[str | os.PathLike[str]]) -> dict[str, Path]:
    """The audio files of `paths` by utterance name: the path below its folder without the ending, `/` between folders.

    A path that ends in `.tsv` is a list that `hubcore manifest` wrote. Names are in the order of the paths and of the lists,
    sorted inside a folder.

    Files that would share a name all get the next longer one: with the ending (`a.wav`, `a.flac`), then below the name of
    the folder that was given (`train/a`, `dev/a`), then both.

    Raises:
        AudioError: paths do not exist, or a folder holds no audio file.
        ExtractionError: two files share even the longest name.

    Example:
        >>> import tempfile, pathlib
        >>> root = pathlib.Path(tempfile.mkdtemp())
        >>> (root / "anna").mkdir()
        >>> for name in ("anna/1.wav", "2.flac", "2.wav"):
        ...     (root / name).touch()
        >>> sorted(name_utterances([root]))
        ['2.flac', '2.wav', 'anna/1']
    """
    given = [Path(path) for path in paths]
    check_exist(given)
    choices: dict[Path, tuple[str, ...]] = {}
    seen: set[str] = set()
    for place in given:
        folder, files = _files_of(place)
        for path in files:
            if full_name(path) not in seen:
                seen.add(full_name(path))
                choices[path] = _possible_names(folder, path)
    levels = dict.fromkeys(choices, 0)
    while True:
        named: dict[str, list[Path]] = {}
        for path, level in levels.items():
            named.setdefault(choices[path][level], []).append(path)
        shared = {name: files for name, files in named.items() if len(files) > 1}
        if not shared:
            return {name: files[0] for name, files in named.items()}
        for name, files in shared.items():
            if any(levels[path] + 1 == len(choices[path]) for path in files):
                both = f"{printable(files[0])} and {printable(files[1])}"
                raise ExtractionError(
                    f"{both} would both be the utterance {printable(name)!r}.",
                    fix="Pass the folder that holds both, or extract them into two folders.",
                )
            levels.update((path, levels[path] + 1) for path in files)


def _files_of(given: Path) -> tuple[Path, list[Path]]:
    """The audio files that a path means, and the folder that their names begin below."""
    if given.suffix == ".tsv" and given.is_file():
        manifest = read_manifest(given)
        if not manifest.entries:
            raise ExtractionError(f"{printable(given)} lists no file.", fix="Make it again with `hubcore manifest`.")
        return manifest.root, [manifest.locate(entry) for entry in manifest]
    found = find_audio([given])
    if not given.is_dir():
        return given.parent, found
    return given, sorted(found, key=lambda path: path_text(path.relative_to(given).with_suffix("").as_posix()))


def _possible_names(folder: Path, path: Path) -> tuple[str, ...]:
    """Names of a file below `folder`, the shortest first."""
    relative = path.relative_to(folder)
    short, long = path_text(relative.with_suffix("").as_posix()), path_text(relative.as_posix())
    above = path_text(os.path.basename(os.path.dirname(full_name(folder / "_")))) or "root"
    return short, long, f"{above}/{short}", f"{above}/{long}"


def make_batches(named: Mapping[str, Path], *, sample_rate: int, min_samples: int, batch_seconds: float) -> Batches:
    """The batches for the files of `named`, made from their headers alone.

    Utterances are sorted by length, longest first, so that what does not fit into memory shows at once; a batch holds
    at most `batch_seconds` of audio, or a single longer utterance.

    Example:
        >>> import soundfile, tempfile, pathlib
        >>> root = pathlib.Path(tempfile.mkdtemp())
        >>> for name, length in (("a", 8000), ("b", 16000), ("c", 12000)):
        ...     soundfile.write(root / f"{name}.wav", [0.0] * length, 16000)
        >>> made = make_batches(name_utterances([root]), sample_rate=16000, min_samples=400, batch_seconds=1.5)
        >>> [[item.name for item in batch] for batch in made.batches]
        [['b'], ['c', 'a']]
    """
    utterances: list[Utterance] = []
    failures: list[Failure] = []
    for name, path in named.items():
        try:
            info = probe(path)
            item = Utterance(name, path, info.samples_at(sample_rate), info.seconds)
            check_length(path, item.samples, sample_rate=sample_rate, min_samples=min_samples)
        except AudioError as error:
            failures.append(Failure(name, source_of(path), str(error)))
        else:
            utterances.append(item)
    utterances.sort(key=lambda item: (-item.samples, item.name))
    batches: list[list[Utterance]] = []
    room = 0.0
    for item in utterances:
        if not batches or item.samples > room:
            batches.append([])
            room = batch_seconds * sample_rate
        batches[-1].append(item)
        room -= item.samples
    return Batches(tuple(map(tuple, batches)), tuple(failures))


def check_length(path: Path, samples: int, *, sample_rate: int, min_samples: int) -> None:
    """Raises `AudioError`, naming the file, if it is too short for one frame."""
    if samples < min_samples:
        there, needed = (f"{plural(count, 'sample')} ({1000 * count / sample_rate:.1f} ms)" for count in (samples, min_samples))
        what = f"{printable(path)} has {there} at {sample_rate} Hz, and one frame needs {needed}."
        raise AudioError(what, fix="Leave it out, or pad it yourself.")


def source_of(path: Path) -> str:
    """A file as the manifest names it: its absolute path."""
    return path_text(os.path.abspath(path))
