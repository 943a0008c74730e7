"""`read_labels`: a table of utterances with a class, a number or a text each, and perhaps groups and parts."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hubcore.corpus.inputs.reading import bad
from hubcore.corpus.inputs.table import table_rows
from hubcore.errors import ExtractionError, OptionError
from hubcore.text import listed, printable

TASKS = ("classify", "regress", "ctc")
"""Kinds of probes: one class of an utterance, one number, or a text."""
TOKENS = ("characters", "phones")
"""Pieces of a text: its characters, or what spaces part."""
_PARTS = {"train": "train", "valid": "valid", "dev": "valid", "test": "test"}


@dataclass(frozen=True)
class Labels:
    """Labels of utterances.

    Example:
        >>> Labels("classify", {"a": "en", "b": "fr"}, group="speaker", groups={"a": "anna", "b": "ben"}).groups["b"]
        'ben'
    """

    task: str
    """`classify`, `regress` or `ctc`."""
    targets: Mapping[str, str | float]
    """The class, the number or the text of each utterance."""
    group: str = "utterance"
    """The column of the groups."""
    groups: Mapping[str, str] | None = None
    """The group of each utterance, such as its speaker, none of which is in two parts; None if each is a group of its own."""
    parts: Mapping[str, str] | None = None
    """`train`, `valid` or `test` for each utterance; None to draw them."""

    def __post_init__(self) -> None:
        if self.task not in TASKS:
            raise OptionError(f"the task is {self.task!r}.", fix=f"It must be {', '.join(TASKS)}.")

    def group_of(self, utterance: str) -> str:
        """The group of an utterance."""
        return utterance if self.groups is None else self.groups[utterance]


def read_labels(path: str | os.PathLike[str], task: str, group: str | None = None) -> Labels:
    r"""The labels of a table, `.csv` or `.tsv`, with the columns `utterance` and `label`, and perhaps `split` and others.

    Args:
        path: the table.
        task: `classify`, `regress` (labels are numbers) or `ctc` (labels are texts).
        group: the column of the groups; `speaker` if None, where there is one. `utterance` makes each a group of its own.

    Raises:
        ExtractionError: the table is malformed, which names the line.
        OptionError: it has no such column.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "labels.csv"
        >>> _ = path.write_text("utterance,label,speaker\na,en,anna\nb,fr,ben\n")
        >>> labels = read_labels(path, "classify")
        >>> labels.targets, labels.group
        ({'a': 'en', 'b': 'fr'}, 'speaker')
    """
    path = Path(path)
    rows = table_rows(path)
    try:
        where, columns = next(rows)
        group = group or ("speaker" if "speaker" in columns else "utterance")
        for column in ("utterance", "label", group):
            if column not in columns:
                what = f"{where}: there is no column {column!r}. Those there are: {listed(columns, 20)}."
                raise OptionError(what, fix="Labels need the columns utterance and label, and the one that --group names.")
        targets: dict[str, str | float] = {}
        groups: dict[str, str] = {}
        parts: dict[str, str] = {}
        for where, row in rows:
            name = row["utterance"]
            if not name or name in targets:
                raise bad(where, f"the utterance {name!r} has a label above" if name else "it names no utterance", "Correct it")
            targets[name] = _target(row["label"], task, where)
            if not row[group]:
                raise bad(where, f"the column {group} is empty", "Every utterance needs a group")
            groups[name] = row[group]
            if "split" in columns:
                if row["split"] not in _PARTS:
                    raise bad(where, f"split is {row['split']!r}", "It must be train, valid (or dev) or test")
                parts[name] = _PARTS[row["split"]]
    except OSError as error:
        what = f"the labels {printable(path)} cannot be read: {error.strerror or error}."
        raise ExtractionError(what, fix="Check the spelling.") from error
    if not targets:
        raise ExtractionError(f"{printable(path)} has no row below its first line.", fix="Write one for each utterance.")
    return Labels(task, targets, group, None if group == "utterance" else groups, parts or None)


def _target(text: str, task: str, where: str) -> str | float:
    if task == "regress":
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise bad(where, f"the label is {text!r}, not a number", "Correct it")
        return number
    if not text.strip():
        raise bad(where, "the label is empty", "Take the line out, or correct it")
    return text


def tokens_of(text: str, how: str) -> list[str]:
    """The pieces of a text that a `ctc` probe learns; white space counts as one space.

    Example:
        >>> tokens_of("hi  you", "characters"), tokens_of("HH AY", "phones")
        (['h', 'i', ' ', 'y', 'o', 'u'], ['HH', 'AY'])
    """
    if how not in TOKENS:
        raise OptionError(f"tokens is {how!r}.", fix=f"It must be {' or '.join(TOKENS)}.")
    return list(" ".join(text.split())) if how == "characters" else text.split()
