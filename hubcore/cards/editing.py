"""Adding a card to a registry file and removing one, as an edit of its text that leaves every other line as it is.

Imports no torch.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from hubcore.card import Card
from hubcore.cards.text import editing, read_text, replace_text
from hubcore.errors import RegistryError
from hubcore.registry.reading import find_line, read_registry

_HEADER = """\
# Cards of your own. `hubcore registry add` and `remove` change this file and keep what is written by hand.
version: 1
upstreams:
"""


def default_file() -> Path:
    """The file of the user's own cards: `hubcore/registry.yaml` in the configuration folder.

    Example:
        >>> default_file().parts[-2:]
        ('hubcore', 'registry.yaml')
    """
    config = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    return Path(config, "hubcore", "registry.yaml")


def add_card(path: Path, card: Card, *, replacing: bool = False) -> int:
    """Writes a card into a registry file, in its sorted place; the file is made if there is none.

    Args:
        path: the YAML file.
        card: what to write; its `file`, `line` and `distribution` do not matter.
        replacing: whether a record of this name may be replaced, comments inside it included.

    Returns:
        The line where the record begins.

    Raises:
        RegistryError: the file has a wrong record, or one of this name, or would not be a valid registry; it is as it was.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "mine.yaml"
        >>> add_card(path, Card(name="b", upstream="fbank", config="mfcc", license="none needed"))
        4
        >>> add_card(path, Card(name="a", upstream="fbank", license="none needed", options={"num_mel_bins": 40}))
        4
        >>> print("".join(path.read_text().splitlines(keepends=True)[2:]), end="")
        upstreams:
          a:
            upstream: fbank
            options: {num_mel_bins: 40}
            license: none needed
          b:
            upstream: fbank
            config: mfcc
            license: none needed
    """
    with editing(path):
        return _add(path, card, replacing)


def _add(path: Path, card: Card, replacing: bool) -> int:
    if not path.exists():
        text = _HEADER + _record(card, 2, 2)
        replace_text(path, text, None, lambda written: _check(path, written, [card]))
        return find_line(path, card.name) or 1
    cards = _whole(path)
    others = [old for old in cards if old.name != card.name]
    if len(others) < len(cards) and not replacing:
        line = find_line(path, card.name)
        raise RegistryError(
            f"{path}, line {line}: {card.name!r} is there already. A name means one record. Use --replace to write this one in "
            "its place, or another name.",
            str(path),
            line,
        )
    before, text = read_text(path)
    layout = _Layout.of(path, text)
    record = _record(card, layout.indent, layout.step)
    text = layout.replaced(card.name, record) if len(others) < len(cards) else layout.inserted(card.name, record)
    replace_text(path, text, before, lambda written: _check(path, written, [*others, card]))
    return find_line(path, card.name) or 1


def remove_card(path: Path, name: str) -> None:
    """Removes the record of a name, comments inside it included, from a registry file.

    Raises:
        RegistryError: there is no such record, or the file has a wrong one; it is as it was.
    """
    with editing(path):
        cards = _whole(path)
        others = [card for card in cards if card.name != name]
        if len(others) == len(cards):
            raise RegistryError(
                f"{path} has no record {name!r}. It has {', '.join(c.name for c in cards) or 'none'}.", str(path)
            )
        before, text = read_text(path)
        text = _Layout.of(path, text).replaced(name, "")
        replace_text(path, text, before, lambda written: _check(path, written, others))


def _whole(path: Path) -> list[Card]:
    cards, broken = read_registry(path)
    if broken:
        raise RegistryError(f"{path} is not changed while a record of it is wrong: {broken[0]}", str(path), broken[0].line)
    return cards


def _check(path: Path, written: Path, wanted: Iterable[Card]) -> None:
    """Raises `RegistryError` unless a written registry holds exactly the wanted cards."""
    cards, broken = read_registry(written)
    if broken:
        raise RegistryError(f"{broken[0]} Nothing was written.", str(path), broken[0].line)
    if {card.name: _said(card) for card in cards} != {card.name: _said(card) for card in wanted}:
        raise RegistryError(
            f"{path} cannot be changed without changing another record too: its text is too unusual. It is as it was. "
            "Edit it by hand.",
            str(path),
        )


def _said(card: Card) -> Card:
    return replace(card, file=None, line=None, distribution=None)


# Where records stand --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Layout:
    """The lines of a registry file, and which of them are whose record."""

    lines: list[str]
    """Each with its end."""
    names: list[str]
    starts: list[int]
    """The line of each name's key."""
    ends: list[int]
    """The line behind each record: comments that stand no deeper than the keys belong to what follows them."""
    head: int
    """The line of `upstreams:`."""
    indent: int
    """Columns before a name."""
    step: int
    """Columns from a name to its fields."""

    @staticmethod
    def of(path: Path, text: str) -> _Layout:
        """The layout of a valid registry.

        Raises:
            RegistryError: its records stand in braces, not on lines of their own.
        """
        newline = "\r\n" if "\r\n" in text else "\n"
        if text and not text.endswith("\n"):
            text += newline
        root: Any = yaml.compose(text, Loader=yaml.SafeLoader)
        pairs = [(key, value) for key, value in root.value]
        place = next(i for i, (key, _) in enumerate(pairs) if key.value == "upstreams")
        key, upstreams = pairs[place]
        if root.flow_style or (upstreams.flow_style and upstreams.value):
            raise RegistryError(
                f"{path}, line {key.start_mark.line + 1}: its records stand in braces. A record is added and removed by whole "
                "lines. Write each on lines of its own.",
                str(path),
                key.start_mark.line + 1,
            )
        lines = [line + "\n" for line in text.split("\n")[:-1]]
        head = _line(text, key)
        after = _line(text, pairs[place + 1][0]) if place + 1 < len(pairs) else len(lines)
        if not upstreams.value:
            lines[head] = re.sub(r"\s*\{\s*\}", "", lines[head], count=1)
        keys = [name for name, _ in upstreams.value]
        starts = [_line(text, name) for name in keys]
        indent = keys[0].start_mark.column if keys else 2
        stops = [*starts[1:], after][: len(starts)]
        ends = [_walk_back(lines, start, stop, indent) for start, stop in zip(starts, stops, strict=True)]
        fields = [value.value[0][0] for _, value in upstreams.value if not value.flow_style]
        step = max(1, fields[0].start_mark.column - indent) if fields else 2
        return _Layout(lines, [name.value for name in keys], starts, ends, head, indent, step)

    def inserted(self, name: str, record: str) -> str:
        """The text with one more record, before the first whose name is greater."""
        index = next((i for i, other in enumerate(self.names) if other > name), len(self.names))
        spaced = any(self._blank(end, start) for end, start in zip(self.ends, self.starts[1:], strict=False))
        if index:
            at = self.ends[index - 1]
            new = ["\n", record] if spaced else [record]
        else:
            at = self.head + 1
            first = self.starts[0] if self.starts else at
            # A comment that a blank line parts from the first record is about all of them.
            blanks = [line for line in range(at, first) if not self.lines[line].strip()]
            at = blanks[-1] + 1 if blanks else at
            new = [record, "\n"] if spaced else [record]
        return self._text(self.lines[:at], new, self.lines[at:])

    def replaced(self, name: str, record: str) -> str:
        """The text with another record, or with none if it is empty, in the place of `name`."""
        index = self.names.index(name)
        start, end = self.starts[index], self.ends[index]
        if record:
            return self._text(self.lines[:start], [record], self.lines[end:])
        if len(self.names) == 1:
            self.lines[self.head] = re.sub(r":", ": {}", self.lines[self.head], count=1)
        if not self.lines[start - 1].strip():  # one of the blank lines around it goes too
            if end < len(self.lines) and not self.lines[end].strip():
                end += 1
            else:
                start -= 1
        return self._text(self.lines[:start], [], self.lines[end:])

    def _blank(self, begin: int, end: int) -> bool:
        return any(not line.strip() for line in self.lines[begin:end])

    def _text(self, before: Sequence[str], new: Sequence[str], after: Sequence[str]) -> str:
        newline = "\r\n" if any(line.endswith("\r\n") for line in self.lines) else "\n"
        return "".join([*before, *(part.replace("\n", newline) for part in new), *after])


