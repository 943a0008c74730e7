"""One reader for every layout that speech checkpoints come in: `open_checkpoint` sniffs, nobody needs to say.

| layout | recognised by | weights | config |
|---|---|---|---|
| fairseq, `cfg` | keys `model` and `cfg` (a dict, or a pickled DictConfig) | `model` | `cfg.model`, `cfg.task` |
| fairseq, `args` | keys `model` and `args` (a pickled Namespace, flat) | `model` | `args` |
| s3prl converted | keys `model_cfg`, `task_cfg`, `model_weight` | `model_weight` | `model_cfg`, `task_cfg` |
| Hugging Face | a folder with `config.json`, or a weight file beside one | the weight file(s) | `config.json` |
| hubcore | safetensors with a `hubcore` entry in its header | the file | that entry |
| a run | a folder that `hubcore pretrain` writes | of its newest checkpoint | that one's |
| state dict | names and tensors only | the file | none: the caller must pass one |

A fine-tuned fairseq file wraps its encoder; its `w2v_args` is followed to the encoder's own config.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from hubcore.checkpoints.formats.pickle_reader import TensorRef
from hubcore.checkpoints.formats.plain import plain
from hubcore.checkpoints.formats.safetensors_file import SafetensorsFile
from hubcore.checkpoints.formats.torch_file import TorchFile
from hubcore.checkpoints.runs import newest_model
from hubcore.errors import CheckpointError, CheckpointLayoutError, MissingWeightsError, nearest_names

_HF_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_MAX_JSON_BYTES = 64 << 20


@dataclass(frozen=True)
class TensorInfo:
    """Shape and dtype of a tensor in a file, known without reading it."""

    shape: tuple[int, ...]
    dtype: torch.dtype


@dataclass
class Checkpoint:
    """An open checkpoint: its layout, its configs as plain data, and its tensors by name, none of them read yet.

    Use it as a context manager, or call `close`.
    """

    path: Path
    """The file or folder."""
    layout: str
    """The layout that was recognised, in words."""
    config: dict[str, Any]
    """The encoder's own config as the file spells it; empty if the file has none."""
    task: dict[str, Any]
    """The config of the data that the encoder was trained on (`normalize`, `sample_rate`); may be empty."""
    tensors: dict[str, TensorInfo]
    """Name, shape and dtype of every tensor."""
    _read: Callable[[Iterable[str], torch.dtype | None], dict[str, Tensor]]
    _resources: ExitStack = field(default_factory=ExitStack)

    def read(self, names: Iterable[str], dtype: torch.dtype | None = None) -> dict[str, Tensor]:
        """The tensors `names`, converted to `dtype` if given; nothing else of the file enters memory."""
        return self._read(names, dtype)

    def close(self) -> None:
        """Closes the file."""
        self._resources.close()

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def open_checkpoint(path: str | Path) -> Checkpoint:
    """Opens a checkpoint file or a Hugging Face folder, whatever its layout; reads no tensor.

    Raises:
        CheckpointError: missing, damaged or unsafe.
        CheckpointLayoutError: well-formed, but none of the layouts above.

    Example:
        >>> from hubcore.sources.resolve import resolve
        >>> with open_checkpoint(resolve("wav2vec2_tiny_prompts")) as checkpoint:
        ...     checkpoint.layout
        'hubcore safetensors'
    """
    path = Path(path)
    if path.is_dir():
        return _open_folder(path)
    if not path.exists():
        raise CheckpointError(f"{path} does not exist. Check the spelling, or fetch it with `hubcore fetch NAME`.")
    if not path.is_file():
        raise CheckpointError(f"{path} is neither a file nor a folder. A checkpoint must be one of these.")
    if path.suffix == ".json":
        raise CheckpointLayoutError(f"{path} is a JSON file, not weights. Pass its folder {path.parent} instead.")
    if _is_safetensors(path):
        return _open_safetensors(path)
    return _open_torch(path)


def _is_safetensors(path: Path) -> bool:
    """Whether a file has the safetensors form: an 8-byte header length, then a JSON object."""
    with path.open("rb") as file:
        head = file.read(9)
    return path.suffix == ".safetensors" or (len(head) == 9 and head[8:9] == b"{" and head[6:8] == b"\0\0")


def _open_safetensors(path: Path) -> Checkpoint:
    file = SafetensorsFile(path)
    resources = ExitStack()
    resources.callback(file.close)
    tensors = {name: TensorInfo(tuple(ref.shape), ref.dtype) for name, ref in file.refs.items()}

    def read(names: Iterable[str], dtype: torch.dtype | None) -> dict[str, Tensor]:
        return file.read_many({name: file.refs[name] for name in names}, dtype=dtype)

    if "hubcore" in file.metadata:
        try:
            about = _json_object(file.metadata["hubcore"], path)
            if not isinstance(about.get("config"), dict):
                raise CheckpointError(f"{path} says it is hubcore's, but holds no config. Save it again with save_checkpoint.")
        except CheckpointError:
            resources.close()
            raise
        return Checkpoint(path, "hubcore safetensors", about["config"], {}, tensors, read, resources)
    return _with_json_config(path, Checkpoint(path, "state dict", {}, {}, tensors, read, resources))


