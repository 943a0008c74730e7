"""Pictures that commands write: their names are checked first, and they appear whole or not at all."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hubcore.errors import OptionError
from hubcore.files import write_whole
from hubcore.text import printable

# The same picture must be the same bytes, so no date goes into it.
_METADATA = {".png": {"Software": None}, ".pdf": {"CreationDate": None}, ".svg": {"Date": None}}


def check_picture(target: Path) -> None:
    """Checks the name and folder of a picture to be written.

    Raises:
        OptionError: it has no ending that can be drawn, or no folder.

    Example:
        >>> check_picture(Path("a.gif"))  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        hubcore.errors.OptionError: the picture a.gif has an ending that cannot be drawn. ...
    """
    if target.suffix.lower() not in _METADATA:
        what = f"the picture {printable(target)} has an ending that cannot be drawn."
        raise OptionError(what, fix=f"The formats are {', '.join(_METADATA)}.")
    if target.is_dir() or not target.parent.is_dir():
        reason = "it is a folder" if target.is_dir() else f"there is no folder {printable(target.parent)}"
        what = f"the picture {printable(target)} cannot be written: {reason}."
        raise OptionError(what, fix="Choose another name, or make the folder.")


def write_picture(draw: Callable[[], Any], target: Path, style: Mapping[str, Any]) -> None:
    """Draws a figure of matplotlib and writes it; it appears whole or not at all.

    Raises:
        OptionError: it cannot be written.
    """
    from hubcore.tools.plotting import load_matplotlib

    kind, buffer = target.suffix.lower(), io.BytesIO()
    with load_matplotlib("style").context(dict(style), after_reset=True), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # a name in a script that the font lacks
        draw().savefig(buffer, format=kind[1:], metadata=_METADATA[kind])
    try:
        with write_whole(target) as temporary:
            temporary.write_bytes(buffer.getvalue())
    except OSError as error:
        what = f"the picture {printable(target)} cannot be written: {error.strerror or error}. Nothing was changed there."
        raise OptionError(what, fix="Choose a folder that can be written, or make room.") from error
