"""Tables for people: aligned columns that fit the terminal."""

from __future__ import annotations

import shutil
import sys
import unicodedata
from collections.abc import Iterable, Sequence

from hubcore.progress import is_terminal
from hubcore.text import printable

_GAP = "  "
_NARROWEST = 8
"""A column is never cut below this width."""


def format_table(
    headers: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    width: int | None = None,
    right: Iterable[str] = (),
    whole: Iterable[str] = (),
) -> str:
    """Rows below underlined headers, columns aligned; the widest columns are cut where the terminal is too narrow.

    Args:
        headers: one name per column.
        rows: one value per column each; None is shown as `-`.
        width: characters to fit into; the terminal's if None, and unlimited where output is no terminal.
        right: headers of the columns to align right, such as numbers.
        whole: headers of the columns that are never cut, such as names that somebody will type.

    Example:
        >>> print(format_table(["file", "frames"], [["a.wav", 49], ["b.wav", 149]], width=80, right=["frames"]))
        file   frames
        -----  ------
        a.wav      49
        b.wav     149
    """
    table = [list(headers), *([_text(value) for value in row] for row in rows)]
    sizes = [max(_columns(row[i]) for row in table) for i in range(len(headers))]
    if width is None and is_terminal(sys.stdout):
        width = shutil.get_terminal_size().columns
    if width is not None:
        kept = set(whole)
        cut = [i for i, header in enumerate(headers) if header not in kept]
        while sum(sizes) + len(_GAP) * (len(sizes) - 1) > width and cut:
            widest = max(cut, key=sizes.__getitem__)
            if sizes[widest] <= _NARROWEST:
                break
            sizes[widest] -= 1
    to_right = set(right)
    table.insert(1, ["-" * size for size in sizes])
    lines = []
    for row in table:
        cells = [_fit(text, size, header in to_right) for text, size, header in zip(row, sizes, headers, strict=True)]
        lines.append(_GAP.join(cells).rstrip())
    return "\n".join(lines)


def _text(value: object) -> str:
    text = "-" if value is None else str(value)
    return printable(text.replace("\n", " "))


def _columns(text: str) -> int:
    """Terminal columns that `text` takes; East Asian characters take two."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(character) else 2 if unicodedata.east_asian_width(character) in "WF" else 1
        for character in text
    )


def _fit(text: str, size: int, to_right: bool) -> str:
    if _columns(text) > size:
        while text and _columns(text) > size - 3:
            text = text[:-1]
        text += "..."
    pad = " " * (size - _columns(text))
    return pad + text if to_right else text + pad
