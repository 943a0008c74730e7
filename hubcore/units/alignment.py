r"""Time alignments: `read_alignment`, for TextGrid, CTM and TIMIT's `.phn`.

Imports no torch. Shapes: `S` segments, `F` frames.
"""

from __future__ import annotations

import codecs
import itertools
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hubcore.errors import ExtractionError, OptionError, nearest_hint
from hubcore.files import read_small
from hubcore.text import listed, path_text, plural, printable

SILENCE = "sil"
"""The label of an interval without text, which is how the Montreal Forced Aligner writes silence."""
ENDINGS = (".textgrid", ".ctm", ".phn")
_LARGEST = 1 << 30  # bytes
_OVERLAP = 0.02  # seconds; rounded times of neighbours may cross
_BOMS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
# Praat reads what stands alone between white space: texts in quotes, numbers and <flags>. All else is for people. That is
# why one pattern reads both forms.
_TOKEN = re.compile(r'"((?:[^"]|"")*)"|(?<!\S)(?:!.*|<\w+>|([-+]?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?)(?!\S))')
_NUMBER = re.compile(r"\d+(?:\.\d*)?(?:[eE][-+]?\d+)?|\.\d+", re.ASCII)


class Segment(NamedTuple):
    """One label and its place."""

    start: float
    """Seconds."""
    end: float
    """Seconds."""
    label: str
    """A phone, mostly."""


@dataclass(frozen=True, eq=False)
class Alignment:
    """The segments of one utterance, in order.

    Example:
        >>> one = Alignment((Segment(0.0, 0.1, "sil"), Segment(0.1, 0.25, "AH")))
        >>> one.labels_at(np.array([0.05, 0.1, 0.3]))
        ['sil', 'AH', None]
    """

    segments: tuple[Segment, ...]
    """Sorted by their starts; there may be gaps."""

    @property
    def seconds(self) -> float:
        """The time that has a label."""
        return sum(end - start for start, end, _ in self.segments)

    def labels_at(self, moments: NDArray[np.float64]) -> list[str | None]:
        """The label at each of these seconds `(F,)`; None where there is none. A segment has its start, and not its end."""
        starts = np.array([segment.start for segment in self.segments])
        places = np.searchsorted(starts, moments, side="right") - 1
        found = [self.segments[place] if place >= 0 else None for place in places.tolist()]
        return [s.label if s and at < s.end else None for s, at in zip(found, moments.tolist(), strict=True)]


def read_alignment(path: str | os.PathLike[str], *, tier: str | None = None, sample_rate: int = 16000) -> dict[str, Alignment]:
    r"""The alignment of each utterance.

    A TextGrid (`.TextGrid`, in Praat's long or short form, UTF-8 or UTF-16) or a file of TIMIT (`.phn`: start, end, label) is
    one utterance, named by its path below the folder without the ending, as `hubcore.corpus` names audio. A CTM (`.ctm`: name,
    with or without a channel, start, duration, label, with or without a confidence) holds many, with their names.

    Args:
        path: such a file, or a folder of them, however deep.
        tier: the tier of a TextGrid; if None the only one of intervals, or the one whose name is or ends in `phones`.
        sample_rate: in Hz, for the samples of `.phn`.

    Raises:
        ExtractionError: a file cannot be read or is malformed, or there is none.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "a.ctm"
        >>> _ = path.write_text("anna-1 1 0.00 0.25 HH\nanna-1 1 0.25 0.10 AY\n")
        >>> read_alignment(path)["anna-1"].segments[1]
        Segment(start=0.25, end=0.35, label='AY')
    """
    if sample_rate < 1:
        raise OptionError(f"sample_rate is {sample_rate}.", fix="It is that of the audio in Hz, such as 16000.")
    path = Path(path)
    files = [path]
    if path.is_dir():
        below = (Path(folder) / name for folder, _, names in os.walk(path) for name in names)
        files = sorted(file for file in below if file.suffix.lower() in ENDINGS and not file.name.startswith("."))
        if not files:
            what = f"{printable(path)} has no file of an alignment."
            raise ExtractionError(what, fix=f"The endings are {', '.join(ENDINGS)}.")
    found: dict[str, Alignment] = {}
    for file in files:
        name = path_text((file.relative_to(path) if file != path else Path(file.name)).with_suffix("").as_posix())
        for utterance, segments in _read(file, name, tier, sample_rate):
            if utterance in found:
                what = f"{printable(file)}: {printable(utterance)!r} has an alignment already, in another file of this folder."
                raise ExtractionError(what, fix="Give a folder with one file for each utterance.")
            found[utterance] = _in_order(file, utterance, segments)
    return found


def _read(file: Path, name: str, tier: str | None, sample_rate: int) -> Iterable[tuple[str, list[Segment]]]:
    text = _text(file)
    kind = file.suffix.lower()
    if kind == ".phn":
        return [(name, [*_phn(file, text, sample_rate)])]
    if kind == ".textgrid":
        return [(name, _text_grid(file, text, tier))]
    if kind == ".ctm":
        return _ctm(file, text).items()
    what = f"{printable(file)} does not end like an alignment."
    raise ExtractionError(what, fix=f"The endings are {', '.join(ENDINGS)}.")


def _text(file: Path) -> str:
    try:
        data = read_small(file, _LARGEST)
        bom, encoding = next((pair for pair in _BOMS if data.startswith(pair[0])), (b"", "utf-8"))
        return data[len(bom) :].decode(encoding)
    except UnicodeDecodeError as error:
        what = f"{printable(file)} is neither UTF-8 nor UTF-16 text ({error})."
        raise ExtractionError(what, fix="Save it again as UTF-8 text, in Praat under Text writing preferences.") from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise ExtractionError(f"{printable(file)} cannot be read: {reason}.", fix="Check its name and permissions.") from error