def _open_torch(path: Path) -> Checkpoint:
    file = TorchFile(path)
    resources = ExitStack()
    resources.callback(file.close)
    try:
        layout, config, task, state = _sniff(file.tree, path)
    except BaseException:
        resources.close()
        raise
    refs = {name: value for name, value in state.items() if isinstance(name, str) and isinstance(value, TensorRef)}
    tensors = {name: TensorInfo(tuple(ref.shape), ref.dtype) for name, ref in refs.items()}

    def read(names: Iterable[str], dtype: torch.dtype | None) -> dict[str, Tensor]:
        return file.read_many({name: refs[name] for name in names}, dtype=dtype)

    checkpoint = Checkpoint(path, layout, config, task, tensors, read, resources)
    return _with_json_config(path, checkpoint) if layout == "state dict" else checkpoint


def _sniff(tree: object, path: Path) -> tuple[str, dict[str, Any], dict[str, Any], Mapping[Any, Any]]:
    """Layout, encoder config, task config and state dict of an unpickled file."""
    if not isinstance(tree, Mapping):
        raise CheckpointLayoutError(
            f"{path} holds a {type(tree).__name__} at its top. A checkpoint holds a dictionary with the weights. "
            "It may be a feature file or a dataset."
        )
    if isinstance(tree.get("model_weight"), Mapping) and "model_cfg" in tree:
        return "s3prl converted", _config(tree["model_cfg"]), _config(tree.get("task_cfg")), tree["model_weight"]
    if isinstance(tree.get("model"), Mapping) and tree.get("cfg") is not None:
        cfg = _config(tree["cfg"])
        if "model" not in cfg:  # WavLM's own files keep the model's config flat under `cfg`
            return "fairseq, flat cfg", cfg, cfg, tree["model"]
        return "fairseq, cfg", *_unwrap(cfg.get("model") or {}, cfg.get("task") or {}), tree["model"]
    if isinstance(tree.get("model"), Mapping) and tree.get("args") is not None:
        args = _config(tree["args"])
        return "fairseq, args", *_unwrap(args, args), tree["model"]
    if tree and any(isinstance(value, TensorRef) for value in tree.values()):
        return "state dict", {}, {}, tree
    keys = ", ".join(sorted(str(key) for key in tree)[:12]) or "nothing"
    raise CheckpointLayoutError(
        f"{path} is not laid out like any checkpoint known here. Its top level has {keys}; fairseq's has model with cfg or "
        "args, s3prl's has model_cfg and model_weight, a plain state dict has tensors. Save the weights in one of these ways."
    )


