"""`Found`, one utterance of an input before its name is settled, and `name_apart`, which settles the names of all."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from hubcore.corpus.manifest import why_not_below
from hubcore.corpus.utterance import Source, Utterance
from hubcore.errors import ExtractionError
from hubcore.text import printable


class Found(NamedTuple):
    """An utterance and what its name is made of.

    Example:
        >>> from hubcore.corpus.utterance import File
        >>> found = Found("en/1", File("/corpus/en/1.flac"), ending=".flac", above="/corpus")
        >>> [found.name(level) for level in range(4)], found.name(4) is None
        (['en/1', 'en/1.flac', 'corpus/en/1', 'corpus/en/1.flac'], True)
    """

    stem: str
    """Its name, if no other has it."""
    source: Source
    """The audio file."""
    ending: str = ""
    """Its ending, such as `.wav`, which tells it from others of this stem."""
    above: str = ""
    """The place that the name begins below; the names of its folders tell utterances of one stem and ending apart."""
    start: float = 0.0
    """Its beginning, in seconds."""
    end: float | None = None
    """Its end, in seconds; the file's end if None."""
    channel: int | None = None
    """The channel it is; the mean of all if None."""
    where: str = ""
    """The line that names it, as `list.csv:3`; empty if it is a file of its own."""

    def name(self, level: int) -> str | None:
        """Its possible names, the shortest at level 0; None where there is no longer one."""
        folders = [part for part in self.above.split("/") if part]
        count = level // 2
        if count > len(folders) or (level % 2 and not self.ending):
            return None
        return "/".join([*folders[len(folders) - count :], self.stem]) + (self.ending if level % 2 else "")

    def next_level(self, level: int) -> int | None:
        """The level of its next longer name; None if it has none."""
        return next((higher for higher in (level + 1, level + 2) if self.name(higher) is not None), None)

    @property
    def told(self) -> str:
        """Its place, for a message."""
        return self.where or printable(self.source.given)


def name_apart(found: Iterable[Found], *, ffmpeg: bool = False) -> list[Utterance]:
    """Utterances with names, of which no two are the same, in the order given.

    Those that would share a name all get the next longer one that they have: with the ending (`a.wav`, `a.flac`), then below
    the name of the folder that was given (`train/a`, `dev/a`), then both, and so on with the folders above it.

    Raises:
        ExtractionError: two have the same longest name, or a name cannot be that of a file.

    Example:
        >>> from hubcore.corpus.utterance import File
        >>> pair = [Found("a", File(f"/{place}/a.wav"), ".wav", f"/{place}") for place in ("dev", "train")]
        >>> [utterance.name for utterance in name_apart(pair)]
        ['dev/a', 'train/a']
    """
    items = list(found)
    levels, names = [0] * len(items), [item.stem for item in items]
    while shared := _shared(names):
        for group in shared:
            longer = [(index, level) for index in group if (level := items[index].next_level(levels[index])) is not None]
            if not longer:
                first, second, *_ = (items[index] for index in group)
                raise ExtractionError(
                    f"{first.told} and {second.told} would both be the utterance {printable(names[group[0]])!r}.",
                    fix="Give one of them another name, or extract them into two folders.",
                )
            for index, level in longer:
                levels[index], names[index] = level, str(items[index].name(level))
    for item, name in zip(items, names, strict=True):
        problem = why_not_below(name)
        if problem:
            what = f"{item.told}: the utterance {printable(name)!r} {problem}. Its features would be a file of that name."
            raise ExtractionError(what, fix="Give it another name.")
    return [
        Utterance(name, item.source, item.start, item.end, item.channel, ffmpeg)
        for item, name in zip(items, names, strict=True)
    ]


def _shared(names: Iterable[str]) -> list[list[int]]:
    """The positions of each name that comes more than once."""
    places: dict[str, list[int]] = {}
    for index, name in enumerate(names):
        places.setdefault(name, []).append(index)
    return [group for group in places.values() if len(group) > 1]
