"""Checks of web addresses: those of sources, and those that a redirect leads to. Imports no torch."""

from __future__ import annotations

import time
from urllib.parse import urljoin, urlsplit

from hubcore.errors import DownloadError

REFUSED_FOR = 60.0
"""Seconds for which a host that could not be reached is not tried again."""
_refused: dict[str, float] = {}
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def is_loopback(url: str) -> bool:
    """True if a URL leads to this machine.

    Example:
        >>> is_loopback("http://127.0.0.1:8000/a"), is_loopback("https://example.org/a")
        (True, False)
    """
    return urlsplit(url).hostname in _LOOPBACK


def note_refused(url: str) -> None:
    """Notes that the host of a URL cannot be reached, so that its other files are not waited for."""
    _refused[urlsplit(url).netloc] = time.monotonic()


def was_refused(url: str) -> bool:
    """True if the host of a URL could not be reached a moment ago.

    Example:
        >>> was_refused("https://example.org/model.pt")
        False
    """
    since = _refused.get(urlsplit(url).netloc)
    return since is not None and time.monotonic() - since < REFUSED_FOR


def check_url(url: str) -> None:
    """Raises `DownloadError` unless `url` is https with a host and no credentials; http is for this machine alone.

    Example:
        >>> check_url("https://example.org/model.pt")
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise DownloadError(f"{url!r} is not a plain https:// address ({error}).", "Correct it.") from error
    if parts.scheme not in ("https", "http") or not host or parts.username is not None or parts.password is not None:
        raise DownloadError(f"{url!r} is not a plain https:// address.", "Correct it; credentials do not belong in it.")
    if parts.scheme == "http" and host not in _LOOPBACK:
        raise DownloadError(f"{url} is not encrypted. Anyone on the way could change the weights.", "Use https://.")


def redirect_target(url: str, location: str) -> str:
    """Address that a redirect from `url` leads to.

    Raises:
        DownloadError: that must not be followed: no https, credentials, or from elsewhere to this machine.
    """
    try:
        target = urljoin(url, location)
        check_url(target)
    except (ValueError, DownloadError) as error:
        raise DownloadError(f"{url} redirects to {location!r}, which is not followed: {error}") from error
    if is_loopback(target) and not is_loopback(url):
        raise DownloadError(f"{url} redirects to this machine ({target}), which is not followed.", "Use another source.")
    if urlsplit(url).scheme == "https" and urlsplit(target).scheme == "http":
        raise DownloadError(f"{url} redirects to {target}, which is not encrypted and not followed.", "Use another source.")
    return target