def _unwrap(model: dict[str, Any], task: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Follows `w2v_args` of fine-tuned models to the config of the encoder inside."""
    for _ in range(4):
        inner = model.get("w2v_args")
        if not isinstance(inner, Mapping):
            break
        if isinstance(inner.get("model"), Mapping):
            model, task = dict(inner["model"]), {**task, **(inner.get("task") or {})}
        else:
            model, task = dict(inner), {**task, **inner}
    return model, task


def _config(node: object) -> dict[str, Any]:
    data = plain(node)
    return dict(data) if isinstance(data, Mapping) else {}


def _with_json_config(path: Path, checkpoint: Checkpoint) -> Checkpoint:
    """The same checkpoint with the `config.json` that lies beside its file, if there is one."""
    folder = path if path.is_dir() else path.parent
    if not (folder / "config.json").is_file():
        return checkpoint
    checkpoint.layout = "Hugging Face"
    checkpoint.config = _json_file(folder / "config.json")
    if (folder / "preprocessor_config.json").is_file():
        checkpoint.task = _json_file(folder / "preprocessor_config.json")
    elif (folder / "processor_config.json").is_file():  # transformers 5 puts the feature extractor in there
        extractor = _json_file(folder / "processor_config.json").get("feature_extractor")
        checkpoint.task = extractor if isinstance(extractor, dict) else {}
    return checkpoint


def _open_folder(folder: Path) -> Checkpoint:
    for name in _HF_WEIGHTS:
        if (folder / name).is_file():
            checkpoint = open_checkpoint(folder / name)
            checkpoint.path = folder
            return checkpoint
        if (folder / f"{name}.index.json").is_file():
            return _open_shards(folder, folder / f"{name}.index.json")
    run = newest_model(folder)
    if run is not None:
        return open_checkpoint(run)
    raise CheckpointLayoutError(
        f"{folder} has no weights that are read here. A Hugging Face folder has config.json and one of "
        f"{', '.join(_HF_WEIGHTS)}. Pass the checkpoint file itself, or a complete folder."
    )


def _open_shards(folder: Path, index: Path) -> Checkpoint:
    """A Hugging Face checkpoint in several files, named by an index."""
    where = _json_file(index).get("weight_map")
    if not isinstance(where, dict) or not all(isinstance(name, str) for name in where.values()):
        raise CheckpointError(f"{index} has no weight_map of names to files. Fetch the folder again.")
    bad = [name for name in where.values() if Path(name).name != name]
    if bad:
        raise CheckpointError(f"{index} names the file {bad[0]!r}. Shards must lie in the folder itself. Do not use this file.")
    resources = ExitStack()
    shards: dict[str, Checkpoint] = {}
    try:
        for name in sorted(set(where.values())):
            shards[name] = open_checkpoint(folder / name)
            resources.callback(shards[name].close)
    except BaseException:
        resources.close()
        raise
    tensors = {tensor: info for shard in shards.values() for tensor, info in shard.tensors.items()}

    def read(names: Iterable[str], dtype: torch.dtype | None) -> dict[str, Tensor]:
        wanted = set(names)
        out: dict[str, Tensor] = {}
        for shard in shards.values():
            out.update(shard.read([name for name in shard.tensors if name in wanted], dtype))
        return out

    return _with_json_config(folder, Checkpoint(folder, "state dict", {}, {}, tensors, read, resources))


def _json_file(path: Path) -> dict[str, Any]:
    if path.stat().st_size > _MAX_JSON_BYTES:
        raise CheckpointError(f"{path} is {path.stat().st_size} bytes of JSON. A config has a few thousand. Fetch it again.")
    return _json_object(path.read_bytes(), path)


def _json_object(text: str | bytes, path: Path) -> dict[str, Any]:
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not valid JSON ({error}). Fetch the checkpoint again.") from error
    if not isinstance(data, dict):
        raise CheckpointError(f"{path} holds a {type(data).__name__}. A config is a JSON object. Fetch the checkpoint again.")
    return data


@dataclass(frozen=True)
class Rename:
    """One row of a plugin's table of foreign names: a pattern, our name for it, and what happens to the tensor."""

    pattern: str
    """A regular expression that the whole foreign name must match."""
    target: str
    """Our name, `\\1` and so on standing for the groups of the pattern."""
    convert: Callable[[Tensor], Tensor] | None = None
    """Applied to the tensor; None if it stays as it is."""
    why: str = ""
    """What `convert` does, for the load report."""


def rename(names: Iterable[str], table: Iterable[Rename]) -> tuple[dict[str, tuple[str, Rename]], list[str]]:
    r"""Our name for each foreign one, and the foreign names that no row of the table knows.

    Returns:
        Our name -> (foreign name, row), and the names left over, in order.

    Example:
        >>> known, left = rename(["fc1.weight", "head.bias"], [Rename(r"fc1\.(.+)", r"up.\1")])
        >>> {ours: theirs for ours, (theirs, _) in known.items()}, left
        ({'up.weight': 'fc1.weight'}, ['head.bias'])
    """
    rows = [(re.compile(row.pattern), row) for row in table]
    known: dict[str, tuple[str, Rename]] = {}
    left: list[str] = []
    for name in names:
        for pattern, row in rows:
            match = pattern.fullmatch(name)
            if match:
                known[match.expand(row.target)] = (name, row)
                break
        else:
            left.append(name)
    return known, left


def check_names(path: Path, needed: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[str, tuple[int, ...]]]) -> None:
    """Raises `MissingWeightsError` unless every needed tensor was found with the right shape.

    Args:
        path: named in the message.
        needed: our name -> the shape that the config asks for.
        found: our name -> (the file's name for it, the shape it will have).
    """
    missing = sorted(set(needed) - set(found))
    if missing:
        near = nearest_names(missing[0], [*found], count=1)
        hint = f" The nearest that it has is {near[0]}." if near else ""
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise MissingWeightsError(
            f"{path} lacks the weight {missing[0]}{more}.{hint} Every tensor of the encoder must be in the file; none is left "
            f"random. Missing: {', '.join(missing[:20])}. The file may be cut, stripped, or of another architecture.",
            missing,
        )
    wrong = [
        f"{found[name][0]} must have shape {shape}, but has {found[name][1]} instead"
        for name, shape in needed.items()
        if found[name][1] != shape
    ]
    if wrong:
        raise MissingWeightsError(
            f"{path} does not fit its own config: {'; '.join(wrong[:8])}. Config and weights must come from one model.",
            [name for name, shape in needed.items() if found[name][1] != shape],
        )
