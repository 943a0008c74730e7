"""Checkpoints of a run: written whole or not at all, found again newest first, and pruned. Tensors and JSON, no pickle."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from hubcore.checkpoints.formats.safetensors_file import SafetensorsFile
from hubcore.checkpoints.native import write_native
from hubcore.checkpoints.runs import MODEL, OPTIMIZER, STATE, read_state, run_checkpoints
from hubcore.errors import CheckpointError
from hubcore.files import IF_DEAD, hold, write_whole
from hubcore.sources.stamps import hash_file
from hubcore.text import logger, printable

_log = logger("pretrain")
FORMAT = 1


@dataclass(frozen=True)
class Found:
    """A checkpoint to resume from."""

    path: Path
    update: int
    state: dict[str, Any]


def hold_run(run: Path, *, force: bool = False) -> contextlib.ExitStack:
    """Holds a run's folder against another process until the result is closed; creates it first; see `hubcore.files.hold`.

    Raises:
        CheckpointError: it cannot be created, or another process holds it.
    """
    try:
        return hold(run, force=force)
    except BlockingIOError as error:
        raise CheckpointError(
            f"{printable(run)} is in use by another run ({error.strerror}).",
            fix=f"Wait for it to end, or choose another --out. {IF_DEAD}",
        ) from error
    except OSError as error:
        raise CheckpointError(f"{printable(run)} cannot be used ({error}).", fix="Choose another --out.") from error


def write_checkpoint(
    run: Path,
    update: int,
    *,
    model: Mapping[str, Tensor],
    config: Any,
    upstream: str,
    optimizer: Mapping[str, Tensor],
    state: Mapping[str, Any],
) -> Path:
    """Writes one checkpoint into a folder beside its place and renames it once all of it is on the disk.

    `model` is the objective's state dict, `upstream` the class that reads its encoder, whose config is `config`; `optimizer`
    is what `optimizer_tensors` gave; `state` is whatever else JSON can hold.

    Raises:
        CheckpointError: it cannot be written; what was there before is as it was.
    """
    target = run / "checkpoints" / f"update_{update:08}"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with write_whole(target, folder=True) as part:
            heads = [name for name in model if not name.startswith("model.")]
            write_native(part / MODEL, model, config=config, upstream=upstream, heads=heads)
            save_file(dict(optimizer), part / OPTIMIZER)
            files = {
                name: {"size": (part / name).stat().st_size, "sha256": hash_file(part / name)} for name in (MODEL, OPTIMIZER)
            }
            about = {"format": FORMAT, "update": update, **state, "files": files}
            (part / STATE).write_text(json.dumps(about, indent=1, allow_nan=False) + "\n", encoding="ascii")
            if target.exists():  # a damaged one
                _remove(target)
    except (OSError, SafetensorError, CheckpointError) as error:
        raise CheckpointError(
            f"the checkpoint of update {update} could not be written to {printable(target)} ({error}). Earlier ones are "
            "unchanged.",
            fix="Make room or repair the disk, and start the same command again: it resumes.",
        ) from error
    return target


def _remove(checkpoint: Path) -> None:
    """Deletes a checkpoint; renamed first, so that half of one is never taken for a whole one."""
    away = checkpoint.with_name(f".{checkpoint.name}.{secrets.token_hex(4)}.old")
    os.rename(checkpoint, away)
    shutil.rmtree(away, ignore_errors=True)


def prune(run: Path, *, keep_last: int, keep_every: int) -> list[Path]:
    """Deletes all checkpoints but the `keep_last` newest whole ones and those at multiples of `keep_every`: what it deleted.

    Example:
        >>> prune(Path("/nowhere"), keep_last=1, keep_every=0)
        []
    """
    deleted = []
    kept = 0
    for update, path in reversed(run_checkpoints(run)):
        try:
            read_state(path)
        except CheckpointError:
            continue  # a damaged one is no reason to delete an older whole one, and is left for people to look at
        kept += 1
        if kept <= keep_last or (keep_every and update % keep_every == 0):
            continue
        with contextlib.suppress(OSError):
            _remove(path)
            deleted.append(path)
    return deleted


def sweep(run: Path) -> None:
    """Deletes what processes that were killed left half-written."""
    for pattern in (".*.part", ".*.old"):
        for path in (run / "checkpoints").glob(pattern):
            shutil.rmtree(path, ignore_errors=True)


def newest_checkpoint(run: Path) -> Found | None:
    """The newest checkpoint whose every byte is what was written, or None if there is none at all.

    One that is damaged is reported and stepped over.

    Raises:
        CheckpointError: there are checkpoints, and all are damaged.
    """
    found = run_checkpoints(run)
    for update, path in reversed(found):
        try:
            state = read_state(path)
            if state.get("format") != FORMAT:
                raise CheckpointError(f"{printable(path)} was written by another version of hubcore. Use that version.")
            for name, about in state["files"].items():
                if hash_file(path / name) != about["sha256"]:
                    raise CheckpointError(f"{printable(path / name)} is damaged: its bytes are not those that were written.")
        except (CheckpointError, OSError) as error:
            _log.warning("%s The checkpoint before it is taken.", error)
            continue
        return Found(path, update, state)
    if found:
        raise CheckpointError(
            f"no checkpoint of {printable(run)} is whole; it has {len(found)}. There is nothing to resume from. Choose another "
            "folder to start again, or restore a copy."
        )
    return None


def optimizer_tensors(optimizer: torch.optim.Optimizer, names: Mapping[Tensor, str]) -> dict[str, Tensor]:
    """The state of an optimizer as named tensors: `<parameter>/<entry>`."""
    found = {}
    for parameter, entries in optimizer.state.items():
        for entry, value in entries.items():
            tensor = value if isinstance(value, Tensor) else torch.tensor(float(value), dtype=torch.float64)
            found[f"{names[parameter]}/{entry}"] = tensor.detach().cpu().contiguous().clone()
    return found


def restore(found: Found, model: nn.Module, optimizer: torch.optim.Optimizer, names: Mapping[Tensor, str]) -> None:
    """Puts a checkpoint's weights and moments back where they were.

    Raises:
        CheckpointError: its tensors are not the model's.
    """
    weights = _read(found.path / MODEL)
    try:
        model.load_state_dict(weights, strict=True)
    except RuntimeError as error:
        raise CheckpointError(
            f"{printable(found.path)} does not fit this model: {' '.join(str(error).split())[:300]}. The code of the model "
            "changed since. Use --init with it, in a new folder."
        ) from error
    moments = _read(found.path / OPTIMIZER)
    by_name = {name: parameter for parameter, name in names.items()}
    for key, tensor in moments.items():
        name, _, entry = key.rpartition("/")
        if name not in by_name:
            raise CheckpointError(
                f"{printable(found.path / OPTIMIZER)} has the state of {name}, which the model does not have."
            )
        parameter = by_name[name]
        # AdamW keeps its counter of steps on the CPU.
        optimizer.state[parameter][entry] = tensor if tensor.ndim == 0 else tensor.to(parameter.device, copy=True)


def _read(path: Path) -> dict[str, Tensor]:
    with SafetensorsFile(path) as file:
        return file.read_many(file.refs)