def _in_order(file: Path, utterance: str, segments: list[Segment]) -> Alignment:
    segments = sorted(segments)
    for before, after in itertools.pairwise(segments):
        if after.start < before.end - _OVERLAP:
            what = f"{printable(file)}: segments of {printable(utterance)!r} overlap at {after.start:.3f} s."
            raise ExtractionError(what, fix="An utterance has one label at a time. Leave one speaker or tier in the file.")
    return Alignment(tuple(segments))


def _bad(file: Path, line: int, what: str) -> ExtractionError:
    return ExtractionError(f"{printable(file)}:{line}: {what}.", fix="Make the alignment again, or take the line out.")


def _lines(text: str) -> Iterator[tuple[int, list[str]]]:
    for number, line in enumerate(text.split("\n"), start=1):
        words = line.split()
        if words and not words[0].startswith(";;"):  # NIST's comments
            yield number, words


def _seconds(word: str) -> float | None:
    number = float(word) if _NUMBER.fullmatch(word) else None
    return number if number is not None and number < 1e9 else None


def _phn(file: Path, text: str, sample_rate: int) -> Iterator[Segment]:
    for line, words in _lines(text):
        if len(words) != 3 or not all(re.fullmatch(r"[0-9]{1,15}", word, re.ASCII) for word in words[:2]):
            raise _bad(file, line, f"this is {' '.join(words)[:60]!r}, not the first sample, the last and a label")
        start, end = int(words[0]), int(words[1])
        if end < start:
            raise _bad(file, line, "the segment ends before it begins")
        yield Segment(start / sample_rate, end / sample_rate, words[2])


def _ctm(file: Path, text: str) -> dict[str, list[Segment]]:
    rows = [*_lines(text)]
    channel = bool(rows) and _has_channel(rows[0][1])
    found: dict[str, list[Segment]] = {}
    channels: dict[str, str] = {}
    for line, words in rows:
        start, length, label, confidence, *_ = [*words[1 + channel :], "", "", "", ""]
        first, duration = _seconds(start), _seconds(length)
        odd = confidence not in ("", "NA") and _seconds(confidence.lstrip("-")) is None
        if first is None or duration is None or not label or odd:
            form = f"a name, {'a channel, ' if channel else ''}a start, a duration, a label"
            raise _bad(file, line, f"this is {' '.join(words)[:60]!r}, not {form} and perhaps a confidence")
        if channel and channels.setdefault(words[0], words[1]) != words[1]:
            raise _bad(file, line, f"the utterance {printable(words[0])!r} has several channels, and its units are of one")
        found.setdefault(words[0], []).append(Segment(first, round(first + duration, 9), label))
    return found


def _has_channel(words: Sequence[str]) -> bool:
    """True if the second column is a channel: then two times follow, and a label."""
    return len(words) > 4 and "." not in words[1] and None not in map(_seconds, words[2:4])


def _text_grid(file: Path, text: str, tier: str | None) -> list[Segment]:
    try:
        tiers = _tiers(text)
    except (StopIteration, ValueError, OverflowError) as error:
        what = f"{printable(file)} is no whole TextGrid: {str(error) or 'it ends too early'}."
        raise ExtractionError(what, fix="Save it from Praat as a text file, or a short text file, or make it again.") from error
    name = _choose(file, [name for name, _ in tiers], tier)
    return next(segments for known, segments in tiers if known == name)


def _choose(file: Path, names: Sequence[str], tier: str | None) -> str:
    """The tier that is meant."""
    shown = listed((repr(printable(name)) for name in names), most=20)
    if tier is not None:
        if tier not in names:
            raise ExtractionError(f"{printable(file)} has no tier {tier!r} of intervals.", nearest_hint(tier, names))
        return tier
    phones = [name for name in names if name.lower().endswith(("phone", "phones"))]
    if len(phones) == 1 or len(names) == 1:
        return (phones or names)[0]
    what = f"{printable(file)} has {plural(len(names), 'tier')} of intervals: {shown}."
    raise ExtractionError(what, fix="Say which one is meant, with --tier (tier=).")


def _tiers(text: str) -> list[tuple[str, list[Segment]]]:
    """Name and segments of each tier of intervals.

    Raises:
        ValueError: it is another kind of file, or a number or a text stands where the other should.
        StopIteration: it ends too early.
    """
    tokens = ((match[1], match[2]) for match in _TOKEN.finditer(text) if match[1] is not None or match[2] is not None)

    def word() -> str:
        found, number = next(tokens)
        if found is None:
            raise ValueError(f"it has the number {number} where a text should be")
        return str(found).replace('""', '"')

    def number() -> float:
        found, digits = next(tokens)
        if digits is None:
            raise ValueError(f"it has the text {found[:60]!r} where a number should be")
        return float(digits)

    if not word().startswith("ooTextFile") or word() != "TextGrid":
        raise ValueError("it does not begin like one")
    number(), number()
    found = []
    for _ in range(int(number())):
        kind, name = word(), word()
        number(), number()
        count = int(number())
        if kind == "IntervalTier":
            found.append((name, [_interval(number, word) for _ in range(count)]))
        else:
            for _ in range(count):
                number(), word()
    return found


def _interval(number: Callable[[], float], word: Callable[[], str]) -> Segment:
    start, end = number(), number()
    if end < start:
        raise ValueError(f"an interval begins at {start:g} and ends at {end:g}")
    return Segment(start, end, word().strip() or SILENCE)
