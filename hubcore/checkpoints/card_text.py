"""Writing checksums and sizes into the text of a registry file, everything else in it left as it is. Imports no torch."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

from hubcore.card import Card, Source
from hubcore.errors import RegistryError
from hubcore.registry_file import read_registry

_NULL = "tag:yaml.org,2002:null"
Facts = Mapping[tuple[str, str], tuple[str, int]]
"""(card's name, source's URI) -> (SHA-256, size)."""


@dataclass(frozen=True)
class _Edit:
    """Text that replaces the characters from `start` to `end`."""

    start: int
    end: int
    text: str


def write_facts(path: Path, facts: Facts) -> int:
    """Writes what is known into the records that lack it; never changes a value that is there.

    Args:
        path: a registry file.
        facts: the digest and size of each source.

    Returns:
        How many values were written.

    Raises:
        RegistryError: the file cannot be read or written, or its text is too unusual to be changed safely.
    """
    cards, broken = read_registry(path)
    if broken:
        raise RegistryError(f"{path} is not changed while a record of it is wrong: {broken[0]}")
    try:
        raw = path.read_bytes()
        mark = b"\xef\xbb\xbf" if raw.startswith(b"\xef\xbb\xbf") else b""
        text = raw[len(mark) :].decode("utf-8")
        edits = _edits(text, facts)
        if not edits:
            return 0
        for edit in sorted(edits, key=lambda edit: edit.start, reverse=True):
            text = text[: edit.start] + edit.text + text[edit.end :]
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.yaml")
        try:
            temporary.write_bytes(mark + text.encode("utf-8"))
            _check(path, temporary, cards, facts)
            shutil.copymode(path, temporary)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise RegistryError(f"{path} cannot be written ({error}). It is as it was. Make it writable.") from error
    return sum(_count(card, facts) for card in cards)


def _edits(text: str, facts: Facts) -> list[_Edit]:
    root = yaml.compose(text, Loader=yaml.SafeLoader)  # its marks count characters of this very text
    edits: list[_Edit] = []
    for name, record in _fields(_fields(root)["upstreams"]).items():
        sources = _fields(record).get("sources")
        for node in sources.value if isinstance(sources, yaml.SequenceNode) else ():
            known = facts.get((name, _fields(node)["uri"].value))
            if known is not None and isinstance(node, yaml.MappingNode):
                edits += _source_edits(node, known)
    return edits


def _fields(node: yaml.Node | None) -> dict[str, yaml.Node]:
    return {key.value: value for key, value in node.value} if isinstance(node, yaml.MappingNode) else {}


def _source_edits(node: yaml.MappingNode, known: tuple[str, int]) -> list[_Edit]:
    fields = _fields(node)
    values = {"sha256": _scalar(known[0]), "size": str(known[1])}
    edits, absent = [], []
    for key, value in values.items():
        there = fields.get(key)
        if there is None:
            absent.append(f"{key}: {value}")
        elif there.tag == _NULL:
            start, end = there.start_mark.index, there.end_mark.index
            edits.append(_Edit(start, end, value if end > start else f" {value}"))
    if absent:
        last = max(value.end_mark.index for value in fields.values())
        first = node.value[0][0].start_mark
        between = ", " if node.flow_style else "\n" + " " * first.column
        edits.append(_Edit(last, last, "".join(between + item for item in absent)))
    return edits


def _scalar(digest: str) -> str:
    """A digest as YAML; one of decimal digits alone would be a number without quotes."""
    return digest if isinstance(yaml.safe_load(digest), str) else f'"{digest}"'


def _check(path: Path, written: Path, before: list[Card], facts: Facts) -> None:
    """Raises `RegistryError` unless the new text says what the old one said, and the facts."""
    after, broken = read_registry(written)
    wanted = [replace(card, sources=tuple(_completed(card, source, facts) for source in card.sources)) for card in before]
    got = [replace(card, file=str(path), line=old.line) for card, old in zip(after, before, strict=False)]
    if broken or wanted != got:
        raise RegistryError(
            f"{path}: the checksums cannot be written without changing something else. It is as it was. Write them by hand."
        )


def _count(card: Card, facts: Facts) -> int:
    """How many values of a card were absent and are known."""
    known = [source for source in card.sources if (card.name, source.uri) in facts]
    return sum((source.sha256 is None) + (source.size is None) for source in known)


def _completed(card: Card, source: Source, facts: Facts) -> Source:
    sha256, size = facts.get((card.name, source.uri), (None, None))
    return replace(
        source,
        sha256=sha256 if source.sha256 is None else source.sha256,
        size=size if source.size is None else source.size,
    )
