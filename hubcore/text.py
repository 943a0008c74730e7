"""`printable`: text that any terminal and any log takes."""

from __future__ import annotations

import os


def printable(text: str | os.PathLike[str]) -> str:
    r"""A path or a message with bytes that are no UTF-8 written out, since printing them raw would raise.

    Example:
        >>> printable(os.fsdecode(b"caf\xe9.wav"))
        'caf\\udce9.wav'
    """
    return os.fspath(text).encode("utf-8", "backslashreplace").decode("utf-8")
