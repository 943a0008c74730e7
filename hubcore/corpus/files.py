"""`write_together`: files that appear whole or not at all."""

from __future__ import annotations

import contextlib
from pathlib import Path

from hubcore.errors import ExtractionError
from hubcore.files import write_whole
from hubcore.text import printable


def write_together(files: dict[Path, bytes], *, durable: bool = True) -> None:
    """Writes files; each appears whole or not at all, in the order given, and none before all have been written.

    Args:
        files: what goes where; folders are created.
        durable: whether to wait until it is on the disk. Without, a power cut (not a killed process) may leave empty files.

    Raises:
        ExtractionError: one cannot be written; what was there before still is.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> write_together({folder / "a.tsv": b"1", folder / "b.tsv": b"2"})
        >>> sorted(path.name for path in folder.iterdir())
        ['a.tsv', 'b.tsv']
    """
    target = Path()
    try:
        with contextlib.ExitStack() as stack:
            for target, data in reversed(files.items()):  # the stack ends what was begun last first
                target.parent.mkdir(parents=True, exist_ok=True)
                stack.enter_context(write_whole(target, durable=durable)).write_bytes(data)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise ExtractionError(
            f"{printable(target)} cannot be written: {reason}. Nothing half-written is left there.",
            fix="Choose a folder that can be written, or make room.",
        ) from error
