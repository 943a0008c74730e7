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
from hubcore.cards.checking import check_card
from hubcore.cards.editing import local_uri
from hubcore.errors import OptionError
from hubcore.registry.names import build_registry
from hubcore.registry.reading import NAME
from hubcore.sources.resolve import verify
from hubcore.sources.stamps import file_sha256

_SHA256 = re.compile(r"[0-9a-fA-F]{64}")


def card_to_add(folder: Path, **fields: Any) -> Card:
    """A card for a file in `folder`, after every check that needs no download.

    Args:
        folder: where its file will be; its local sources are relative to it.
        **fields: those of `Card`.

    Raises:
        OptionError: an impossible name, or one that somebody else owns; an unknown family, config or option; a missing file.

    Example:
        >>> card_to_add(Path("cards"), name="mine", upstream="fbank", config="mfcc", license="x").config
        'mfcc'
    """
    card = Card(**fields, file=str(folder / f"{fields['name']}.yaml"))
    for label in (card.name, *card.aliases):
        if not NAME.fullmatch(label):
            raise OptionError(
                f"{label!r} is not a valid name. A name has a-z, 0-9, _, . and -, begins with a letter or a digit, and has "
                "at most 64 of them. Choose such a name."
            )
    found = check_card(card, build_registry())
    if found:
        raise OptionError(" ".join(finding.text for finding in found))
    return card


def parse_sources(folder: Path, uris: Sequence[str], digests: Sequence[str], sizes: Sequence[int]) -> tuple[Source, ...]:
    """The sources of a card in `folder`; what is not said of a local file is taken from it.

    Raises:
        OptionError: more or fewer digests or sizes than sources, an invalid digest, a file that is not there.
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
        found.append(source if "://" in uri else _local(folder, source))
    return tuple(found)


def _local(folder: Path, source: Source) -> Source:
    if not source.uri:
        raise OptionError("a --source is empty. It is a file, a folder, or a URI. Say where the checkpoint is.")
    file = Path(os.path.abspath(os.path.expanduser(source.uri)))
    if not file.exists():
        raise OptionError(f"{file} does not exist. A source is a file, a folder, or a URI. Check the spelling.")
    uri = local_uri(file, Path(os.path.abspath(folder)))
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
            why = " ".join(str(error).split())
            raise OptionError(f"the value of {pair!r} cannot be read as YAML ({why}). Put text in quotes.") from error
    return options
