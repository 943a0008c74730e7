"""Whether a source can be had from where it is, found out without fetching it whole. Imports no torch."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hubcore.card import Source
from hubcore.errors import DownloadError
from hubcore.sources.folders import cache_dir
from hubcore.sources.https.addresses import check_url
from hubcore.sources.https.download import most_bytes
from hubcore.sources.https.parts import open_part
from hubcore.sources.https.transfer import Limits, transfer
from hubcore.sources.hub.hugging_face import METADATA_TIMEOUT, HubFile, explained, hub_endpoint, parse_hub_uri, pause

_ENOUGH = 64
"""Bytes by which a page in place of the file is recognised."""
_TRIES = 3
_MAY_PASS = (408, 425, 429, 500, 502, 503, 504)


def is_link(source: Source) -> bool:
    """Whether a source is an address that can be asked without a plugin: `https://` or `hf://`.

    Example:
        >>> is_link(Source("hf://org/repo/model.pt")), is_link(Source("weights/model.pt"))
        (True, False)
    """
    return source.uri.startswith(("https://", "http://", "hf://"))


def why_dead(source: Source) -> str | None:
    """Why a link does not give its file now, in a sentence; None if it does. Only the first bytes are transferred.

    A server that announces another size, or the hub another hash, than the source promises counts as dead.
    """
    try:
        if source.uri.startswith("hf://"):
            _ask_hub(source)
        else:
            _ask_server(source)
    except DownloadError as error:
        return str(error)
    return None


class _EnoughError(Exception):
    """The first bytes are there; the rest is not wanted."""


def _ask_server(source: Source) -> None:
    """Begins the very transfer that a download would be, and breaks it off."""
    check_url(source.uri)
    limits = Limits(source.size, most_bytes() if source.size is None else source.size, source.sha256 is not None)

    def stop(done: int, total: int | None) -> None:  # noqa: ARG001 - the signature of `Progress`
        if done >= _ENOUGH:
            raise _EnoughError

    with (
        _scratch() as folder,
        open_part(folder, "probe", source.uri, checked=limits.checked) as part,
        contextlib.suppress(_EnoughError),
    ):
        transfer(source.uri, part, limits, stop)


@contextlib.contextmanager
def _scratch() -> Iterator[Path]:
    """A folder for the first bytes: in the cache, so that a download's check for free space means the right disk."""
    place: Path | None = cache_dir()
    try:
        cache_dir().mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=place).close()  # made and gone
    except OSError:
        place = None  # the cache cannot be written, which is no fault of the link
    with tempfile.TemporaryDirectory(prefix=".probe-", dir=place) as folder:
        yield Path(folder)


def _ask_hub(source: Source) -> None:
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.utils import httpx

    model = parse_hub_uri(source.uri)
    file = HubFile(model.repo, model.revision, model.name or "config.json")  # a whole model has at least that one
    endpoint = hub_endpoint()
    url = hf_hub_url(file.repo, str(file.name), revision=file.revision, endpoint=endpoint)
    for number in range(1, _TRIES + 1):
        try:
            metadata = get_hf_file_metadata(url, timeout=METADATA_TIMEOUT, endpoint=endpoint)
            break
        except (HfHubHTTPError, httpx.HTTPError, OSError, ValueError) as error:
            status = getattr(getattr(error, "response", None), "status_code", None)
            passing = status in _MAY_PASS or isinstance(error, httpx.TransportError)
            if not passing or number == _TRIES:
                raise explained(file, endpoint, error) from error
            pause(0.5 * 2.0**number)
    if model.name:
        _compare(source, metadata)


def _compare(source: Source, metadata: Any) -> None:
    """Raises `DownloadError` if the hub announces another file than the source promises."""
    digest = metadata.etag if metadata.etag and len(metadata.etag) == 64 else None
    if None not in (digest, source.sha256) and digest != source.sha256:
        raise DownloadError(
            f"{source.uri} has SHA-256 {digest} on the hub, but must have {source.sha256}. It is another file. "
            "Name the commit that has the right one, or correct the card."
        )
    if None not in (metadata.size, source.size) and metadata.size != source.size:
        raise DownloadError(
            f"{source.uri} has {metadata.size} bytes on the hub, but must have {source.size}. It is another file. "
            "Name the commit that has the right one, or correct the card."
        )