def _line(text: str, node: yaml.Node) -> int:
    """The number, from 0, of the line of a node, counting line feeds only."""
    return text.count("\n", 0, node.start_mark.index)


def _walk_back(lines: Sequence[str], start: int, stop: int, indent: int) -> int:
    """Where a record ends: behind its last line that is neither blank nor a comment no deeper than `indent`."""
    while stop > start + 1:
        line = lines[stop - 1]
        bare = line.lstrip(" ")
        if line.strip() and not (bare.startswith("#") and len(line) - len(bare) <= indent):
            break
        stop -= 1
    return stop


# How a record is written ----------------------------------------------------------------------------------------------


def _record(card: Card, indent: int, step: int) -> str:
    """A card as lines of YAML."""
    left, inner = " " * indent, " " * (indent + step)
    lines = [f"{left}{_scalar(card.name)}:", f"{inner}upstream: {_scalar(card.upstream)}"]
    if card.config is not None:
        lines.append(f"{inner}config: {_scalar(card.config)}")
    if card.aliases:
        lines.append(f"{inner}aliases: {_flow(list(card.aliases))}")
    if card.sources:
        lines.append(f"{inner}sources:")
        for source in card.sources:
            lines.append(f"{inner}  - {_flow({'uri': source.uri, 'sha256': source.sha256, 'size': source.size})}")
    if card.options:
        lines.append(f"{inner}options: {_flow(dict(card.options))}")
    lines.append(f"{inner}license: {_scalar(card.license)}")
    for key, value in (("training_data", card.training_data), ("paper", card.paper), ("note", card.note)):
        if value is not None:
            lines.append(f"{inner}{key}: {_scalar(value)}")
    return "\n".join(lines) + "\n"


def _scalar(text: str) -> str:
    """A text as YAML on one line, in quotes where it would mean something else without."""
    return _dumped(text).removesuffix("...\n").rstrip("\n")


def _flow(value: Any) -> str:
    """Plain data as YAML on one line, inside braces or brackets."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_flow(key)}: {_flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_flow, value)) + "]"
    return _dumped([value])[1:-2]


def _dumped(value: Any) -> str:
    text = value[0] if isinstance(value, list) else value
    # Line breaks and what no editor shows are escapes in double quotes.
    style = '"' if isinstance(text, str) and not text.isprintable() else None
    return str(yaml.safe_dump(value, width=float("inf"), allow_unicode=True, default_flow_style=True, default_style=style))
