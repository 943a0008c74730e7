"""From what a user says on the command line to a `Card` that is known to work here, before anything is written."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from hubcore.card import Card, Source
from hubcore.cards.checking import check_card, family_for
from hubcore.errors import OptionError, RegistryError
from hubcore.loading import import_class, reads_checkpoints
from hubcore.registry.names import build_registry, user_files
from hubcore.registry.reading import NAME, read_registry
from hubcore.sources.resolve import verify
from hubcore.sources.stamps import file_sha256

_SHA256 = re.compile(r"[0-9a-fA-F]{64}")


def card_to_add(path: Path, *, replacing: bool, **fields: Any) -> Card:
    """A card for the registry file at `path`, after every check that needs no download.

    Args:
        path: where it will be written; its local sources are relative to that folder.
        replacing: whether the file may have a record of this name.
        **fields: those of `Card`.

    Raises:
        OptionError: a name that cannot be one, or that somebody else owns; an unknown family, config or option; a file that
            is not there.

    Example:
        >>> card_to_add(Path("mine.yaml"), replacing=False, name="mine", upstream="fbank", config="mfcc", license="x").config
        'mfcc'
    """
    card = Card(**fields, file=str(path))
    for label in (card.name, *card.aliases):
        if not NAME.fullmatch(label):
            raise OptionError(
                f"the name {label!r} cannot be one. A name has a-z, 0-9, _, . and -, begins with a letter or a digit, and has "
                "at most 64 of them. Choose such a name."
            )
    registry = build_registry()
    if path.exists() and not replacing and card.name in {old.name for old in read_registry(path)[0]}:
        raise OptionError(f"{card.name!r} is in {path} already. A name means one record. Use --replace, or another name.")
    found = check_card(card, registry)
    if found:
        raise OptionError(" ".join(finding.what for finding in found))
    family = family_for(card, registry)
    if not card.sources and family is not None and not family.missing and reads_checkpoints(import_class(family)):
        raise OptionError(
            f"{card.name!r} names no source, but the family {card.upstream!r} runs checkpoints. Without one its weights would "
            "be random. Say where it is with --source: a path, https://... or hf://org/repo/file."
        )
    return card


def parse_sources(path: Path, uris: Sequence[str], digests: Sequence[str], sizes: Sequence[int]) -> tuple[Source, ...]:
    """The sources of a card in the registry file at `path`; what is not said of a local file is taken from it.

    A local file below the registry file's folder is named relative to it, so that both can be moved together; any other by
    its absolute path.

    Raises:
        OptionError: more or fewer digests or sizes than sources, a digest that is none, a file that is not there.
        ChecksumError: a local file is not the one that the digest or size is of.
    """
    for what, given in (("--sha256", digests), ("--size", sizes)):
        if given and len(given) != len(uris):
            raise OptionError(
                f"there are {len(uris)} --source and {len(given)} {what}. Each belongs to one source, in their order. Give one "
                "for each, or none and `hubcore registry pin` later."
            )
    for digest in digests:
        if not _SHA256.fullmatch(digest):
            raise OptionError(f"--sha256 is {digest!r}. A SHA-256 has 64 hex digits. `sha256sum FILE` prints it.")
    found = []
    for index, uri in enumerate(uris):
        source = Source(uri, digests[index].lower() if digests else None, sizes[index] if sizes else None)
        found.append(source if "://" in uri else _local(path, source))
    return tuple(found)


def _local(path: Path, source: Source) -> Source:
    if not source.uri:
        raise OptionError("a --source is empty. It is a file or folder that is here, or a URI. Say where the checkpoint is.")
    file = Path(os.path.abspath(os.path.expanduser(source.uri)))
    if not file.exists():
        raise OptionError(f"{file} does not exist. A source is a file or folder that is here, or a URI. Check the spelling.")
    folder = Path(os.path.abspath(path)).parent
    uri = file.relative_to(folder).as_posix() if file.is_relative_to(folder) else str(file)
    if file.is_dir():
        return replace(source, uri=uri)
    verify(file, source)
    return Source(uri, source.sha256 or file_sha256(file), file.stat().st_size if source.size is None else source.size)


def parse_options(pairs: Sequence[str]) -> dict[str, Any]:
    """The options that `key=value` texts mean, each value being read as YAML reads it.

    Raises:
        OptionError: not of that form, or a key that comes twice.

    Example:
        >>> parse_options(["lambd=0.7", "layers=[4, 8]", "tail=keep"])
        {'lambd': 0.7, 'layers': [4, 8], 'tail': 'keep'}
    """
    options: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not key.isidentifier() or not equals or key in options:
            what = "is given twice" if key in options else "is not of the form key=value, such as lambd=0.7"
            raise OptionError(f"the option {pair!r} {what}. Each sets one default of hub.load. Correct it.")
        try:
            options[key] = yaml.safe_load(text)
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            said = " ".join(str(error).split())
            raise OptionError(
                f"the value of {pair!r} cannot be read ({said}). It is read as YAML. Put text in quotes."
            ) from error
    return options


def file_of(name: str) -> Path:
    """The one registry file of the user that has a record `name`.

    Raises:
        RegistryError: none has it, or several do; the message says whose it is instead, or which files.
    """
    holding, aliases = [], {}
    for path in user_files():
        cards, _ = _readable(path)
        holding += [path for card in cards if card.name == name]
        aliases.update({alias: (card.name, path) for card in cards for alias in card.aliases})
    if len(holding) == 1:
        return holding[0]
    if holding:
        listed = ", ".join(map(str, holding))
        raise RegistryError(f"{name!r} stands in {listed}. Only one is changed at a time. Say which with --file.")
    if name in aliases:
        record, path = aliases[name]
        raise RegistryError(f"{name!r} is an alias of {record!r} in {path}. Records are removed by name. Remove {record!r}.")
    owners = sorted({entry.owner for entry in build_registry().entries if name in (entry.name, *entry.aliases)} - {"user"})
    if owners:
        raise RegistryError(
            f"{name!r} is not yours but belongs to {' and '.join(owners)}. Only records of your own files can be removed. "
            "Uninstall that distribution, or name it in HUBCORE_DISABLE_PLUGINS, if it is a plugin."
        )
    files = ", ".join(map(str, user_files())) or "there are none"
    raise RegistryError(f"no registry file of yours has a record {name!r}. They are: {files}. Check the name, or use --file.")


def _readable(path: Path) -> tuple[list[Card], list[RegistryError]]:
    try:
        return read_registry(path)
    except RegistryError as error:
        return [], [error]
