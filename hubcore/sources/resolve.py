"""From what a user or a card names to a file on this machine. Imports no torch.

A source is a path, `https://...`, `hf://org/repo[@revision][/file]`, `package://package/file`, or a registered name. All but
paths go through the hook `hubcore_fetch`, the built-in schemes (`hubcore.sources.schemes`) included.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import threading
from pathlib import Path

from hubcore.card import Card, Source
from hubcore.checkpoints.runs import run_card
from hubcore.errors import CheckpointError, ChecksumError, DownloadError, OfflineError, OptionError, UnknownUpstreamError
from hubcore.sources.expectations import Expectation, expecting

_log = logging.getLogger("hubcore.checkpoints")
_TRUE = ("1", "true", "yes", "on")


def cache_dir() -> Path:
    """The folder for downloads: `HUBCORE_CACHE`, or `$XDG_CACHE_HOME/hubcore`, or `~/.cache/hubcore`, read at each call.

    Raises:
        OptionError: none of them is set, and nobody knows where the home folder is.
    """
    own, base = os.environ.get("HUBCORE_CACHE"), os.environ.get("XDG_CACHE_HOME")
    try:
        if own:
            return Path(own).expanduser()
        return Path(base).expanduser() / "hubcore" if base else Path.home() / ".cache" / "hubcore"
    except RuntimeError as error:
        raise OptionError(
            f"the folder for downloads is not known: {error} There must be a home folder, or a full path in HUBCORE_CACHE. "
            "Set HUBCORE_CACHE=/some/folder."
        ) from error


def read_only_caches() -> tuple[Path, ...]:
    """Caches that are looked into and never written: the folders in `HUBCORE_CACHE_READONLY`, in their order.

    Example:
        >>> isinstance(read_only_caches(), tuple)
        True
    """
    listed = os.environ.get("HUBCORE_CACHE_READONLY", "").split(os.pathsep)
    return tuple(Path(text).expanduser() for text in listed if text)


def is_offline() -> bool:
    """Whether `HUBCORE_OFFLINE` or `HF_HUB_OFFLINE` forbids downloads, read at each call."""
    return any(os.environ.get(name, "").lower() in _TRUE for name in ("HUBCORE_OFFLINE", "HF_HUB_OFFLINE"))


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


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file, from its stamp if the file has not changed since it was last hashed.

    Example:
        >>> import tempfile, pathlib
        >>> file = pathlib.Path(tempfile.mkdtemp()) / "a"
        >>> _ = file.write_bytes(b"")
        >>> file_sha256(file)[:8]
        'e3b0c442'
    """
    known = read_stamp(path)
    if known is not None:
        return known
    before = file_state(path)
    digest = hash_file(path)
    if file_state(path) == before:  # a file that changes meanwhile must not be stamped with what it was
        write_stamp(path, str(path), digest)
    return digest


def hash_file(path: Path) -> str:
    """The SHA-256 of a file, every byte of it read.

    Example:
        >>> import tempfile, pathlib
        >>> file = pathlib.Path(tempfile.mkdtemp()) / "a"
        >>> _ = file.write_bytes(b"")
        >>> hash_file(file)[-4:]
        'b855'
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def stamp_path(path: Path, folder: Path | None = None) -> Path:
    """Where the stamp of a file lies: in a cache, ours if None, under a name made from the file's own place."""
    name = hashlib.sha256(os.fsencode(path.resolve())).hexdigest()
    return (folder or cache_dir()) / "stamps" / f"{name}.json"


def write_stamp(path: Path, uri: str, sha256: str, folder: Path | None = None) -> None:
    """Records what a file is, so that it need not be hashed again until it changes; a cache that is full may refuse."""
    record = {"uri": uri, "path": str(path.resolve()), "sha256": sha256, **file_state(path)}
    stamp = stamp_path(path, folder)
    temporary = stamp.with_name(f".{stamp.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        stamp.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(record, indent=1) + "\n")
        os.replace(temporary, stamp)
    except OSError as error:
        _log.info("%s was not stamped: %s", path, error)  # the next use hashes it again, which is all a stamp saves


def read_stamp(path: Path) -> str | None:
    """The SHA-256 in a file's stamp, if the file is still the one that was stamped."""
    for folder in (cache_dir(), *read_only_caches()):
        try:
            record = json.loads(stamp_path(path, folder).read_text())
            if all(record[key] == value for key, value in file_state(path).items()):
                return str(record["sha256"])
        except (OSError, ValueError, KeyError, TypeError):
            continue  # no stamp, or a damaged one: the caller hashes the file
    return None


def file_state(path: Path) -> dict[str, int]:
    """What changes when a file does. The change time cannot be set back, unlike the time of modification."""
    stat = path.stat()
    return {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns, "ctime_ns": stat.st_ctime_ns, "inode": stat.st_ino}


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
