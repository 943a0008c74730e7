"""Folders that `hubcore pretrain` writes: the checkpoints in one, which of them is whole, and the run's card.

```text
RUN/card.yaml
RUN/checkpoints/update_00001000/model.safetensors, optimizer.safetensors, state.json
```

A checkpoint is renamed into its place once all of it is on the disk, and `state.json` has the size and the SHA-256 of the rest.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hubcore.card import Card
from hubcore.errors import CheckpointError, RegistryError
from hubcore.files import parse_json, read_small
from hubcore.text import printable

MODEL = "model.safetensors"
OPTIMIZER = "optimizer.safetensors"
STATE = "state.json"
CARD = "card.yaml"
_NAME = re.compile(r"update_(\d{8,})")
_MAX_STATE = 16 << 20


def run_checkpoints(run: Path) -> list[tuple[int, Path]]:
    """Updates and folders of a run's checkpoints, oldest first, whole or not; none if it is no run."""
    try:
        found = [(path, _NAME.fullmatch(path.name)) for path in (run / "checkpoints").iterdir()]
    except OSError:
        return []
    return sorted((int(match[1]), path) for path, match in found if match)


def read_state(checkpoint: Path) -> dict[str, Any]:
    """The state of a checkpoint, once the sizes of its files have been compared with it; their bytes are not read.

    Raises:
        CheckpointError: it is not whole.
    """
    path = checkpoint / STATE
    try:
        state = parse_json(read_small(path, _MAX_STATE))
        files: Mapping[str, Any] = state["files"]
        if not files.keys() <= {MODEL, OPTIMIZER}:
            raise ValueError("it names files that are not of a checkpoint")
        sizes = {name: (int(about["size"]), (checkpoint / name).stat().st_size) for name, about in files.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ArithmeticError) as error:
        raise CheckpointError(
            f"{printable(checkpoint)} is not a whole checkpoint ({type(error).__name__}: {error}). It is not used. Delete it."
        ) from error
    for name, (promised, there) in sizes.items():
        if promised != there:
            raise CheckpointError(
                f"{printable(checkpoint / name)} has {there} bytes, but {promised} were written. The checkpoint is damaged and "
                "is not used. Delete it."
            )
    return dict(state)


def newest_model(run: Path) -> Path | None:
    """The weights of a run's newest whole checkpoint; None if the folder is no run.

    Raises:
        CheckpointError: it is one, but no checkpoint in it is whole.
    """
    found = run_checkpoints(run)
    reason: CheckpointError | None = None
    for _, path in reversed(found):
        try:
            read_state(path)
        except CheckpointError as error:
            reason = reason or error
        else:
            return path / MODEL
    if found:
        raise CheckpointError(f"{printable(run)} is a run without a whole checkpoint: {reason} Resume the run to make one.")
    return None


def run_card(folder: Path) -> Card | None:
    """The card that a run has written about itself; None if the folder is no run.

    Raises:
        RegistryError: the card is malformed.
    """
    path = folder / CARD
    if not (folder / "checkpoints").is_dir() or not path.is_file():
        return None
    from hubcore.registry.reading import read_registry

    cards, broken = read_registry(path)
    if broken or len(cards) != 1:
        raise (
            broken[0]
            if broken
            else RegistryError(f"it has {len(cards)} cards, but a run has one.", "Delete the file.", printable(path))
        )
    return cards[0]
