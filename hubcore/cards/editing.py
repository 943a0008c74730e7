"""Registry files that hubcore writes: one for each card that `hubcore registry add` makes. Imports no torch."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import yaml

from hubcore.card import Card, CodebookSource, Source
from hubcore.errors import RegistryError
from hubcore.files import write_whole
from hubcore.registry.names import build_registry, card_files, user_files
from hubcore.registry.reading import parse_registry, read_registry
from hubcore.strict_yaml import know_scalars

HEADER = "# Written by `hubcore registry add`; `hubcore registry remove` deletes this file.\n"
"""The first line of a file that hubcore may replace and delete."""
Facts = Mapping[tuple[str, str], tuple[str, int]]
"""(card's name, source's URI) -> (SHA-256, size)."""
_Place = TypeVar("_Place", Source, CodebookSource)
_COMMENT = re.compile(r"^(?:|.*\s)#", re.MULTILINE)


class _Dumper(yaml.SafeDumper):
    """YAML without anchors, which the reader refuses, and with escapes for what no editor shows."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - PyYAML's signature
        return True

    def represent_text(self, data: str) -> yaml.ScalarNode:
        return self.represent_scalar("tag:yaml.org,2002:str", data, style=None if data.isprintable() else '"')


_Dumper.add_representer(str, _Dumper.represent_text)
know_scalars(_Dumper)


def add_card(folder: Path, card: Card, *, replacing: bool = False) -> Path:
    """Writes a card into a file of its own, `NAME.yaml` in `folder`, which is made if it is not there.

    Raises:
        RegistryError: there is such a file already, the card is not valid, or the file cannot be written.

    Example:
        >>> import tempfile
        >>> file = add_card(Path(tempfile.mkdtemp()), Card(name="mine", upstream="fbank", license="none needed"))
        >>> print("".join(file.read_text().splitlines(keepends=True)[1:]), end="")
        version: 1
        upstreams:
          mine:
            upstream: fbank
            license: none needed
    """
    path = folder / f"{card.name}.yaml"
    if replacing and path.exists() and not _is_written_by_us(path):
        raise RegistryError(
            "it was written by hand, and hubcore never changes such a file.", "Edit it, or use another name.", str(path)
        )
    write_cards(path, [card], HEADER, replacing=replacing)
    return path


def remove_card(name: str, folder: Path | None = None) -> Path:
    """Deletes the file that `add_card` wrote for a name; a record in a file written by hand is left alone.

    Without `folder`, all registry files of the user are looked into.

    Raises:
        RegistryError: no such file, or several; the message says where the name stands.
    """
    found = {}
    for path in user_files() if folder is None else card_files(folder):
        for card in _cards(path):
            if name in (card.name, *card.aliases):
                found[path] = card
    if not found:
        raise _not_yours(name)
    if len(found) > 1:
        raise RegistryError(f"{name!r} stands in {' and '.join(map(str, found))}.", "Say which with --folder.")
    ((path, card),) = found.items()
    if name != card.name:
        raise RegistryError(f"{name!r} is an alias of {card.name!r}.", f"Remove {card.name!r}.", card.file, card.line)
    if not _is_written_by_us(path):
        what = f"{name!r} stands here, in a file written by hand, which hubcore never changes."
        raise RegistryError(what, "Delete its lines yourself.", card.file, card.line)
    path.unlink()
    return path


def pin_cards(path: Path, facts: Facts, out: Path | None = None) -> int:
    """Writes digests and sizes into the sources of a registry file that lack them; existing values stay.

    Another file than `path` is written if `out` is given.

    Returns:
        How many values were added; without any, nothing is written.

    Raises:
        RegistryError: a record is wrong, `path` has comments, which rewriting would lose, or the file cannot be written.
    """
    text = check_rewritable(path) if out is None else path.read_text(encoding="utf-8-sig")
    cards, broken = parse_registry(text.encode(), path)
    if broken:
        raise broken[0]
    pinned = [replace(card, sources=tuple(_pinned(card, source, facts) for source in card.sources)) for card in cards]
    count = sum(_known(card) for card in pinned) - sum(_known(card) for card in cards)
    if count:
        folder = (out or path).absolute().parent
        moved = [
            replace(
                card,
                sources=tuple(_moved(source, path, folder) for source in card.sources),
                codebooks=tuple(_moved(one, path, folder) for one in card.codebooks),
            )
            for card in pinned
        ]
        write_cards(out or path, moved, HEADER if text.startswith(HEADER) else "")
    return count


