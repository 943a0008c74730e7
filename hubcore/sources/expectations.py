"""What a fetch must bring: told to whoever implements `hubcore_fetch`, whose arguments are fixed. Imports no torch.

The hook gets a URI only. A fetcher that checks sizes and digests while bytes come asks `expected(uri)`.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Expectation:
    """The promise about the file of one URI.

    Example:
        >>> with expecting(Expectation("https://example.org/a", size=3)):
        ...     expected("https://example.org/a").size, expected("https://example.org/b").size
        (3, None)
    """

    uri: str
    """The URI it is about."""
    sha256: str | None = None
    """64 hex digits, or None if nobody has said."""
    size: int | None = None
    """Bytes, or None if nobody has said."""
    name: str | None = None
    """The card's name; None where a user gave the URI itself."""
    pinned: bool = False
    """Whether the digest is that of an earlier download here, not one that somebody published."""


_current: contextvars.ContextVar[Expectation | None] = contextvars.ContextVar("hubcore_expectation", default=None)


@contextlib.contextmanager
def expecting(expectation: Expectation) -> Iterator[None]:
    """Makes `expected` answer with this promise, in this thread, until the block ends."""
    token = _current.set(expectation)
    try:
        yield
    finally:
        _current.reset(token)


def expected(uri: str) -> Expectation:
    """The promise about `uri` that is in force here; an empty one if there is none."""
    expectation = _current.get()
    return expectation if expectation is not None and expectation.uri == uri else Expectation(uri)
