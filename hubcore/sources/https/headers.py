"""Headers of a server's answer, each read strictly: a value that is not what the standard allows is None. Imports no torch.

A header is a stranger's text. Python's own readers take more than ASCII digits for numbers, and raise at times of other kinds.
"""

from __future__ import annotations

import datetime as dt
import re
from typing import NamedTuple

_STRONG_AFTER = 60.0
"""A Last-Modified this many seconds before the answer's own Date cannot hide a second change within its resolution."""
_NUMBER = re.compile(r"[0-9]{1,20}")
_RANGE = re.compile(r"bytes ([0-9]{1,20})-([0-9]{1,20})/([0-9]{1,20}|\*)")
_ETAG = re.compile(r'"[\x21\x23-\x7e]{0,1000}"')
_MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
_DATE = re.compile(rf"[A-Z][a-z]{{2}}, (\d\d) ({'|'.join(_MONTHS)}) (\d{{4}}) (\d\d):(\d\d):(\d\d) GMT", re.ASCII)


class Range(NamedTuple):
    """The part of a file that an answer brings."""

    start: int
    end: int
    """The byte after the last one."""
    total: int | None
    """Bytes of the whole file, if the server knows."""


def whole_number(text: str | None) -> int | None:
    r"""A `Content-Length`, or the seconds of a `Retry-After`.

    Example:
        >>> whole_number(" 17 "), whole_number("\u00b2"), whole_number("-1"), whole_number(None)
        (17, None, None, None)
    """
    text = (text or "").strip(" \t")
    return int(text) if _NUMBER.fullmatch(text) else None


def content_range(text: str | None) -> Range | None:
    """A `Content-Range`.

    Example:
        >>> content_range("bytes 2-9/10"), content_range("bytes 2-9/*").total, content_range("bytes 9-2/10")
        (Range(start=2, end=10, total=10), None, None)
    """
    match = _RANGE.fullmatch((text or "").strip(" \t"))
    if match is None:
        return None
    start, end, total = int(match[1]), int(match[2]) + 1, whole_number(match[3])
    return Range(start, end, total) if start < end and (total is None or end <= total) else None


def is_strong_etag(text: str | None) -> bool:
    r"""True if an `ETag` names exactly these bytes and can be sent back.

    Example:
        >>> is_strong_etag('"abc"'), is_strong_etag('W/"abc"'), is_strong_etag('"\u00e9"')
        (True, False, False)
    """
    return text is not None and _ETAG.fullmatch(text) is not None


def http_date(text: str | None) -> dt.datetime | None:
    """A `Date` or `Last-Modified`, in the one form that servers may send.

    Example:
        >>> http_date("Sun, 06 Nov 1994 08:49:37 GMT").isoformat()
        '1994-11-06T08:49:37+00:00'
        >>> http_date("Sun, 06 Nov 1994 08:49:37 +99999999999") is http_date("Sun, 99 Nov 1994 08:49:37 GMT") is None
        True
    """
    match = _DATE.fullmatch(text or "")
    if match is None:
        return None
    day, month, *rest = match.groups()
    year, hour, minute, second = map(int, rest)
    try:
        return dt.datetime(year, _MONTHS.index(month) + 1, int(day), hour, minute, second, tzinfo=dt.timezone.utc)
    except ValueError:
        return None


def validator(etag: str | None, last_modified: str | None, date: str | None) -> str | None:
    """The value of one of these headers that names exactly these bytes, for `If-Range`; None if there is none.

    Example:
        >>> validator('"abc"', None, None), validator('W/"abc"', None, None)
        ('"abc"', None)
    """
    if etag is not None:
        return etag if is_strong_etag(etag) else None
    modified, sent = http_date(last_modified), http_date(date)
    enough = modified is not None and sent is not None and (sent - modified).total_seconds() >= _STRONG_AFTER
    return last_modified if enough else None


def is_validator(text: object) -> bool:
    """True if a text may be sent as `If-Range`: `validator` may have given it.

    Example:
        >>> is_validator('"abc"'), is_validator("abc")
        (True, False)
    """
    return isinstance(text, str) and (is_strong_etag(text) or http_date(text) is not None)
