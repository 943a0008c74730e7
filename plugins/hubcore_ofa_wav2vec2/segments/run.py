"""`segment_corpus`: the segments of every utterance of some manifests, in a folder where an interrupted run resumes."""

from __future__ import annotations

import contextlib
import io
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hubcore.corpus import Manifest
from hubcore.corpus.files import write_together
from hubcore.errors import CheckpointError, ExtractionError, OptionError
from hubcore.extract.finished import exclusive
from hubcore.files import parse_json, read_small
from hubcore.text import printable
from hubcore.version import VERSION
from hubcore_ofa_wav2vec2.segments.finders import Finder, Task
from hubcore_ofa_wav2vec2.segments.grid import SAMPLE_RATE, alpha_of
from hubcore_ofa_wav2vec2.segments.store import SETTINGS, Segments, name_of

MEAN_ALPHA = 2 / 9
"""Segments a frame: 90 ms each, about a phone, which the original's range of frame periods, 20 to 90 ms, supposes."""


@dataclass(frozen=True)
class Failed:
    """An utterance without segments, and why."""

    path: str
    """Its path below the manifest's root."""
    error: str
    """Problem, in a sentence."""


@dataclass(frozen=True)
class Summary:
    """Result of a run, and counts of the segments that the folder now has for the given manifests."""

    folder: Path
    """Folder of the segments."""
    written: int
    """Utterances segmented by this run."""
    skipped: int
    """Utterances that an earlier run had segmented."""
    failures: tuple[Failed, ...]
    """Utterances that could not be segmented."""
    frames: int
    """Frames of the segmented utterances, of this run and earlier ones."""
    segments: int
    """Their segments."""
    tuning: dict[str, float]
    """The threshold or the penalty that was used."""
    audio_seconds: float
    """Duration of what this run segmented."""
    wall_seconds: float
    """Seconds that this run took, tuning included."""

    @property
    def mean_alpha(self) -> float:
        """Segments a frame."""
        return self.segments / self.frames if self.frames else 0.0

    @property
    def mean_segment_ms(self) -> float:
        """Mean duration of a segment in ms."""
        return 20 * self.frames / self.segments if self.segments else 0.0

    @property
    def speed(self) -> float:
        """Seconds of audio per second of this run."""
        return self.audio_seconds / self.wall_seconds if self.wall_seconds > 0 else 0.0


def segment_corpus(
    manifests: Sequence[Manifest],
    out: Path,
    finder: Finder,
    *,
    mean_alpha: float = MEAN_ALPHA,
    seed: int = 42,
    report: Callable[[int, int, str], None] | None = None,
    force_unlock: bool = False,
) -> Summary:
    """Segments every utterance of some manifests into a folder, which may hold earlier ones made in the same way.

    The first run into a folder tunes the finder and keeps what it found, so that an interrupted run, and a later one for
    another manifest, uses the same rule. An utterance that cannot be used harms no other.

    Args:
        manifests: what to segment; a path that two of them have must mean one file.
        out: created if need be.
        finder: the method.
        mean_alpha: the segments a frame to tune to.
        seed: decides what is tuned on, and the first cluster centres.
        report: called with utterances done, utterances in all, and how many failed, in words.
        force_unlock: take no notice of the lock file of another run.

    Raises:
        ExtractionError: `out` holds segments made otherwise, cannot be written or is in use; two files share a name.
        OptionError: an impossible option.

    Example:
        >>> import soundfile, tempfile
        >>> from hubcore.corpus import ManifestEntry
        >>> from hubcore_ofa_wav2vec2.segments import open_segments
        >>> from hubcore_ofa_wav2vec2.segments.finders import PeakFinder
        >>> root = Path(tempfile.mkdtemp())
        >>> soundfile.write(root / "a.wav", [0.0] * 8000 + [0.5, -0.5] * 4000, 16000)
        >>> summary = segment_corpus([Manifest(root, (ManifestEntry("a.wav", 16000),))], root / "segments", PeakFinder())
        >>> summary.written, open_segments(root / "segments")["a.wav"].boundaries[-1].item()
        (1, 49)
    """
    began = time.perf_counter()
    if not 0 < mean_alpha <= 1:
        raise OptionError(f"mean_alpha is {mean_alpha}. It is segments a frame, above 0 and at most 1. 2/9 is usual.")
    tasks = _tasks(manifests)
    failures: list[Failed] = []
    with exclusive(out, force=force_unlock):
        _settle(out, finder, tasks, {"mean_alpha": mean_alpha, "seed": seed})
        done = _done(out, tasks)
        todo = [task for task in tasks if task.path not in done]
        written = 0
        for number, (task, found) in enumerate(finder.find(todo), start=1):
            if isinstance(found, str):
                failures.append(Failed(task.path, found))
            else:
                _write(out, task.path, found)
                done[task.path] = (int(found[-1]), len(found))
                written += 1
            if report:
                report(len(tasks) - len(todo) + number, len(tasks), f"{len(failures)} failed")
    frames, segments = (sum(counts) for counts in zip(*done.values(), strict=True)) if done else (0, 0)
    failed = {failure.path for failure in failures}
    return Summary(
        folder=out,
        written=written,
        skipped=len(tasks) - len(todo),
        failures=tuple(failures),
        frames=frames,
        segments=segments,
        tuning=finder.tuning(),
        audio_seconds=sum(task.samples for task in todo if task.path not in failed) / SAMPLE_RATE,
        wall_seconds=time.perf_counter() - began,
    )


