"""From what a user says on the command line to a `Card` that is known to work here, before anything is written."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hubcore.card import Card, Source
from hubcore.cards.checking import check_card
from hubcore.cards.editing import local_uri
from hubcore.errors import OptionError
from hubcore.findings import Finding
from hubcore.loading import import_class
from hubcore.options import parse
from hubcore.registry.names import build_registry, choose_family
from hubcore.registry.reading import NAME
from hubcore.sources.resolve import verify
from hubcore.sources.stamps import file_sha256

_SHA256 = re.compile(r"[0-9a-fA-F]{64}")


def card_to_add(folder: Path, options: Sequence[str] = (), **fields: Any) -> Card:
    """A card for a file in `folder`, after every check that needs no download.

    Args:
        folder: where its file will be; its local sources are relative to it.
        options: default options, as `name=value`.
        **fields: the other fields of `Card`.

    Raises:
        OptionError: an impossible name, or one that somebody else owns; an unknown family, config or option; a missing file.

    Example:
        >>> card_to_add(Path("cards"), ["num_mel_bins=40"], name="mine", upstream="fbank", license="none needed").options
        {'num_mel_bins': 40}
    """
    card = Card(**fields, file=str(folder / f"{fields['name']}.yaml"))
    for label in (card.name, *card.aliases):
        if not NAME.fullmatch(label):
            raise OptionError(
                f"{label!r} is not a valid name. A name has a-z, 0-9, _, . and -, begins with a letter or a digit, and has "
                "at most 64 of them. Choose such a name."
            )
    registry = build_registry()
    _refuse(check_card(card, registry))
    if options:
        family = choose_family(registry.families[card.upstream], "user")
        if family is None or family.missing:
            raise OptionError(f"the options of {card.upstream!r} cannot be checked: {family and family.missing}.")
        given = parse(import_class(family), options, with_weights=card.needs_weights)
        card = replace(card, options=given)
        _refuse(check_card(card, registry))
    return card


def _refuse(found: Sequence[Finding]) -> None:
    if found:
        raise OptionError(" ".join(finding.text for finding in found))


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
