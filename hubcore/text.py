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


def error_text(error: BaseException) -> str:
    """The class of an exception and its message, on one line; a broken plugin's own exception may not even have one.

    Example:
        >>> error_text(KeyError("a")), error_text(SystemExit())
        ("KeyError: 'a'", 'SystemExit')
    """
    try:
        text = " ".join(str(error).split())
    except Exception:
        text = "its text cannot be shown"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
