"""hubcore's own checkpoint: safetensors, the config as JSON in its header. Written whole or not at all."""

from __future__ import annotations

import dataclasses
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

import hubcore
from hubcore.errors import CheckpointError


def write_native(path: str | Path, state: Mapping[str, Tensor], *, config: Any, upstream: str) -> None:
    """Writes a state dict and its config to `path`, through a temporary file beside it.

    Args:
        path: the file to make or replace.
        state: name -> tensor.
        config: a dataclass of plain values.
        upstream: name of the class, so that the file says what reads it.

    Raises:
        CheckpointError: the file cannot be written; what was at `path` is still there.
    """
    path = Path(path)
    # One entry, because safetensors writes several in no fixed order: the same weights must give the same bytes.
    about = {"upstream": upstream, "config": dataclasses.asdict(config), "hubcore_version": hubcore.__version__}
    header = {"hubcore": json.dumps(about, sort_keys=True)}
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}
    handle, temporary = -1, ""
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        os.close(handle)
        save_file(tensors, temporary, metadata=header)
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
        raise CheckpointError(
            f"{path} could not be written ({error}). Nothing was changed there. Check that the folder exists, may be "
            "written to, and has space."
        ) from error
