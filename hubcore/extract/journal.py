"""`Journal`: what is finished in a folder, which several processes may fill together; `Part`, the share of one of them.

A process that makes part 0 of 2 keeps its rows and failures in `.parts/0-of-2/` and holds that folder. The output folder is
held only for moments then: when the blocks are planned, and when the last part that is being made adds them all to
`manifest.jsonl`. A run that is not divided holds the output folder all the time.
"""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from hubcore.errors import ExtractionError, OptionError
from hubcore.extract.batches import Failure
from hubcore.extract.finished import PARTIAL, Finished, check_no_link, exclusive
from hubcore.files import IF_DEAD, hold
from hubcore.text import printable

PARTS = ".parts"
"""The folder, inside the output folder, of the rows of parts that are being made."""
_T = TypeVar("_T")
_RANKS = (
    ("torchrun", "RANK", "WORLD_SIZE"),
    ("Open MPI", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("MPI", "PMI_RANK", "PMI_SIZE"),
    ("srun", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS"),
)
"""The variables in which launchers tell a process its number and how many there are."""


@dataclass(frozen=True)
class Part:
    """A share of the work: `index` of `count`.

    Example:
        >>> Part.parse("1/3"), Part(1, 3).share("abcdefg")
        (Part(index=1, count=3), 'be')
    """

    index: int
    """From 0."""
    count: int
    """The number of parts."""

    @classmethod
    def parse(cls, text: str) -> Part:
        """The part that a text such as `0/2` means.

        Raises:
            OptionError: it means none.
        """
        found = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text, re.ASCII)
        if not found or int(found[1]) >= int(found[2]):
            raise OptionError(f"shard is {text!r}.", fix="Of two, the first is 0/2 and the second 1/2.")
        return cls(int(found[1]), int(found[2]))

    @classmethod
    def of_launcher(cls, variables: Mapping[str, str]) -> tuple[Part, str]:
        """The part of this process by the variables of its launcher, and the launcher's name; 0/1 if there is none.

        Those of torchrun, MPI and srun are known, and SLURM's arrays, whose tasks may be such launchers again.

        Raises:
            OptionError: the variables contradict each other.

        Example:
            >>> Part.of_launcher({"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_MIN": "1", "SLURM_ARRAY_TASK_COUNT": "4"})
            (Part(index=2, count=4), 'the SLURM array')
        """
        try:
            found = [
                (name, cls(int(variables[rank]), int(variables[size]))) for name, rank, size in _RANKS if variables.get(size)
            ]
            launched = next(((name, part) for name, part in found if part.count > 1), None)
            array = cls(0, int(variables.get("SLURM_ARRAY_TASK_COUNT") or 1))
            if array.count > 1:
                first, step = int(variables["SLURM_ARRAY_TASK_MIN"]), int(variables.get("SLURM_ARRAY_TASK_STEP") or 1)
                array = cls((int(variables["SLURM_ARRAY_TASK_ID"]) - first) // step, array.count)
            name, part = launched or ("", cls(0, 1))
            whole = cls(array.index * part.count + part.index, array.count * part.count)
            if not (0 <= array.index < array.count and 0 <= part.index < part.count):
                raise ValueError(f"part {whole.index} of {whole.count}")
        except (KeyError, ValueError) as error:
            what = f"the variables of the launcher (RANK, OMPI_*, PMI_*, SLURM_*) contradict each other: {error}."
            raise OptionError(
                what, fix="Say which part this process is to make: --shard 0/4, and 0/1 for everything."
            ) from error
        return whole, " in ".join(filter(None, [name, "the SLURM array" if array.count > 1 else ""]))

    @property
    def name(self) -> str:
        """The name of its folder."""
        return f"{self.index}-of-{self.count}"

    def share(self, items: Sequence[_T]) -> Sequence[_T]:
        """Every `count`-th item."""
        return items[self.index :: self.count]


class Journal:
    """The rows and failures of a folder, for one process that writes them; see `opened`."""

    def __init__(self, folder: Path, part: Part) -> None:
        self.folder, self.part = folder, part
        self.whole = Finished(folder)
        """Those of the output folder."""
        self.own = Finished(folder / PARTS / part.name) if part.count > 1 else self.whole
        """Those that this process adds to."""
        self._planning = contextlib.ExitStack()
        self._making = contextlib.ExitStack()

    def rows(self) -> dict[str, dict[str, Any]]:
        """All rows by utterance; see `rows_of`."""
        return rows_of(self.folder)

    def begin(self) -> None:
        """Lets other parts begin, once the blocks are planned."""
        if self.part.count > 1:
            self._planning.close()

    def finish(self, named: Sequence[str], index: Callable[[Sequence[dict[str, Any]]], None], *, changed: bool) -> None:
        """Puts rows in the order of utterance names; of parts, the last one adds all to those of the folder.

        Args:
            named: the names of all utterances that were asked for.
            changed: True if there are new rows.
            index: gets all rows, to write what a format writes beside its features.
        """
        if self.part.count < 2:
            rows, names = self.whole.read(), set(named)
            changed = changed or [name for name in rows if name in names] != [name for name in named if name in rows]
            ordered = in_order(rows.values(), named)
            if changed:
                self.whole.replace(ordered)
            self._order_failures(rows, self.whole.failures())
            index(ordered)
            return
        with exclusive(self.folder, brief=True), self._making:
            if not any(_is_held(other) for other in _parts(self.folder) if other.name != self.part.name):
                index(self.fold(named))
                tidy(self.folder)

    def fold(self, named: Sequence[str]) -> list[dict[str, Any]]:
        """Adds the rows and failures of all parts to those of the folder; gives all rows."""
        rows, failures = self.whole.look()[0], self.whole.failures()
        for folder in _parts(self.folder):
            failed, made = Finished(folder).failures(), Finished(folder).look()[0]
            for name in failed.keys() - made.keys():
                rows.pop(name, None)
            rows |= made
            failures |= failed
        ordered = in_order(rows.values(), named)
        self.whole.replace(ordered)
        self._order_failures(rows, failures)
        shutil.rmtree(self.folder / PARTS, ignore_errors=True)
        return ordered

    def _order_failures(self, rows: Mapping[str, Any], failures: Mapping[str, Failure]) -> None:
        self.whole.replace_failures([failures[name] for name in sorted(failures.keys() - rows.keys())])


@contextlib.contextmanager
def opened(folder: Path, part: Part, *, force: bool = False) -> Iterator[Journal]:
    """Holds a folder for one process: all of it, or a part, and until `Journal.begin` all of it too.

    Raises:
        ExtractionError: another process is writing there.
    """
    journal = Journal(folder, part)
    with contextlib.ExitStack() as held:
        held.enter_context(journal._planning)
        journal._planning.enter_context(exclusive(folder, force=force, brief=part.count > 1))
        for place in (folder / PARTS, *_parts(folder)):
            check_no_link(place)
        for other in [] if force else _parts(folder):
            same = part.count > 1 and other.name.endswith(f"-of-{part.count}")
            if not same and _is_held(other):
                what = f"{printable(folder)} is being filled by the part {other.name.replace('-of-', '/')} of another run."
                raise ExtractionError(what, fix=f"Wait for it, or choose another folder. {IF_DEAD}")
        if part.count > 1:
            held.enter_context(journal._making).enter_context(exclusive(journal.own.path.parent, force=force))
        else:
            tidy(folder)
            held.callback(tidy, folder)
        yield journal


def tidy(folder: Path) -> None:
    """Removes what killed runs left half-written in a folder that nobody else writes to."""
    for path in folder.glob(f"{PARTIAL}*"):
        shutil.rmtree(path, ignore_errors=True)


def rows_of(folder: Path) -> dict[str, dict[str, Any]]:
    """The rows of a folder by utterance, with those of parts that are not yet in its manifest; changes nothing.

    Raises:
        ExtractionError: a file is not a manifest.
    """
    rows = Finished(folder).look()[0]
    for part in _parts(folder):
        rows |= Finished(part).look()[0]
    return rows


def failures_of(folder: Path) -> dict[str, Failure]:
    """The failures of a folder by utterance, with those of parts.

    Raises:
        ExtractionError: a file is not one of failures.
    """
    failures = Finished(folder).failures()
    for part in _parts(folder):
        failures |= Finished(part).failures()
    return failures


def in_order(rows: Iterable[dict[str, Any]], named: Iterable[str]) -> list[dict[str, Any]]:
    """Manifest rows in the order of utterance names; rows of others, from earlier runs, come last.

    Example:
        >>> [row["utterance"] for row in in_order([{"utterance": "c"}, {"utterance": "b"}, {"utterance": "a"}], ["a", "b"])]
        ['a', 'b', 'c']
    """
    place = {name: number for number, name in enumerate(named)}
    return sorted(rows, key=lambda row: place.get(row["utterance"], len(place)))


def _parts(folder: Path) -> list[Path]:
    return sorted(path for path in (folder / PARTS).glob("*-of-*"))


def _is_held(part: Path) -> bool:
    """True if a process is making a part."""
    try:
        hold(part).close()
    except BlockingIOError:
        return True
    return False
