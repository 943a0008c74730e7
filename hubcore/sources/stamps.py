"""SHA-256 of files, and stamps: records by which an unchanged file need not be hashed again. Imports no torch."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from hubcore.files import parse_json, read_small, write_whole
from hubcore.sources.folders import cache_dir, read_only_caches
from hubcore.text import logger, redacted

_log = logger("checkpoints")


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file, from its stamp if the file has not changed since it was last hashed.

    Example:
        >>> import tempfile, pathlib
        >>> file = pathlib.Path(tempfile.mkdtemp()) / "a"
        >>> _ = file.write_bytes(b"")
        >>> file_sha256(file)[:8]
        'e3b0c442'
    """
    known = read_stamp(path)
    if known is not None:
        return known
    before = file_state(path)
    digest = hash_file(path)
    if file_state(path) == before:  # a file that changes meanwhile must not be stamped with what it was
        write_stamp(path, str(path), digest)
    return digest


def hash_file(path: Path, digest: Any = None) -> str:
    """The SHA-256 of a file, or the digest begun, every byte of it read.

    Example:
        >>> import tempfile, pathlib
        >>> file = pathlib.Path(tempfile.mkdtemp()) / "a"
        >>> _ = file.write_bytes(b"")
        >>> hash_file(file)[-4:]
        'b855'
    """
    digest = digest or hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return str(digest.hexdigest())


def stamp_path(path: Path, folder: Path | None = None) -> Path:
    """Path of a file's stamp: in a cache, ours if None, under a name made from the file's own place."""
    name = hashlib.sha256(os.fsencode(path.resolve())).hexdigest()
    return (folder or cache_dir()) / "stamps" / f"{name}.json"


def write_stamp(path: Path, uri: str, sha256: str) -> None:
    """Records what a file is; where the cache cannot be written, the next use hashes the file again."""
    record = {"uri": redacted(uri), "path": str(path.resolve()), "sha256": sha256, **file_state(path)}
    stamp = stamp_path(path)
    try:
        stamp.parent.mkdir(parents=True, exist_ok=True)
        with write_whole(stamp, durable=False) as temporary:
            temporary.write_text(json.dumps(record, indent=1) + "\n")
    except OSError as error:
        _log.info("%s was not stamped: %s", path, error)


def read_stamp(path: Path) -> str | None:
    """The SHA-256 in a file's stamp, if the file is still the one that was stamped."""
    for folder in (cache_dir(), *read_only_caches()):
        record = stamp_record(stamp_path(path, folder))
        try:
            if record and all(record[key] == value for key, value in file_state(path).items()):
                return str(record["sha256"])
        except (OSError, KeyError):
            continue
    return None


def stamp_record(stamp: Path) -> dict[str, object]:
    """The contents of a stamp; empty if there is none or it is damaged."""
    try:
        record = parse_json(read_small(stamp, 1 << 16))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def file_state(path: Path) -> dict[str, int]:
    """The numbers that change when a file does. The change time cannot be set back, unlike the time of modification."""
    stat = path.stat()
    return {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns, "ctime_ns": stat.st_ctime_ns, "inode": stat.st_ino}
