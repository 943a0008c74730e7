"""hubcore's own checkpoint: safetensors, the config as JSON in its header. Written whole or not at all."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import secrets
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from hubcore.errors import CheckpointError, OptionError
from hubcore.version import VERSION


def write_native(path: str | Path, state: Mapping[str, Tensor], *, config: Any, upstream: str) -> None:
    """Writes a state dict and its config to `path`, through a temporary file beside it.

    Args:
        path: the file to make or replace.
        state: name -> tensor.
        config: a dataclass of plain values.
        upstream: name of the class, so that the file says what reads it.

    The file gets the permissions that any new file would: those of the process's umask.

    Raises:
        OptionError: `config` is no dataclass of plain values, so that the file could not be read back.
        CheckpointError: the file cannot be written; what was at `path` is still there.
    """
    path = Path(path)
    if not dataclasses.is_dataclass(config) or isinstance(config, type):
        raise OptionError(
            f"the config of {upstream} is {config!r:.60}, which cannot be saved. A checkpoint carries its config, without "
            "which its weights cannot be read back. Set self.config to a dataclass of plain values, or save state_dict()."
        )
    # One entry, because safetensors writes several in no fixed order: the same weights must give the same bytes.
    about = {"upstream": upstream, "config": dataclasses.asdict(config), "hubcore_version": VERSION}
    try:
        header = {"hubcore": json.dumps(about, sort_keys=True)}
    except (TypeError, ValueError) as error:
        raise OptionError(
            f"the config of {upstream} cannot be saved: {error}. It is kept as JSON, which has numbers, texts, lists and "
            "dictionaries only. Give the config such values."
        ) from error
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}
    temporary = path.parent / f".{secrets.token_hex(8)}.part"
    try:
        # Not tempfile's, which no one else may read; the umask decides about this one.
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        _save(tensors, temporary, header)
        os.replace(temporary, path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{path} could not be written ({error}). Nothing was changed there. Check that the folder exists, may be "
            "written to, and has space."
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _save(tensors: dict[str, Tensor], path: Path, header: dict[str, str]) -> None:
    """Writes a safetensors file and returns when it is on the disk; the file keeps the permissions it has."""
    mode = stat.S_IMODE(path.stat().st_mode)
    save_file(tensors, path, metadata=header)
    with open(path, "rb") as file:
        os.fsync(file.fileno())
    if stat.S_IMODE(path.stat().st_mode) != mode:  # a release of safetensors may put a file of its own there
        path.chmod(mode)
