"""The encoder of a large checkpoint, kept as a file of its own, so that every later load only maps it into memory.

A fairseq file is mostly optimizer state, and reading the rest means checking CRCs and rearranging tensors. After the first load
of a file of some size, a thread writes what became of it, the weights in float32 and the config, as hubcore's own safetensors
into the folder `converted` of the cache, one tensor at a time, named after the source's SHA-256 and the reader's version. The
source is recognised by its stamp (size, times, inode), the copy by its own; whatever does not match is not used. The source is
never changed. `HUBCORE_CONVERTED=0` turns this off; `rm -r` of the folder is always safe.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import logging
import math
import os
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from hubcore.checkpoints.report import LoadReport
from hubcore.errors import CheckpointError
from hubcore.sources.folders import cache_dir
from hubcore.sources.stamps import file_state, hash_file, read_stamp, write_stamp

_log = logging.getLogger("hubcore.checkpoints")
_used: ContextVar[bool] = ContextVar("converted copies are used", default=True)
_MIN_BYTES = 32 << 20
"""A smaller file is read as fast as a copy of it is found."""


@dataclasses.dataclass(frozen=True)
class Converted:
    """A copy that is whole: what the first load found, and the weights, mapped into memory and private to this process."""

    config: dict[str, Any]
    """The config's values."""
    weights: dict[str, Tensor]
    """Name -> tensor in float32; writing to one changes memory only, never the file."""
    report: LoadReport
    """The report of the first load."""


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What a copy is made of."""

    config: Any
    """A dataclass of plain values."""
    shapes: Mapping[str, tuple[int, ...]]
    """Name -> shape of every weight."""
    weights: Callable[[], Iterator[tuple[str, Tensor]]]
    """Reads the weights again, one at a time, in the order of `shapes`."""
    report: LoadReport


def find_converted(path: Path, reader: str) -> Converted | None:
    """The copy of a checkpoint, or None if there is none, or the checkpoint or the copy has changed.

    Args:
        path: the checkpoint.
        reader: names what made the copy: the family, its version, and whatever else the result depends on.
    """
    if not _is_worth_it(path):
        return None
    sha256 = read_stamp(path)
    if sha256 is None:
        return None
    copy = _copy_path(sha256, reader, cache_dir())
    try:
        about = json.loads(copy.with_suffix(".json").read_text())
        if read_stamp(copy) != about["sha256"]:
            raise CheckpointError(f"{copy} is not the file that was written")
        report = LoadReport.from_dict({**about["report"], "source": str(path), "sha256": sha256})
        return Converted(dict(about["config"]), load_file(copy), report)
    except FileNotFoundError:
        return None
    except (CheckpointError, SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        _log.warning("the converted copy of %s is not used and is removed: %s", path, error)
        for file in (copy, copy.with_suffix(".json")):
            with contextlib.suppress(OSError):
                file.unlink(missing_ok=True)
        return None


def keep_converted(path: Path, reader: str, recipe: Recipe) -> threading.Thread | None:
    """Starts making the copy of a checkpoint that has just been read; None if the file is too small to be worth it.

    A program that ends meanwhile waits for it, a second or so. A cache that refuses costs only speed.
    """
    if not _is_worth_it(path):
        return None
    # What the environment says now is what counts, not what it says when the thread gets there.
    thread = threading.Thread(target=_make, args=(path, reader, recipe, cache_dir()), name="hubcore-converted")
    thread.start()
    return thread


@contextlib.contextmanager
def without_copies() -> Iterator[None]:
    """A context in which checkpoints themselves are read, and no copies are made.

    Example:
        >>> with without_copies():
        ...     find_converted(Path("model.pt"), "any reader") is None
        True
    """
    token = _used.set(False)
    try:
        yield
    finally:
        _used.reset(token)


def _is_worth_it(path: Path) -> bool:
    if not _used.get() or os.environ.get("HUBCORE_CONVERTED", "1").lower() in ("0", "false", "no", "off"):
        return False
    try:
        return path.is_file() and path.suffix != ".safetensors" and path.stat().st_size >= _MIN_BYTES
    except OSError:
        return False


def _copy_path(sha256: str, reader: str, folder: Path) -> Path:
    """Where a copy lies; no text from outside becomes part of a path."""
    return folder / "converted" / f"{sha256}-{hashlib.sha256(reader.encode()).hexdigest()[:16]}.safetensors"


def _make(path: Path, reader: str, recipe: Recipe, folder: Path) -> None:
    """Writes the copy and what stands beside it; whatever goes wrong is logged and leaves nothing."""
    temporary = folder / "converted" / f".{secrets.token_hex(8)}.part"
    about = temporary.with_suffix(".json")
    try:
        temporary.parent.mkdir(parents=True, exist_ok=True)
        before = file_state(path)
        digest = _write(temporary, recipe)
        sha256 = read_stamp(path) or hash_file(path)
        if file_state(path) != before:
            raise CheckpointError(f"{path} changed while it was copied")
        copy = _copy_path(sha256, reader, folder)
        os.replace(temporary, copy)
        write_stamp(copy, str(path), digest, folder)
        record = {"sha256": digest, "config": dataclasses.asdict(recipe.config), "report": dataclasses.asdict(recipe.report)}
        about.write_text(json.dumps(record, indent=1) + "\n")
        os.replace(about, copy.with_suffix(".json"))
        write_stamp(path, str(path), sha256, folder)  # last: a load that finds it finds the copy too
    except (CheckpointError, OSError, TypeError, ValueError) as error:
        _log.info("no converted copy of %s was kept: %s", path, error)
    finally:
        for file in (temporary, about):
            with contextlib.suppress(OSError):
                file.unlink(missing_ok=True)


def _write(path: Path, recipe: Recipe) -> str:
    """Writes a safetensors file of float32 weights, one tensor in memory at a time; returns its SHA-256."""
    header: dict[str, Any] = {}
    at = 0
    for name, shape in recipe.shapes.items():
        size = 4 * math.prod(shape)
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # the numbers begin at a multiple of 8 bytes
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for block in (len(text).to_bytes(8, "little"), text):
            file.write(block)
            digest.update(block)
        for (name, tensor), expected in zip(recipe.weights(), recipe.shapes, strict=True):
            if name != expected or tuple(tensor.shape) != recipe.shapes[name] or tensor.dtype != torch.float32:
                raise CheckpointError(f"{name} is not the {expected} that was announced")
            numbers = tensor.contiguous().numpy().data.cast("B")
            file.write(numbers)
            digest.update(numbers)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()
