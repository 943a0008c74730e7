"""`write_together`: files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Mapping
from pathlib import Path

from hubcore.errors import ExtractionError
from hubcore.text import printable


def write_together(files: Mapping[Path, bytes], *, durable: bool = True) -> None:
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
    partial: dict[Path, Path] = {}
    target = Path()
    try:
        for target, data in files.items():
            target.parent.mkdir(parents=True, exist_ok=True)
            # A short name of its own: that of the target may be as long as the file system allows.
            partial[target] = target.with_name(f".{secrets.token_hex(8)}.part")
            with open(partial[target], "xb") as stream:
                stream.write(data)
                if durable:
                    stream.flush()
                    os.fsync(stream.fileno())
        for target in files:
            os.replace(partial[target], target)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise ExtractionError(
            f"{printable(target)} cannot be written: {reason}. Nothing half-written is left there. Choose a folder that can be "
            "written, or make room."
        ) from error
    finally:
        for file in partial.values():
            with contextlib.suppress(OSError):
                file.unlink(missing_ok=True)
