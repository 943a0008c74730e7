"""hubcore's own checkpoint: safetensors, the config as JSON in its header. Written whole or not at all."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from hubcore.errors import CheckpointError, OptionError
from hubcore.files import write_whole
from hubcore.version import VERSION


def write_native(
    path: str | Path, state: Mapping[str, Tensor], *, config: Any, upstream: str, heads: Sequence[str] = ()
) -> None:
    """Writes a state dict and its config to `path`, through a temporary file beside it.

    Args:
        path: the file to make or replace.
        state: name -> tensor.
        config: a dataclass of plain values.
        upstream: name of the class, so that the file says what reads it.
        heads: tensors that the class leaves aside, such as those of a pre-training objective.

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
    about: dict[str, Any] = {"upstream": upstream, "config": dataclasses.asdict(config), "hubcore_version": VERSION}
    if heads:
        about["heads"] = sorted(heads)
    try:
        header = {"hubcore": json.dumps(about, sort_keys=True)}
    except (TypeError, ValueError) as error:
        raise OptionError(
            f"the config of {upstream} cannot be saved: {error}. It is kept as JSON, which has numbers, texts, lists and "
            "dictionaries only. Give the config such values."
        ) from error
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}
    try:
        with write_whole(path) as temporary:
            save_file(tensors, temporary, metadata=header)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{path} could not be written ({error}). Nothing was changed there. Check that the folder exists, may be "
            "written to, and has space."
        ) from error