def check_rewritable(path: Path) -> str:
    """The text of a registry file that can be rewritten without losing a comment.

    Raises:
        RegistryError: it has comments, or cannot be read.
    """
    read_registry(path)
    text = path.read_text(encoding="utf-8-sig")
    comment = _COMMENT.search(text.removeprefix(HEADER))
    if comment:
        what = "this file has comments, which rewriting it would lose."
        raise RegistryError(what, "Write to another file with --out.", str(path))
    return text


def write_cards(path: Path, cards: Sequence[Card], header: str = "", *, replacing: bool = True) -> None:
    """Writes cards as a registry file, whole or not at all.

    Raises:
        RegistryError: a card is not valid, or the file cannot be written; what was there is still there.
    """
    path = path.resolve()  # a link stays a link
    try:
        text = header + _dump(cards)
        read, broken = parse_registry(text.encode(), path)
        if broken:
            raise broken[0]
        if _dump(read) != text.removeprefix(header):
            raise RegistryError("its options have values that YAML cannot hold.", "Write dates and huge numbers as text.")
    except (RegistryError, UnicodeEncodeError, yaml.YAMLError) as error:
        what = f"{error.what} {error.fix}" if isinstance(error, RegistryError) else f"it cannot be written as YAML ({error})."
        raise RegistryError(what, "Nothing was written.", str(path)) from error
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        mode = path.stat().st_mode if path.exists() else None
        with write_whole(path, replace=replacing) as temporary:
            temporary.write_text(text, encoding="utf-8")
        if mode is not None:
            path.chmod(mode)
    except OSError as error:
        what = f"it cannot be written ({error})."
        if isinstance(error, FileExistsError) and path.is_file():
            what = "this card exists already. Use --replace, or another name."
        raise RegistryError(what, "Nothing was written.", str(path)) from error


def _dump(cards: Sequence[Card]) -> str:
    data = {"version": 1, "upstreams": {card.name: _record(card) for card in cards}}
    text: str = yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=float("inf"))
    return text


def local_uri(file: Path, folder: Path) -> str:
    """A file as the source of a card in `folder`: relative where it lies below, so that both can be moved together.

    Example:
        >>> local_uri(Path("/data/cards/weights/a.pt"), Path("/data/cards")), local_uri(Path("/a.pt"), Path("/data"))
        ('weights/a.pt', '/a.pt')
    """
    return file.relative_to(folder).as_posix() if file.is_relative_to(folder) else str(file)


def _record(card: Card) -> dict[str, Any]:
    """The fields of a card that say something, in the order in which a person reads them."""
    values = {
        "upstream": card.upstream,
        "config": card.config,
        "parameters": card.parameters,
        "aliases": [*card.aliases],
        "sources": [dataclasses.asdict(source) for source in card.sources],
        "codebooks": [dataclasses.asdict(one) for one in card.codebooks],
        "options": dict(card.options),
        "overrides": card.overrides,
        "license": card.license,
        "training_data": card.training_data,
        "languages": [*card.languages],
        "hours": card.hours,
        "frame_stride": card.frame_stride,
        "paper": card.paper,
        "note": card.note,
    }
    return {key: value for key, value in values.items() if value is not None and value != [] and value != {}}


def _pinned(card: Card, source: Source, facts: Facts) -> Source:
    sha256, size = facts.get((card.name, source.uri), (source.sha256, source.size))
    return replace(source, sha256=source.sha256 or sha256, size=size if source.size is None else source.size)


def _known(card: Card) -> int:
    return sum((source.sha256 is not None) + (source.size is not None) for source in card.sources)


def _moved(source: _Place, path: Path, folder: Path) -> _Place:
    if "://" in source.uri or folder == path.absolute().parent:
        return source
    file = Path(os.path.normpath(path.absolute().parent / os.path.expanduser(source.uri)))
    return replace(source, uri=local_uri(file, folder))


def _is_written_by_us(path: Path) -> bool:
    return path.read_bytes().startswith(HEADER.encode()) and len(_cards(path)) == 1


def _cards(path: Path) -> list[Card]:
    try:
        return read_registry(path)[0]
    except RegistryError:
        return []


def _not_yours(name: str) -> RegistryError:
    owners = " and ".join(sorted({entry.owner for entry in build_registry().claims(name)} - {"user"}))
    if owners:
        fix = "Uninstall that distribution, or name it in HUBCORE_DISABLE_PLUGINS, if it is a plugin."
        return RegistryError(f"{name!r} belongs to {owners}. Only your own cards can be removed.", fix)
    listed = "`hubcore registry check` lists them."
    return RegistryError(f"none of your registry files has {name!r}. {listed}", "Check the name, or use --folder.")
