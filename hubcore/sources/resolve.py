"""From an address, a path or a card to a file on this machine. Imports no torch.

A source is a path, `https://...`, `hf://org/repo[@revision][/file]`, `package://package/file`, or a registered name. All but
paths go through the hook `hubcore_fetch`, the built-in schemes (`hubcore.sources.schemes`) included.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Sequence
from pathlib import Path

from hubcore.card import Card, Source
from hubcore.errors import CheckpointError, ChecksumError, DownloadError, OfflineError, UnknownUpstreamError
from hubcore.hookspecs import Expectation
from hubcore.registry.elsewhere import repository_of
from hubcore.sources.folders import cache_dir, is_offline
from hubcore.sources.locks import taking_turns
from hubcore.sources.pages import HEAD, check_head
from hubcore.sources.pins import changed_since_pinned, read_pin, record_pin
from hubcore.sources.schemes import scheme_of
from hubcore.sources.stamps import file_sha256
from hubcore.text import logger

_log = logger("checkpoints")
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_SUFFIXES = (".pt", ".pth", ".ckpt", ".bin", ".safetensors", ".th", ".tar")


def resolve(source: str | os.PathLike[str]) -> Path:
    """The local file or folder of a source, fetched if need be.

    Raises:
        CheckpointError: a path that does not exist.
        UnknownUpstreamError: neither a path, nor an address, nor a registered name.
        DownloadError: it cannot be fetched.

    Example:
        >>> resolve("wav2vec2_tiny_prompts").name
        'wav2vec2_tiny_prompts.safetensors'
    """
    return fetch(find_checkpoint(source))


def find_checkpoint(source: str | os.PathLike[str]) -> Path | Source | Card:
    """The path, the address or the card that a source means; nothing is fetched. A path that exists wins over a name.

    Raises:
        CheckpointError: a path that does not exist.
        UnknownUpstreamError: neither a path, nor an address, nor a registered name.
        DownloadError: the address of a web page.
    """
    if not isinstance(source, str | os.PathLike):
        raise CheckpointError(f"the checkpoint is {source!r:.200}. It must be a path, an address or a registered name.")
    text = os.fspath(source)
    if not text or "\0" in text:
        raise CheckpointError(f"the checkpoint is {text!r}. It must be a path, an address or a registered name.")
    if "://" in text:
        repository = repository_of(text)
        if repository:
            what = f"{text} is the page of a model, not a file."
            raise DownloadError(what, f"The model itself is written hf://{repository}.")
        return Source(text)
    path = Path(os.path.expanduser(text))
    if os.path.exists(path):
        return path
    if not isinstance(source, str) or text[0] in ".~/" or "/" in text or "\\" in text or path.suffix in _SUFFIXES:
        hint = f"A model on the Hugging Face Hub is written hf://{text}. " if _REPOSITORY.fullmatch(text) else ""
        raise CheckpointError(
            f"{str(path)[:200]} does not exist.", f"{hint}Check the spelling and the working folder, {Path.cwd()}."
        )
    from hubcore.registry.names import current_registry

    try:
        card = current_registry().find(text).card
    except UnknownUpstreamError as error:
        hint = "There is no such file either. `hubcore list` shows every name."
        raise UnknownUpstreamError(text, current_registry().names(), hint) from error
    if card is None or not card.sources:
        raise CheckpointError(f"{text!r} needs no checkpoint.", f"Load it with hub.load({text!r}).")
    return card


def fetch(found: Path | Source | Card) -> Path:
    """The local file or folder of what `find_checkpoint` found."""
    if isinstance(found, Path):
        return found
    return fetch_card(found) if isinstance(found, Card) else fetch_source(found)


# Cards ----------------------------------------------------------------------------------------------------------------


def fetch_card(card: Card) -> Path:
    """The checkpoint of a card. If any of its sources is cached, that copy is used and no server is contacted.

    Raises:
        DownloadError: no source gives it; every cause is named.
    """
    found = find_source(card.sources, card, pin=True)
    if found is not None:
        return found[1]
    causes: list[DownloadError] = []
    for source in card.sources:
        try:
            path = fetch_source(source, card)
        except DownloadError as error:
            causes.append(error)
            continue
        for cause in causes:
            _log.warning("%s was fetched from its source %s, because %s", card.name, source.uri, cause)
        return path
    raise causes[0] if len(causes) == 1 else _no_source(card, causes)


def find_source(sources: Sequence[Source], card: Card | None, *, pin: bool = False) -> tuple[Source, Path] | None:
    """The first of some sources that is cached and intact, with its file or folder; never touches the network.

    With `pin`, the digest of a file that has none yet is recorded.
    """
    for source in sources:
        path = find_cached(source, card, pin=pin)
        if path is not None:
            return source, path
    return None


# Sources --------------------------------------------------------------------------------------------------------------


def fetch_source(source: Source, card: Card | None = None) -> Path:
    """The local file of one source, its size and SHA-256 checked against what the source promises.

    A card's source without a SHA-256 is pinned: the digest of the first download is recorded, and any other file is refused
    afterwards.

    Raises:
        ChecksumError: the file is not the one that was published or pinned.
        DownloadError: it cannot be fetched.
    """
    scheme = scheme_of(source.uri)
    if "://" not in source.uri or not scheme.remote or is_offline():
        return _obtain(source, card, offline=is_offline())
    found = find_cached(source, card) if source.sha256 or scheme.always_pinned else None
    if found is not None:
        return found
    with taking_turns(source.uri, cache_dir()) as alone:
        return _obtain(source, card, offline=False, exclusive=alone)


def find_cached(source: Source, card: Card | None = None, *, pin: bool = False) -> Path | None:
    """The local file of a source if it is cached; never touches the network."""
    try:
        return _obtain(source, card, offline=True, pin=pin)
    except DownloadError:
        return None


def is_pinned(source: Source, card: Card | None) -> bool:
    """True if later downloads of a source must have the digest of its first one."""
    scheme = scheme_of(source.uri)
    return source.sha256 is None and "://" in source.uri and scheme.remote and (card is not None or scheme.always_pinned)


def _obtain(source: Source, card: Card | None, *, offline: bool, exclusive: bool = False, pin: bool = True) -> Path:
    """The file of a source, checked; the one place that asks the hook and reads and records pins."""
    from hubcore.hooks import current_hooks

    if "://" not in source.uri:
        path = Path(card.file).parent / source.uri if card and card.file else Path(source.uri)
        if not path.exists():
            raise DownloadError(f"{path} does not exist. The card {card.name if card else ''} names it.", "Correct the card.")
        verify(path, source)
        return path
    scheme, pinned = scheme_of(source.uri), is_pinned(source, card)
    known = read_pin(source.uri) if pinned else None
    wanted = dataclasses.replace(source, sha256=known.sha256) if known else source
    promise = Expectation(wanted.sha256, wanted.size, card.name if card else None, exclusive)
    try:
        if scheme.prefixes and not scheme.remote:  # a file of this installation, which no plugin may replace
            found: Path | None = scheme.fetch(source.uri, cache_dir(), offline, promise)
        else:
            found = current_hooks().fetch(source.uri, cache_dir(), offline, promise)
        if found is None:
            raise _no_scheme(source.uri)
        verify(found, wanted)
    except ChecksumError as error:
        if known and error.found:
            raise changed_since_pinned(known, error.found) from error
        raise
    if pinned and known is None and pin and found.is_file():
        with found.open("rb") as file:
            check_head(source.uri, file.read(HEAD))
        _record(source.uri, found)
    return found


def _record(uri: str, path: Path) -> None:
    digest = file_sha256(path)
    try:
        record_pin(uri, digest, path.stat().st_size)
    except OSError as error:
        _log.warning("%s was not pinned: %s", uri, error)
    else:
        _log.warning(
            "nobody has published a SHA-256 for %s. It is %s now, and any other will be refused from now on", uri, digest
        )


def verify(path: Path, source: Source) -> None:
    """Raises `ChecksumError` unless a file has the size and SHA-256 that its source promises; a folder promises nothing."""
    if not path.is_file():
        return
    size = path.stat().st_size
    if source.size not in (None, size):
        raise _wrong(path, f"{size} bytes", source.uri, source.size)
    if source.sha256 is not None:
        digest = file_sha256(path)
        if digest != source.sha256:
            raise _wrong(path, f"SHA-256 {digest}", source.uri, source.sha256, digest)


# Errors ---------------------------------------------------------------------------------------------------------------


def _wrong(path: Path, has: str, uri: str, wanted: object, found: str | None = None) -> ChecksumError:
    return ChecksumError(
        f"{path} has {has}, but {uri} must have {wanted}. These are not the published bytes.",
        "Delete the file and fetch it again; if it stays so, the publisher changed the file.",
        found=found,
    )


def _no_scheme(uri: str) -> DownloadError:
    return DownloadError(
        f"nothing here can fetch {uri!r}. The built-in schemes are https://, hf:// and package://; plugins may add others.",
        "Use one of them, or a path.",
    )


def _no_source(card: Card, causes: Sequence[DownloadError]) -> DownloadError:
    kind = OfflineError if all(isinstance(cause, OfflineError) for cause in causes) else DownloadError
    listing = "".join(f"\n  {source.uri}: {cause}" for source, cause in zip(card.sources, causes, strict=True))
    return kind(
        f"{card.name} could not be fetched from any of its {len(causes)} sources:{listing}\n",
        f"`hubcore fetch {card.name}` tries again; hub.load({card.name!r}, checkpoint=PATH) takes a file.",
    )
