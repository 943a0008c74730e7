"""`Expectation`: the file that a fetch must bring, as far as it is known. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Expectation:
    """The file that a fetch must bring, for a fetcher that checks bytes as they arrive or resumes.

    Example:
        >>> Expectation(size=3).sha256 is None
        True
    """

    sha256: str | None = None
    """64 hex digits, published or of an earlier download here; None if nobody knows."""
    size: int | None = None
    """Bytes, or None if nobody knows."""
    name: str | None = None
    """The card's name; None where a user gave the address itself."""
    exclusive: bool = False
    """Whether a lock keeps other processes from fetching this address now, so that a partial file may have a fixed name."""
