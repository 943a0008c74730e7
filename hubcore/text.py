"""Text for people: `printable`, which any terminal and any log takes, durations, sizes, and errors on one line."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable

LINES = "\n\t"
"""For `printable(text, keep=LINES)`: a message may have several lines, a name or a path may not."""
_USER = re.compile(r"(?<=://)[^\s/?#'\"]{1,4096}@")
_QUERY = re.compile(r"(://[^\s?'\"]{1,4096}\?)[^\s'\"<>]+?(?=[.,:;)\]]{0,3}(?:[\s'\"<>]|$))")


def printable(text: str | os.PathLike[str], *, keep: str = "") -> str:
    r"""A name, a path or a message with all that is no visible character written out, for a terminal or a log.

    Names come from strangers: an escape sequence in one could drive the terminal, and a line end could forge a line of ours.
    Bytes that are no UTF-8 could not even be printed.

    Args:
        text: the text.
        keep: characters to leave as they are.

    Example:
        >>> printable(os.fsdecode(b"caf\xe9.wav")), printable("a\x1b[31m\nb"), printable("a\nb", keep=LINES)
        ('caf\\udce9.wav', 'a\\x1b[31m\\nb', 'a\nb')
    """
    text = os.fspath(text)
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() or one in keep else repr(one)[1:-1] for one in text)


def redacted(text: str) -> str:
    """Text in which no address shows its query or its password: whoever has a signed address may fetch the file.

    Example:
        >>> redacted("https://host/a.pt?sig=12 is gone, hf://org/repo@main is not")
        'https://host/a.pt?*** is gone, hf://org/repo@main is not'
        >>> redacted("https://me:word@host/a.pt")
        'https://***@host/a.pt'
    """
    return _QUERY.sub(r"\1***", _USER.sub("***@", text)) if "://" in text else text


def message_text(text: str) -> str:
    r"""The text of an error or a log line as people may see it: `printable` and `redacted`.

    Example:
        >>> message_text("https://host/a.pt?sig=12: \x07")
        'https://host/a.pt?***: \\x07'
    """
    return redacted(printable(text, keep=LINES))


def labelled(rows: Iterable[tuple[str, object]]) -> str:
    r"""Lines of a label and a value each, the values below each other; no value takes more than its line.

    Example:
        >>> print(labelled([("name", "a"), ("licence", "MIT\nname  b")]))
        name     a
        licence  MIT\nname  b
    """
    listed = [(label, printable(str(value))) for label, value in rows]
    width = max((len(label) for label, _ in listed), default=0)
    return "\n".join(f"{label:<{width}}  {value}" for label, value in listed)


def logger(part: str) -> logging.Logger:
    """The log of a part of hubcore, `hubcore.<part>`, whose lines are `message_text` whoever handles them.

    Example:
        >>> logger("checkpoints").name
        'hubcore.checkpoints'
    """
    found = logging.getLogger(f"hubcore.{part}")
    found.addFilter(_for_people)
    return found


def _for_people(record: logging.LogRecord) -> bool:
    record.msg, record.args = message_text(record.getMessage()), None
    return True


def plural(count: int, noun: str) -> str:
    """A count with its noun.

    Example:
        >>> plural(1, "sample"), plural(20_000, "process"), plural(0, "utterance")
        ('1 sample', '20000 processes', '0 utterances')
    """
    return f"{count} {noun if count == 1 else noun + ('es' if noun.endswith('s') else 's')}"


def listed(names: Iterable[str], most: int = 5) -> str:
    """Names as text, the first few of them if there are many.

    Example:
        >>> listed("abcde", most=3), listed([])
        ('a, b, c and 2 more', 'none')
    """
    names = [*names]
    return (", ".join(names[:most]) or "none") + (f" and {len(names) - most} more" if len(names) > most else "")


def path_text(path: str | os.PathLike[str]) -> str:
    """A path as text in a file of ours: its bytes as UTF-8, whatever the locale, so that it is the same text everywhere.

    Example:
        >>> path_text("café.wav")
        'café.wav'
    """
    return os.fsencode(path).decode("utf-8", "surrogateescape")


def text_path(text: str) -> str:
    """The path that `path_text` gave as text, as functions of this locale take it.

    Example:
        >>> text_path(path_text("café.wav"))
        'café.wav'
    """
    return os.fsdecode(text.encode("utf-8", "surrogateescape"))


def error_text(error: BaseException) -> str:
    """The class of an exception and its message, on one line; a broken plugin's own exception may not even have one.

    Example:
        >>> error_text(KeyError("a")), error_text(SystemExit())
        ("KeyError: 'a'", 'SystemExit')
    """
    try:
        text = " ".join(str(error).split())
    except (Exception, SystemExit, GeneratorExit):
        text = "its text cannot be shown"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def format_duration(seconds: float) -> str:
    """Seconds as `1:02:03` or `2:03`, or with a decimal below a minute.

    Example:
        >>> format_duration(3723), format_duration(2.345)
        ('1:02:03', '2.3 s')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = int(seconds + 0.5)
    hours, minutes = whole // 3600, whole // 60 % 60
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"


def format_bytes(count: int) -> str:
    """A number of bytes with a binary unit.

    Example:
        >>> format_bytes(532), format_bytes(3_500_000)
        ('532 B', '3.3 MiB')
    """
    size, unit = float(count), "B"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if size < 1024 or unit == "TiB":
            break
        size /= 1024
    return f"{count} B" if unit == "B" else f"{size:.1f} {unit}"


def format_count(count: int) -> str:
    """A large number in millions or billions.

    Example:
        >>> format_count(557_216), format_count(315_437_696), format_count(6_484_681_344)
        ('0.6 M', '315 M', '6.5 B')
    """
    if count >= 10**9:
        return f"{count / 1e9:.1f} B"
    return f"{count / 1e6:.{0 if count >= 10**8 else 1}f} M"


def parse_count(text: str) -> int:
    """A number such as `95000000`, `95M`, `0.3B` or `1.5G`.

    Raises:
        ValueError: it is none.

    Example:
        >>> parse_count("100M"), parse_count("1.5b"), parse_count("500")
        (100000000, 1500000000, 500)
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGB]?)", text.strip(), re.IGNORECASE | re.ASCII)
    if match is None:
        raise ValueError(f"{text!r} is no number such as 95000000, 95M or 1.5B")
    return round(float(match[1]) * {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "B": 10**9}[match[2].upper()])
