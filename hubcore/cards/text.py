"""Writing into the text of a registry file, everything else in it left as it is: checksums and sizes. Imports no torch."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

from hubcore.card import Card, Source
from hubcore.errors import RegistryError
from hubcore.registry.reading import read_registry
from hubcore.sources.folders import cache_dir

_log = logging.getLogger("hubcore.checkpoints")
_PATIENCE = 30.0
"""Seconds to wait for another process; an edit takes well below one."""
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
    with editing(path):
        cards, broken = read_registry(path)
        if broken:
            raise RegistryError(f"{path} is not changed while a record of it is wrong: {broken[0]}")
        before, text = read_text(path)
        edits = _edits(text, facts)
        if not edits:
            return 0
        for edit in sorted(edits, key=lambda edit: edit.start, reverse=True):
            text = text[: edit.start] + edit.text + text[edit.end :]
        replace_text(path, text, before, lambda written: _check(path, written, cards, facts))
    return sum(_count(card, facts) for card in cards)


_BOM = b"\xef\xbb\xbf"


@contextlib.contextmanager
def editing(path: Path) -> Iterator[None]:
    """Waits while another process of hubcore edits this registry file; the lock lies in the cache, not beside the file.

    Where nothing can be locked the edit goes on: `replace_text` still notices most of what another one does meanwhile.
    """
    import filelock

    key = hashlib.sha256(os.fsencode(path.resolve())).hexdigest()
    file = cache_dir() / "locks" / f"registry-{key}.lock"
    with contextlib.ExitStack() as stack:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(filelock.FileLock(str(file), timeout=_PATIENCE))
        except (OSError, NotImplementedError) as error:  # a timeout is an OSError too
            _log.info("%s is edited without a lock: %s", path, error)
        yield


def read_text(path: Path) -> tuple[bytes, str]:
    """The bytes of a registry file, and their text without a byte order mark.

    Raises:
        RegistryError: it cannot be read.
    """
    try:
        raw = path.read_bytes()
        return raw, raw.removeprefix(_BOM).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RegistryError(f"{path} cannot be read ({error}). It must be a UTF-8 text file.", str(path)) from error


def replace_text(path: Path, text: str, before: bytes | None, check: Callable[[Path], None]) -> None:
    """Makes `text` the content of a registry file, whole or not at all.

    Args:
        path: the file; where it is a link, the file that it leads to is replaced.
        text: what it will hold; a byte order mark stays.
        before: the bytes that `text` was made from, None if there was no file; where there is something else now, another
            program has written meanwhile.
        check: is given the written text in a file of its own, and raises `RegistryError` if it must not be put in place.

    Raises:
        RegistryError: `check` did, or the file cannot be written, or it was changed meanwhile; it is as it was.
    """
    target = path.resolve()
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(8)}.yaml")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists() and not os.access(target, os.W_OK):  # a rename would replace it all the same
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(target))
        try:
            data = text.encode("utf-8")
            temporary.write_bytes(_BOM + data if before is not None and before.startswith(_BOM) else data)
            check(temporary)
            if (target.read_bytes() if target.exists() else None) != before:
                raise RegistryError(f"{path} was changed by another program meanwhile. Nothing was written. Run this again.")
            if before is not None:
                shutil.copymode(target, temporary)
            os.replace(temporary, target)
        except RegistryError as error:
            raise RegistryError(str(error).replace(str(temporary), str(path)), str(path), error.line) from error
        finally:
            temporary.unlink(missing_ok=True)
    except (OSError, UnicodeEncodeError) as error:
        raise RegistryError(f"{path} cannot be written ({error}). It is as it was. Make it writable.", str(path)) from error


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
