"""Checks of web addresses: those of sources, and those that a redirect leads to. Imports no torch."""

from __future__ import annotations

import ipaddress
import re
import socket
import time
from urllib.parse import urljoin, urlsplit

from hubcore.errors import DownloadError

REFUSED_FOR = 60.0
"""Seconds for which a host that could not be reached is not tried again."""
_refused: dict[str, float] = {}
_HOST = re.compile(r"[a-z0-9_.-]+|[0-9a-f:.]+(%[a-z0-9_.-]+)?")
_MACHINE, _NETWORK, _WORLD = range(3)


def is_loopback(url: str) -> bool:
    """True if a URL leads to this machine, however its host is written.

    Example:
        >>> is_loopback("http://127.0.0.1:8000/a"), is_loopback("http://0x7f.1/a"), is_loopback("https://example.org/a")
        (True, True, False)
    """
    return _distance(urlsplit(url).hostname or "") == _MACHINE


def _distance(host: str) -> int:
    """Distance of a host: this machine (or the address at which a cloud tells it its secrets), its network, or beyond.

    A name is looked up by nobody here, so that only those that always mean this machine are known.
    """
    host = host.lower().rstrip(".")
    if host == "localhost" or host.endswith(".localhost"):
        return _MACHINE
    try:
        packed = socket.inet_aton(host)  # also 127.1, 2130706433 and 0x7f000001, which the system takes as well
        address: ipaddress.IPv4Address | ipaddress.IPv6Address = ipaddress.IPv4Address(packed)
    except OSError:
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return _WORLD
    if isinstance(address, ipaddress.IPv6Address):
        within = int(address) & 0xFFFF_FFFF  # of ::ffff:a.b.c.d, ::a.b.c.d and 64:ff9b::a.b.c.d
        if int(address) >> 32 in (0xFFFF, 0, 0x64_FF9B << 64) and within > 1:
            address = ipaddress.IPv4Address(within)
        address = getattr(address, "sixtofour", None) or address
    if address.is_loopback or address.is_unspecified or address.is_link_local or int(address) >> 24 == 0:
        return _MACHINE
    return _WORLD if address.is_global else _NETWORK


def note_refused(url: str) -> None:
    """Notes that the host of a URL cannot be reached, so that its other files are not waited for."""
    _refused[urlsplit(url).netloc] = time.monotonic()


def was_refused(url: str) -> bool:
    """True if the host of a URL could not be reached a moment ago."""
    since = _refused.get(urlsplit(url).netloc)
    return since is not None and time.monotonic() - since < REFUSED_FOR


def check_url(url: str) -> None:
    """Raises `DownloadError` unless `url` is https with a host and no credentials; http is for this machine alone."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError as error:
        raise DownloadError(f"{url!r} is not a plain https:// address ({error}).", "Correct it.") from error
    plain = _HOST.fullmatch(host) and "@" not in parts.netloc and "\\" not in url
    if parts.scheme not in ("https", "http") or not plain:
        raise DownloadError(f"{url!r} is not a plain https:// address.", "Correct it; credentials do not belong in it.")
    if parts.scheme == "http" and _distance(host) != _MACHINE:
        raise DownloadError(f"{url} is not encrypted. Anyone on the way could change the weights.", "Use https://.")


def redirect_target(url: str, location: str) -> str:
    """Address that a redirect from `url` leads to.

    Raises:
        DownloadError: that must not be followed: no https, credentials, or from elsewhere to this machine or its network.
    """
    try:
        target = urljoin(url, location)
        check_url(target)
    except (ValueError, DownloadError) as error:
        raise DownloadError(f"{url} redirects to {location!r}, which is not followed: {error}") from error
    distance = _distance(urlsplit(target).hostname or "")
    if distance < _distance(urlsplit(url).hostname or ""):
        place = "to this machine" if distance == _MACHINE else "into a private network"
        raise DownloadError(f"{url} redirects {place} ({target}), which is not followed.", "Use another source.")
    if urlsplit(url).scheme == "https" and urlsplit(target).scheme == "http":
        raise DownloadError(f"{url} redirects to {target}, which is not encrypted and not followed.", "Use another source.")
    return target
