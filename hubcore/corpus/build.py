"""`build_manifest`: the audio files below a folder, measured in parallel and split in two by seed and name.

The same folder gives the same manifests, whatever the order of the file system and the number of workers. Files that cannot be
used are listed with the reason, and change nothing for the others.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hubcore.corpus.files import write_together
from hubcore.corpus.manifest import Manifest, ManifestEntry, manifest_text, why_not_a_name
from hubcore.errors import AudioError, ExtractionError, OptionError
from hubcore.fields import require
from hubcore.files import output_folder
from hubcore.text import path_text, printable, text_path

if TYPE_CHECKING:
    from hubcore.audio import AudioInfo


@dataclass(frozen=True)
class LeftOut:
    """A file that is in no manifest, and why.

    Example:
        >>> LeftOut("a.wav", "it is empty").path
        'a.wav'
    """

    path: str
    """Its path below the root."""
    reason: str
    """Why, in a sentence."""


@dataclass(frozen=True)
class Built:
    """Files found below a folder; `build_manifest` makes it and `write_built` writes it.

    Example:
        >>> from hubcore.corpus import Manifest
        >>> Built(Manifest(Path("/corpus"), ()), None, 16000).counts()["train"]
        0
    """

    train: Manifest
    """The files to train on, sorted by path."""
    valid: Manifest | None
    """The files to validate on, sorted by path; None where none were asked for."""
    sample_rate: int
    """The rate in Hz that all of them have."""
    unreadable: tuple[LeftOut, ...] = ()
    """Files that cannot be used at all."""
    other_rate: tuple[LeftOut, ...] = ()
    """Files of another sample rate: training would have to resample them, so they are not listed."""
    other_ending: tuple[LeftOut, ...] = ()
    """Audio files whose ending is none of those asked for."""
    too_short: int = 0
    """Files below the shortest duration asked for."""
    too_long: int = 0
    """Files above the longest duration asked for."""
    without_text: int = 0
    """Files whose path lacks the text asked for."""

    def counts(self) -> dict[str, int]:
        """Number of files in each list."""
        listed = {"train": self.train, "valid": self.valid, **self.told()}
        left_out = {"too_short": self.too_short, "too_long": self.too_long, "without_text": self.without_text}
        return {name: len(files or ()) for name, files in listed.items()} | left_out

    def told(self) -> dict[str, tuple[LeftOut, ...]]:
        """The files left out that are named one by one, by reason."""
        return {"unreadable": self.unreadable, "other_rate": self.other_rate, "other_ending": self.other_ending}


def is_valid(path: str, valid_percent: float, seed: int) -> bool:
    """True if a file is for validation, which depends on its path and the seed alone.

    So a file never changes sides when others are added or removed, and `valid_percent` is met on average, not exactly.

    Args:
        path: its path below the root.
        valid_percent: the share to validate on, from 0 to 1. fairseq: `--valid-percent`, which is a share as well.
        seed: any integer.

    Example:
        >>> sum(is_valid(f"{n}.wav", 0.1, 42) for n in range(1000))
        91
    """
    digest = hashlib.blake2b(f"{seed}\n{path}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") < valid_percent * 2**64


def build_manifest(
    folder: str | os.PathLike[str],
    *,
    extensions: Iterable[str] = ("flac", "wav"),
    valid_percent: float = 0.01,
    seed: int = 42,
    path_must_contain: str | None = None,
    min_seconds: float = 0.0,
    max_seconds: float | None = None,
    sample_rate: int = 16000,
    workers: int | None = None,
    report: Callable[[int, int, str], None] | None = None,
) -> Built:
    """The audio files below `folder`, their headers read, split into those to train and to validate on.

    Hidden files and folders are left out; links are followed, and a file with two names is listed under both.

    Args:
        folder: searched to any depth.
        extensions: endings to take, in any case.
        valid_percent: the share to validate on, from 0 to 1; see `is_valid`.
        seed: decides which files those are.
        path_must_contain: if given, only files whose path below `folder` has this text in it.
        min_seconds: shorter files are counted, not listed.
        max_seconds: longer files are counted, not listed.
        sample_rate: in Hz; files of another rate are told, not listed.
        workers: threads that read headers; as many as there are processors if None.
        report: called with files read, files in all, and how many cannot be used, in words.

    Raises:
        AudioError: `folder` cannot be searched, or there is no such file in it.
        OptionError: an impossible share, duration, ending or number of workers.

    Example:
        >>> import tempfile, soundfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> for name in ("b.flac", "a.wav"):
        ...     soundfile.write(folder / name, [0.0] * 800, 16000)
        >>> built = build_manifest(folder, valid_percent=0)
        >>> built.train.entries, built.valid
        ((ManifestEntry(path='a.wav', samples=800), ManifestEntry(path='b.flac', samples=800)), None)
    """
    endings = _endings(extensions)
    _check(valid_percent, min_seconds, max_seconds, workers)
    root = Path(os.path.realpath(folder))
    paths, without_text, other_ending = _find(folder, root, endings, path_must_contain)
    unreadable: list[LeftOut] = []
    other_rate: list[LeftOut] = []
    listed: list[ManifestEntry] = []
    too_short = too_long = 0
    with ThreadPoolExecutor(workers or _processors()) as pool:
        measured = pool.map(lambda path: _measure(root, path), paths)
        for done, (path, found) in enumerate(zip(paths, measured, strict=True), start=1):
            if isinstance(found, LeftOut):
                unreadable.append(found)
            elif found.sample_rate != sample_rate:
                other_rate.append(LeftOut(path, f"it has {found.sample_rate} Hz, not {sample_rate} Hz"))
            elif found.seconds < min_seconds:
                too_short += 1
            elif max_seconds is not None and found.seconds > max_seconds:
                too_long += 1
            else:
                listed.append(ManifestEntry(path, found.frames))
            if report:
                report(done, len(paths), f"{len(unreadable)} unreadable")
    sides: dict[bool, list[ManifestEntry]] = {False: [], True: []}
    for entry in listed:
        sides[is_valid(entry.path, valid_percent, seed)].append(entry)
    return Built(
        train=Manifest(root, tuple(sides[False])),
        valid=Manifest(root, tuple(sides[True])) if valid_percent > 0 else None,
        sample_rate=sample_rate,
        unreadable=tuple(unreadable),
        other_rate=tuple(other_rate),
        other_ending=tuple(other_ending),
        too_short=too_short,
        too_long=too_long,
        without_text=without_text,
    )


def write_built(built: Built, dest: str | os.PathLike[str]) -> dict[str, Path]:
    """Writes `train.tsv` and `valid.tsv`, and `unreadable.tsv`, `other_rate.tsv` and `other_ending.tsv` where there are such.

    The lists of files left out have lines of path, tab, reason; odd characters of a path are written out.

    Returns:
        the files written, by name.

    Raises:
        ExtractionError: they cannot be written, or `valid.tsv` of an earlier split would be left beside the new one.

    Example:
        >>> import tempfile
        >>> sorted(write_built(Built(Manifest(Path("/corpus"), ()), None, 16000), tempfile.mkdtemp()))
        ['train.tsv']
    """
    folder = output_folder(dest)
    texts = {"train.tsv": manifest_text(built.train)}
    if built.valid is not None:
        texts["valid.tsv"] = manifest_text(built.valid)
    elif (folder / "valid.tsv").exists():
        what = f"{printable(folder / 'valid.tsv')} of an earlier split is there. It would list files that train.tsv has too."
        raise ExtractionError(what, fix="Remove it, or choose another folder.")
    for name, files in built.told().items():
        if files:
            texts[f"{name}.tsv"] = "".join(f"{_plain(file.path)}\t{_plain(file.reason)}\n" for file in files)
    write_together({folder / name: text.encode() for name, text in texts.items()})
    for name in {f"{name}.tsv" for name in built.told()} - set(texts):
        (folder / name).unlink(missing_ok=True)
    return {name: folder / name for name in texts}


def _find(
    folder: str | os.PathLike[str], root: Path, endings: frozenset[str], path_must_contain: str | None
) -> tuple[list[str], int, list[LeftOut]]:
    """The paths below the root to measure, sorted; how many lack the text asked for; and those of other endings."""
    from hubcore.audio import find_audio  # here, since it imports torch, which reading a manifest does without

    if not root.is_dir():
        raise AudioError(f"{printable(folder)} is not a folder.", fix="Check the spelling.")
    paths, without_text, others = [], 0, []
    for file in find_audio([root]):
        path = path_text(file.relative_to(root).as_posix())
        ending = path.rpartition(".")[2].lower()
        if ending not in endings:
            others.append(LeftOut(path, f"its ending is {ending}"))
        elif path_must_contain is not None and path_must_contain not in path:
            without_text += 1
        else:
            paths.append(path)
    if not paths:
        text = "" if path_must_contain is None else f" and {path_must_contain!r} in its path ({without_text} lack that)"
        what = f"{printable(folder)} has no file ending in {', '.join(sorted(endings))}{text}."
        raise AudioError(what, fix="Name the endings with --ext, or another folder.")
    return sorted(paths), without_text, sorted(others, key=lambda file: file.path)


def _measure(root: Path, path: str) -> AudioInfo | LeftOut:
    """The header of a file, or why it cannot be used."""
    from hubcore.audio import probe

    problem = why_not_a_name(path)
    if problem:
        return LeftOut(path, f"its path {problem}, so that no manifest can name it; rename it")
    try:
        return probe(root / text_path(path))
    except AudioError as error:
        return LeftOut(path, str(error))


def _endings(extensions: Iterable[str]) -> frozenset[str]:
    from hubcore.audio import AUDIO_EXTENSIONS

    given = [extensions] if isinstance(extensions, str) else list(extensions)
    endings = frozenset(ending.strip().lower().removeprefix(".") for ending in given)
    if not endings or not endings <= AUDIO_EXTENSIONS:
        raise OptionError(
            f"the endings are {', '.join(map(repr, given)) or 'none'}. Each must be one of "
            f"{', '.join(sorted(AUDIO_EXTENSIONS))}."
        )
    return endings


def _check(valid_percent: float, min_seconds: float, max_seconds: float | None, workers: int | None) -> None:
    require(0 <= valid_percent <= 1, "valid_percent", "a share from 0 to 1, as in fairseq", valid_percent)
    highest = float("inf") if max_seconds is None else max_seconds
    require(0 <= min_seconds <= highest, "min_seconds", f"from 0 to max_seconds ({max_seconds})", min_seconds)
    require(workers is None or workers >= 1, "workers", "at least 1", workers)


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _plain(text: str) -> str:
    """Text in one field of one line."""
    return "".join(repr(character)[1:-1] if character in "\t\n\r" else character for character in printable(text))
