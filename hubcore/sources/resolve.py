"""From what a user or a card names to a file on this machine. Imports no torch.

A source is a path, `https://...`, `hf://org/repo[@revision][/file]`, `package://package/file`, or a registered name. All but
paths go through the hook `hubcore_fetch`, the built-in schemes (`hubcore.sources.schemes`) included.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

from hubcore.card import Card, Source
from hubcore.checkpoints.runs import run_card
from hubcore.errors import CheckpointError, ChecksumError, DownloadError, OfflineError, UnknownUpstreamError
from hubcore.sources.expectations import Expectation, expecting
from hubcore.sources.folders import cache_dir, is_offline
from hubcore.sources.stamps import file_sha256

_log = logging.getLogger("hubcore.checkpoints")


def resolve(source: str | os.PathLike[str]) -> Path:
    """The local file or folder of a source; see `resolve_with_card`.

    Example:
        >>> resolve("wav2vec2_tiny_prompts").name
        'wav2vec2_tiny_prompts.safetensors'
    """
    return resolve_with_card(source)[0]


def resolve_with_card(source: str | os.PathLike[str]) -> tuple[Path, Card | None]:
    """The local file or folder of a source, fetched if need be, and the card of a registered name.

    Args:
        source: see the module's first lines. A path that exists wins over a name.

    Raises:
        CheckpointError: a path that does not exist.
        UnknownUpstreamError: neither a path, nor a URI, nor a registered name.
        DownloadError: it cannot be fetched.
    """
    text = os.fspath(source)
    if not text:
        raise CheckpointError("the checkpoint is an empty text. It must be a path, a URI or a registered name.")
    if "\0" in text:
        raise CheckpointError(f"the checkpoint {text!r} holds a NUL character. No path does. Correct it.")
    if "://" in text:
        return fetch_source(Source(text)), None
    path = Path(text).expanduser()
    if path.exists() or not isinstance(source, str) or _looks_like_path(text):
        if not path.exists():
            raise CheckpointError(f"{path} does not exist. Check the spelling and the working folder, {Path.cwd()}.")
        return path, run_card(path) if path.is_dir() else None
    from hubcore.registry.names import current_registry

    try:
        entry = current_registry().find(text)
    except UnknownUpstreamError as error:
        raise UnknownUpstreamError(
            text, current_registry().names(), "There is no such file either. `hubcore list` shows every name."
        ) from error
    if entry.card is None or not entry.card.sources:
        raise CheckpointError(f"{text!r} needs no checkpoint, so there is none to fetch. Load it with hub.load({text!r}).")
    return fetch_card(entry.card), entry.card


def _looks_like_path(text: str) -> bool:
    return text.startswith((".", "~", "/")) or "/" in text or "\\" in text or Path(text).suffix in _SUFFIXES


_SUFFIXES = (".pt", ".pth", ".ckpt", ".bin", ".safetensors", ".th", ".tar")


def fetch_card(card: Card) -> Path:
    """The checkpoint of a card: a copy that is here already, else from the first of its sources that gives it.

    Raises:
        DownloadError: no source does; every cause is named.
    """
    for source in card.sources:
        there = find_cached(source, card)
        if there is not None:
            if there.is_file() and source.sha256 is None and _is_remote(source.uri):
                _pin(source.uri, there)
            return there
    causes: list[DownloadError] = []
    for source in card.sources:
        try:
            path = fetch_source(source, card)
        except DownloadError as error:
            causes.append(error)
            continue
        for cause in causes:
            _log.warning("%s came from its source %s, because %s", card.name, source.uri, cause)
        return path
    if len(causes) == 1:
        raise causes[0]
    kind = OfflineError if all(isinstance(cause, OfflineError) for cause in causes) else DownloadError
    listing = "".join(f"\n  {source.uri}: {cause}" for source, cause in zip(card.sources, causes, strict=True))
    raise kind(
        f"{card.name} could not be had from any of its {len(causes)} sources:{listing}\n"
        f"With a network, `hubcore fetch {card.name}` tries again; hub.load({card.name!r}, checkpoint=PATH) takes a file."
    )


def fetch_source(source: Source, card: Card | None = None) -> Path:
    """The local file of one source, its size and SHA-256 checked against what the source promises.

    A card's source without a SHA-256 is pinned: what it gives first is recorded, and anything else is refused afterwards.

    Raises:
        ChecksumError: the file is not the one that was published or pinned.
        DownloadError: it cannot be fetched.
    """
    if "://" not in source.uri:
        path = _local_path(source, card)
        if not path.exists():
            raise DownloadError(
                f"{path} does not exist. The card {card.name if card else source.uri!r} names it. Correct the card."
            )
    else:
        path = _fetch_uri(source, card, is_offline())
    if path.is_file():
        verify(path, source)
        if card is not None and source.sha256 is None and _is_remote(source.uri):
            _pin(source.uri, path)
    return path


def _fetch_uri(source: Source, card: Card | None, offline: bool) -> Path:
    """What the hook gives for a source's URI."""
    from hubcore.hooks import current_hooks
    from hubcore.sources.pins import read_pin

    sha256, pinned = source.sha256, False
    if sha256 is None and card is not None and _is_remote(source.uri):
        pin = read_pin(source.uri)
        sha256, pinned = (pin.sha256, True) if pin else (None, False)
    promise = Expectation(source.uri, sha256, source.size, card.name if card else None, pinned)
    if pinned and source.uri.startswith(("https:", "http:")):
        promise = Expectation(source.uri, None, source.size, promise.name)  # its own fetcher reads the pin, to say so
    with expecting(promise):
        found = current_hooks().fetch(source.uri, cache_dir(), offline)
    if found is None:
        raise DownloadError(
            f"nothing here can fetch {source.uri!r}. The built-in schemes are https://, hf:// and package://; plugins may add "
            "others. Use one of them, or a path."
        )
    return found


def _is_remote(uri: str) -> bool:
    return "://" in uri and not uri.startswith("package://")


def _pin(uri: str, path: Path) -> None:
    """Records the digest of a first fetch, or compares it; a cache that cannot be written keeps no pins."""
    from hubcore.sources.pins import record_pin

    digest = file_sha256(path)
    try:
        record_pin(uri, digest, path.stat().st_size)
    except OSError as error:
        _log.warning("%s was not pinned: %s", uri, error)


def _local_path(source: Source, card: Card | None) -> Path:
    """The file of a source that is a path: relative to the registry file that holds its card."""
    return Path(card.file).parent / source.uri if card and card.file else Path(source.uri)


def verify(path: Path, source: Source) -> None:
    """Raises `ChecksumError` unless the file has the size and SHA-256 that its source promises."""
    size = path.stat().st_size
    if source.size is not None and size != source.size:
        raise ChecksumError(
            f"{path} has {size} bytes, but {source.uri} must have {source.size}. The file is cut or another one. "
            "Delete it and fetch it again."
        )
    if source.sha256 is not None and file_sha256(path) != source.sha256:
        raise ChecksumError(
            f"{path} has SHA-256 {file_sha256(path)}, but {source.uri} must have {source.sha256}. These are not the "
            "published bytes. Delete the file and fetch it again; if it stays so, the publisher changed the file."
        )


def find_cached(source: Source, card: Card | None = None) -> Path | None:
    """The local file of a source if it is here already; never touches the network."""
    path = _local_path(source, card)
    try:
        if "://" in source.uri:
            path = _fetch_uri(source, card, offline=True)
        if path.is_file():
            verify(path, source)
    except DownloadError:
        return None
    return path if path.exists() else None
