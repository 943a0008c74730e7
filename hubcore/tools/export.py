"""From our checkpoints to other programs' formats; the file appears only if it reads back as what it was made from."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from hubcore.checkpoints.layouts import open_checkpoint
from hubcore.checkpoints.runs import newest_model
from hubcore.errors import CheckpointError, CheckpointLayoutError, MissingWeightsError, OptionError
from hubcore.hub import load
from hubcore.loading import import_class
from hubcore.options import parse
from hubcore.registry.names import Family, current_registry
from hubcore.sources.resolve import resolve
from hubcore.strict_yaml import parse_yaml
from hubcore.text import printable
from hubcore.tools.convert import check_equal, check_target, convert, read_with_any, write_checked
from hubcore.tools.graph import Graph, GraphFormat, export_graph

ExportFormat = Literal["fairseq", "hf", "safetensors"]
_FUNCTIONS = {"fairseq": "to_fairseq", "hf": "to_transformers"}


@dataclass(frozen=True)
class Export:
    """Result of an export: the files written, and how they were checked."""

    path: Path
    """The file, or the folder for "hf"."""
    format: str
    """Its format."""
    upstream: str
    """The family that the checkpoint is of."""
    heads: bool
    """True if heads of pre-training were written too."""
    weights: int
    """Weights of the encoder that were compared after reading back, and found equal."""
    layers: int
    """Hidden states of a clip that were compared, and found equal."""


def export(source: str | os.PathLike[str], out: str | os.PathLike[str], *, format: ExportFormat, force: bool = False) -> Export:
    """Writes a checkpoint for fairseq, for transformers, or as hubcore's own without heads.

    A family takes part by a module `export` beside its class's, with `to_fairseq` or `to_transformers` as in
    `hubcore_wav2vec2.export`.

    Args:
        source: a run of `hubcore pretrain`, or whatever `resolve` takes.
        out: the new file; a new folder for "hf".
        format: "fairseq" (a `.pt` file with `cfg` and `model`), "hf" (a folder with `config.json`), or "safetensors".
        force: whether an existing file may be replaced; a folder never is.

    Raises:
        OptionError: `out` cannot be written, or there is no such format.
        CheckpointLayoutError: the format has no such model.
        CheckpointError: the source cannot be read, or what was written does not read back equal. Nothing is left then.
    """
    if format not in get_args(ExportFormat):
        raise OptionError(f"there is no format {format!r}. There are {', '.join(get_args(ExportFormat))}. Choose one of these.")
    out = Path(out)
    run = Path(source) if Path(source).is_dir() else None
    found = newest_model(run) if run else None
    if format == "safetensors":
        made = convert(found or source, out, force=force)
        return Export(made.path, format, made.upstream, False, made.weights, made.layers)
    check_target(out, force, suffix=".pt" if format == "fairseq" else "")
    path = found or Path(resolve(source))
    family, original = read_with_any(path, None)
    state = _state(path, original)
    write = _writer(family, format)
    written = write(state, original.config, _objective(run) if found and run else {})
    with write_checked(out, force, folder=format == "hf") as temporary:
        _write(written, temporary, format)
        try:
            copy = import_class(family).from_checkpoint(temporary)
        except (CheckpointLayoutError, MissingWeightsError) as error:
            raise CheckpointLayoutError(f"{format} cannot hold this model: {error}") from error
        _check_config(original.config, copy.config, format)
        weights, layers = check_equal(path, original, copy)
    return Export(out, format, family.name, any(not name.startswith("model.") for name in state), weights, layers)


def export_as_graph(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    format: GraphFormat,
    layers: str | None = None,
    options: Sequence[str] = (),
    force: bool = False,
) -> Graph:
    """`export_graph` of a registered name, with options as `name=value`; or of a run or a file, read by the family it is of.

    Raises:
        OptionError: options for a file, or whatever `export_graph` and `hub.load` raise.
    """
    if not Path(source).exists() and "://" not in str(source):
        entry = current_registry().find(str(source))
        given = {}
        if options and entry.family is not None and not entry.family.missing:
            given = parse(import_class(entry.family), options, with_weights=entry.card.needs_weights if entry.card else None)
        upstream: Any = load(str(source), **given)
    elif options:
        raise OptionError("-O is for names of `hubcore list`, and this is a file.", "Leave it out, or add a card for the file.")
    else:
        found = newest_model(Path(source)) if Path(source).is_dir() else None
        _, upstream = read_with_any(found or Path(resolve(source)), None)
    return export_graph(upstream, out, format=format, layers=layers, force=force)


def _check_config(wanted: Any, got: Any, format: str) -> None:
    """Refuses a format in which a model would become another one."""
    lost = [f"{name} {value} as {getattr(got, name)}" for name, value in vars(wanted).items() if getattr(got, name) != value]
    if lost:
        raise CheckpointLayoutError(f"{format} cannot hold this model: it reads {', '.join(lost)}. Export it as safetensors.")


def _state(path: Path, original: Any) -> dict[str, Tensor]:
    """The encoder's weights as they were loaded, and the heads that our own file holds beside them."""
    state = {name: tensor.detach().cpu() for name, tensor in original.state_dict().items()}
    with open_checkpoint(path) as checkpoint:
        if checkpoint.layout.startswith("hubcore"):
            heads = [name for name in checkpoint.tensors if not name.startswith("model.")]
            state.update(checkpoint.read(heads, dtype=torch.float32))
    return state


def _objective(run: Path) -> Mapping[str, Any]:
    """The options of pre-training that a run was made with."""
    try:
        recipe = parse_yaml((run / "recipe.yaml").read_text(encoding="utf-8"))
        return dict(recipe.get("objective") or {})
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise CheckpointError(
            f"{printable(run / 'recipe.yaml')} cannot be read ({error}). It says what the run was made with. Export the model "
            "file of a checkpoint of that run instead."
        ) from error


def _writer(family: Family, format: str) -> Callable[..., Any]:
    module = f"{family.module.rpartition('.')[0]}.export"
    function = _FUNCTIONS[format]
    if importlib.util.find_spec(module) is None or not hasattr(importlib.import_module(module), function):
        raise CheckpointLayoutError(
            f"{family.name} cannot be written as {format}: it has no {module}.{function}. Only its own authors know those "
            "names. Export it as safetensors."
        )
    return getattr(importlib.import_module(module), function)  # type: ignore[no-any-return]


def _write(written: Any, path: Path, format: str) -> None:
    try:
        if format == "fairseq":
            with path.open("wb") as file:  # torch writes a file's own name into it, and this one is random
                torch.save(written, file)
            return
        tensors, config, preprocessor = written
        save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
        for name, content in (("config.json", config), ("preprocessor_config.json", preprocessor)):
            (path / name).write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    except (SafetensorError, RuntimeError) as error:  # a full disk, as these two tell it
        raise OSError(str(error.__context__ or error)) from error