def _write(out: Path, path: str, boundaries: Tensor) -> None:
    """Writes `boundaries/<name>.pt`, then `alpha/<name>.pt`: an utterance is finished when both are there."""
    for kind, tensor in {"boundaries": boundaries, "alpha": alpha_of(boundaries)}.items():
        stream = io.BytesIO()
        torch.save(tensor.clone(), stream)
        # Without waiting for the disk, twice an utterance: what a power cut empties is found damaged and made again.
        write_together({out / kind / f"{name_of(path)}.pt": stream.getvalue()}, durable=False)


def _tasks(manifests: Sequence[Manifest]) -> list[Task]:
    """The utterances of all manifests, each once."""
    tasks: dict[str, Task] = {}
    owner: dict[str, str] = {}
    for manifest in manifests:
        for entry in manifest:
            task = Task(entry.path, manifest.locate(entry), entry.samples)
            known = tasks.setdefault(entry.path, task)
            if known != task:
                raise ExtractionError(
                    f"{printable(entry.path)} is {printable(known.file)} with {known.samples} samples in one manifest, and "
                    f"{printable(task.file)} with {task.samples} in another. A path must mean one file.",
                    fix="Segment them into different folders.",
                )
            if owner.setdefault(name_of(entry.path), entry.path) != entry.path:
                raise ExtractionError(
                    f"{printable(owner[name_of(entry.path)])} and {printable(entry.path)} would both be written to "
                    f"{printable(name_of(entry.path))}.pt, since files are named without their ending.",
                    fix="Rename one of them.",
                )
    if not tasks:
        raise ExtractionError("the manifest lists no file. There is nothing to segment. Make it again with `hubcore manifest`.")
    return list(tasks.values())


def _settle(out: Path, finder: Finder, tasks: Sequence[Task], common: dict[str, Any]) -> None:
    """Brings the finder to what the folder's segments were made with, or tunes it and keeps that there."""
    wanted = {**common, **finder.settings()}
    file = out / SETTINGS
    if file.exists():
        there, tuning = _read_settings(file)
        differences = [
            f"{key} is {there.get(key)!r} there and {wanted.get(key)!r} here"
            for key in sorted(wanted | there)
            if there.get(key) != wanted.get(key)
        ]
        if differences:
            raise ExtractionError(
                f"{printable(out)} holds segments made with other settings: {'; '.join(differences)}.",
                fix="Segment into another folder.",
            )
        finder.restore(tuning, out)
        return
    if any((out / kind).exists() for kind in ("alpha", "boundaries")):
        raise ExtractionError(
            f"{printable(out)} holds segments and no {SETTINGS}, so they were not made here.",
            fix="Segment into another folder.",
        )
    finder.tune(tasks, wanted["mean_alpha"], wanted["seed"])
    about = {"version": 1, "hubcore_version": VERSION, "settings": wanted, "tuning": finder.tuning()}
    write_together(
        {
            **{out / name: data for name, data in finder.files().items()},
            file: (json.dumps(about, indent=2, sort_keys=True) + "\n").encode(),
        }
    )


def _read_settings(file: Path) -> tuple[dict[str, Any], dict[str, float]]:
    try:
        about = parse_json(read_small(file, 16 << 20))
        settings, tuning = about["settings"], about["tuning"]
        if about["version"] != 1 or not isinstance(settings, dict) or not all(type(tuning[name]) is float for name in tuning):
            raise ValueError("it is of another version or kind")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ExtractionError(
            f"{printable(file)} does not tell how the segments beside it were made ({error}).",
            fix="Restore the file, or segment into another folder.",
        ) from error
    return settings, tuning


def _done(out: Path, tasks: Sequence[Task]) -> dict[str, tuple[int, int]]:
    """Frames and segments of each utterance whose files exist and are whole."""
    segments = Segments(out / "alpha", out / "boundaries", exact=True)
    done: dict[str, tuple[int, int]] = {}
    for task in tasks:
        if task.path in segments:
            with contextlib.suppress(CheckpointError, ExtractionError):
                alpha, boundaries = segments.read(task.path, samples=task.samples)
                done[task.path] = (len(alpha), len(boundaries))
    return done
