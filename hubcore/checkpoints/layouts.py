"""One reader for every layout that speech checkpoints come in: `open_checkpoint` recognises it.

| layout | recognised by | weights | config |
|---|---|---|---|
| fairseq, `cfg` | keys `model` and `cfg` (a dict, or a pickled DictConfig) | `model` | `cfg.model`, `cfg.task` |
| fairseq, `args` | keys `model` and `args` (a pickled Namespace, flat) | `model` | `args` |
| WavLM, UniSpeech-SAT | keys `model` and `cfg`, the config flat in `cfg` (relative positions: WavLM) | `model` | `cfg` |
| s3prl converted | keys `model_cfg`, `task_cfg`, `model_weight` | `model_weight` | `model_cfg`, `task_cfg` |
| Hugging Face | a folder with `config.json`, or a weight file beside one | the weight files | `config.json` |
| ESPnet | a folder with `config.yaml` and one `.pth` file | that file | `encoder_conf` in `config.yaml` |
| FunASR | a folder with `config.yaml` and `model.pt` | that file | the file's own, else `model_conf` in `config.yaml` |
| hubcore | safetensors with a `hubcore` entry in its header | the file | that entry |
| a run | a folder that `hubcore pretrain` writes | of its newest checkpoint | that one's |
| state dict | names and tensors, also in dictionaries of a training program | the file | none: the caller must pass one |

A family may add layouts of its own (`Layout`). A fine-tuned fairseq file wraps its encoder; its `w2v_args` or
`d2v_args` is followed to the encoder's own config.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hubcore.checkpoints.formats.file_bytes import TensorFile
from hubcore.checkpoints.formats.plain import plain
from hubcore.checkpoints.formats.safetensors_file import SafetensorsFile
from hubcore.checkpoints.formats.tensor_ref import TensorRef
from hubcore.checkpoints.formats.torch_file import TorchFile
from hubcore.checkpoints.runs import newest_model
from hubcore.errors import CheckpointError, CheckpointLayoutError, HubcoreError
from hubcore.files import parse_json, read_small, stand_in
from hubcore.strict_yaml import parse_yaml
from hubcore.text import error_text, printable

_SHARD = re.compile(r"[\w.-]{1,200}\.(?:safetensors|bin)", re.ASCII)
_HF_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_MAX_CONFIG, _MAX_INDEX = 1 << 20, 16 << 20
"""Bytes; configs have a few thousand, the index of the largest models about a million."""
NATIVE, HUGGING_FACE, ESPNET, FUNASR, PLAIN = "hubcore safetensors", "Hugging Face", "ESPnet", "FunASR", "state dict"
"""Layouts by name; `Checkpoint.layout` is one of these, or starts with "fairseq" or "s3prl", or is a family's own."""


@dataclass(frozen=True)
class Layout:
    """A layout of torch files that one family has: a dictionary with the config under one key and the weights under another.

    Example:
        >>> Layout("modified CPC", config_key="config", weights_key="weights").name
        'modified CPC'
    """

    name: str
    """Text of `Checkpoint.layout`."""
    config_key: str
    """The key of the config, or keys with dots between for one inside another."""
    weights_key: str
    """The key of the state dict, likewise."""

    def find(self, tree: Mapping[Any, Any]) -> tuple[dict[str, Any], Mapping[Any, Any]] | None:
        """The config and the state dict in a file of this layout; None if it is not one."""
        config, weights = _inside(tree, self.config_key), _inside(tree, self.weights_key)
        return (_config(config), weights) if config is not None and isinstance(weights, Mapping) else None


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
    close: Callable[[], object]
    """Closes the file."""
    written_by: str | None = None
    """The class whose `save_checkpoint` wrote the file, where it is hubcore's own."""
    heads: frozenset[str] = frozenset()
    """Tensors that the file itself, where it is hubcore's own, says are no part of the encoder."""

    @property
    def kind(self) -> str | None:
        """Family as the file calls it; None if it says nothing.

        That is `_name` or `arch` in fairseq, with `layer_type` behind it unless blocks are transformers; `model_type` in
        transformers, `encoder` in ESPnet, and the class in our own.
        """
        said = [self.written_by, *(self.config.get(key) for key in ("_name", "model_type", "arch"))]
        kind = next((value for value in said if isinstance(value, str)), None)
        layer_type = self.config.get("layer_type", "transformer")
        return kind if kind is None or layer_type == "transformer" else f"{kind}_{layer_type}"

    def read(self, names: Iterable[str], dtype: torch.dtype | None = None) -> dict[str, Tensor]:
        """The tensors `names`, converted to `dtype` if given; nothing else of the file enters memory."""
        return self._read(names, dtype)

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_checkpoint(path: str | Path, layouts: Iterable[Layout] = ()) -> Checkpoint:
    """Opens a checkpoint file or folder, whatever its layout; reads no tensor.

    Args:
        path: a file, or the folder of a Hugging Face model, of an ESPnet model or of a run.
        layouts: layouts that only one family has, beside those above.

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
    try:
        return _open_folder(path) if path.is_dir() else _open_file(path, layouts)
    except HubcoreError:
        raise
    except Exception as error:  # whatever a file provokes, RecursionError and MemoryError included, is the file's fault
        raise CheckpointError(f"{printable(path)} cannot be read: {error_text(error)}. Fetch it again.") from error


def _open_file(path: Path, layouts: Iterable[Layout]) -> Checkpoint:
    if not path.exists():
        raise CheckpointError(f"{path} does not exist. Check the spelling, or fetch it with `hubcore fetch NAME`.")
    if not path.is_file():
        raise CheckpointError(f"{path} is neither a file nor a folder. A checkpoint must be one of these.")
    if path.suffix == ".json":
        raise CheckpointLayoutError(f"{path} is a JSON file, not weights. Pass its folder {path.parent} instead.")
    if _is_safetensors(path):
        return _open_safetensors(path)
    return _open_torch(path, layouts)


def _is_safetensors(path: Path) -> bool:
    """Recognises a safetensors file: an 8-byte header length, then a JSON object."""
    with path.open("rb") as file:
        head = file.read(9)
    return path.suffix == ".safetensors" or (len(head) == 9 and head[8:9] == b"{" and head[6:8] == b"\0\0")


def _open_safetensors(path: Path) -> Checkpoint:
    file = SafetensorsFile(path)
    checkpoint = _of_file(file, file.refs, PLAIN, {}, {})
    if "hubcore" not in file.metadata:
        return _with_config_beside(path, checkpoint)
    with _closing_on_error(file):
        about = _json_object(file.metadata["hubcore"], path)
        if not isinstance(about.get("config"), dict):
            raise CheckpointError(f"{path} says it is hubcore's, but holds no config. Save it again with save_checkpoint.")
    heads = about.get("heads")
    checkpoint.layout, checkpoint.config, checkpoint.written_by = (
        NATIVE,
        about["config"],
        str(about.get("upstream", "")) or None,
    )
    checkpoint.heads = frozenset(map(str, heads)) if isinstance(heads, list) else frozenset()
    return checkpoint


def _open_torch(path: Path, layouts: Iterable[Layout]) -> Checkpoint:
    file = TorchFile(path)
    with _closing_on_error(file):
        layout, config, task, state = _sniff(file.tree, path, layouts)
        checkpoint = _of_file(file, _tensors(state), layout, config, task)
    return _with_config_beside(path, checkpoint) if layout == PLAIN else checkpoint


def _of_file(
    file: TensorFile, refs: Mapping[str, TensorRef], layout: str, config: dict[str, Any], task: dict[str, Any]
) -> Checkpoint:
    def read(names: Iterable[str], dtype: torch.dtype | None) -> dict[str, Tensor]:
        return file.read_many({name: refs[name] for name in names}, dtype=dtype)

    tensors = {name: TensorInfo(tuple(ref.shape), ref.dtype) for name, ref in refs.items()}
    return Checkpoint(Path(file.path), layout, config, task, tensors, read, file.close)


@contextmanager
def _closing_on_error(file: Any) -> Iterator[None]:
    try:
        yield
    except BaseException:
        file.close()
        raise


def _tensors(state: Mapping[Any, Any], prefix: str = "", depth: int = 6) -> dict[str, TensorRef]:
    """Every tensor of a state dict, those in dictionaries inside it under names with dots."""
    found: dict[str, TensorRef] = {}
    for name, value in state.items():
        if isinstance(value, TensorRef) and isinstance(name, str):
            found[prefix + name] = value
        elif isinstance(value, Mapping) and depth:
            found.update(_tensors(value, f"{prefix}{name}.", depth - 1))
    return found


def _sniff(
    tree: object, path: Path, layouts: Iterable[Layout]
) -> tuple[str, dict[str, Any], dict[str, Any], Mapping[Any, Any]]:
    """Layout, encoder config, task config and state dict of an unpickled file."""
    if not isinstance(tree, Mapping):
        raise CheckpointLayoutError(
            f"{path} holds a {type(tree).__name__} at its top. A checkpoint holds a dictionary with the weights. "
            "It may be a feature file or a dataset."
        )
    for layout in layouts:
        found = layout.find(tree)
        if found is not None:
            return layout.name, found[0], {}, found[1]
    if isinstance(tree.get("model_weight"), Mapping) and "model_cfg" in tree:
        return "s3prl converted", _config(tree["model_cfg"]), _config(tree.get("task_cfg")), tree["model_weight"]
    if isinstance(tree.get("model"), Mapping) and tree.get("cfg") is not None:
        cfg = _config(tree["cfg"])
        if "model" not in cfg:
            return "WavLM" if cfg.get("relative_position_embedding") else "UniSpeech-SAT", cfg, cfg, tree["model"]
        return "fairseq, cfg", *_unwrap(_config(cfg["model"]), _config(cfg.get("task"))), tree["model"]
    if isinstance(tree.get("model"), Mapping) and tree.get("args") is not None:
        args = _config(tree["args"])
        return "fairseq, args", *_unwrap(args, args), tree["model"]
    if _tensors(tree):  # at the top, or in the dictionaries of a training program, of which one holds the encoder
        return PLAIN, {}, {}, tree
    keys = ", ".join(sorted(str(key) for key in tree)[:12]) or "nothing"
    raise CheckpointLayoutError(
        f"{path} is not laid out like any checkpoint known here. Its top level has {keys}; fairseq's has model with cfg or "
        "args, s3prl's has model_cfg and model_weight, a plain state dict has tensors. Save the weights in one of these ways."
    )


def _unwrap(model: dict[str, Any], task: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Follows `w2v_args` or `d2v_args` of fine-tuned models to the config of the encoder inside."""
    for _ in range(4):
        inner = model.get("w2v_args") or model.get("d2v_args")
        if not isinstance(inner, Mapping):
            break
        if isinstance(inner.get("model"), Mapping):
            model, task = dict(inner["model"]), {**task, **_config(inner.get("task"))}
        else:
            model, task = dict(inner), {**task, **inner}
    return model, task


def _config(node: object) -> dict[str, Any]:
    data = plain(node)
    return dict(data) if isinstance(data, Mapping) else {}


def _inside(tree: object, key: str) -> object:
    """Value under a key of a dictionary, or under keys with dots between; None if there is none."""
    for part in key.split("."):
        tree = tree.get(part) if isinstance(tree, Mapping) else None
    return tree


def _with_config_beside(path: Path, checkpoint: Checkpoint) -> Checkpoint:
    """The same checkpoint with the `config.json`, or `config.yaml` of ESPnet or FunASR, that lies beside its file."""
    with _closing_on_error(checkpoint):
        return _with_config_of(path if path.is_dir() else path.parent, checkpoint)


def _with_config_of(folder: Path, checkpoint: Checkpoint) -> Checkpoint:
    if not (folder / "config.json").is_file():
        return _with_yaml_config(folder / "config.yaml", checkpoint)
    checkpoint.layout = HUGGING_FACE
    checkpoint.config = _json_file(folder / "config.json")
    if (folder / "preprocessor_config.json").is_file():
        checkpoint.task = _json_file(folder / "preprocessor_config.json")
    elif (folder / "processor_config.json").is_file():  # transformers 5 puts the feature extractor in there
        extractor = _json_file(folder / "processor_config.json").get("feature_extractor")
        checkpoint.task = extractor if isinstance(extractor, dict) else {}
    return checkpoint


def _with_yaml_config(path: Path, checkpoint: Checkpoint) -> Checkpoint:
    """The same checkpoint with a config of ESPnet or FunASR, if that is what the YAML file beside it is."""
    if not path.is_file():
        return checkpoint
    text = _read_beside(path, _MAX_CONFIG)
    try:
        about = parse_yaml(text.decode("utf-8-sig"), repeated=10_000)
    except ValueError as error:
        raise CheckpointError(f"{path} cannot be read ({error}). Fetch the checkpoint again.") from error
    if isinstance(about, dict) and isinstance(about.get("encoder_conf"), dict):
        checkpoint.layout = ESPNET
        checkpoint.config = {"_name": about.get("encoder"), **about["encoder_conf"]}
        frontend = about.get("frontend_conf")
        checkpoint.task = frontend if isinstance(frontend, dict) else {}
    elif isinstance(about, dict) and isinstance(about.get("model_conf"), dict):
        checkpoint.layout = FUNASR
        checkpoint.config = {"_name": about.get("model"), **about["model_conf"]}
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
    files = [*sorted(folder.glob("*.pth")), *folder.glob("model.pt")] if (folder / "config.yaml").is_file() else []
    if len(files) == 1:
        return open_checkpoint(files[0])
    raise CheckpointLayoutError(
        f"{folder} has no weights that are read here. A Hugging Face folder has config.json and one of "
        f"{', '.join(_HF_WEIGHTS)}; one of ESPnet has config.yaml and one .pth file, one of FunASR config.yaml and model.pt. "
        f"Pass the checkpoint file itself, or a complete folder.{_same_name(folder)}"
    )


def _same_name(folder: Path) -> str:
    """A hint where a folder in the working directory is called like an upstream, and so hides it."""
    from hubcore.registry.names import current_registry

    name = str(folder)
    return f" An upstream is called {name} too: hub.load({name!r}) loads it." if name in current_registry().names() else ""


def _open_shards(folder: Path, index: Path) -> Checkpoint:
    """A Hugging Face checkpoint in several files, named by an index."""
    where = _json_file(index, _MAX_INDEX).get("weight_map")
    if not isinstance(where, dict) or not all(isinstance(name, str) for name in where.values()):
        raise CheckpointError(f"{index} has no weight_map of names to files. Fetch the folder again.")
    bad = [name for name in set(where.values()) if not _SHARD.fullmatch(name) or not (folder / name).is_file()]
    if bad:
        raise CheckpointError(
            f"{index} names the file {bad[0][:200]!r}. A shard is a .safetensors or .bin file beside it. Fetch it again."
        )
    resources = ExitStack()
    with _closing_on_error(resources):
        shards = [resources.enter_context(_open_file(folder / name, ())) for name in sorted(set(where.values()))]
    tensors = {tensor: info for shard in shards for tensor, info in shard.tensors.items()}

    def read(names: Iterable[str], dtype: torch.dtype | None) -> dict[str, Tensor]:
        wanted = set(names)
        out: dict[str, Tensor] = {}
        for shard in shards:
            out.update(shard.read([name for name in shard.tensors if name in wanted], dtype))
        return out

    return _with_config_beside(folder, Checkpoint(folder, PLAIN, {}, {}, tensors, read, resources.close))


def _json_file(path: Path, limit: int = _MAX_CONFIG) -> dict[str, Any]:
    return _json_object(_read_beside(path, limit), path)


def _read_beside(path: Path, limit: int) -> bytes:
    try:
        data = read_small(path, limit)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be used: {error}. Fetch the checkpoint again.") from error
    known = stand_in(data)
    if known:
        raise CheckpointError(f"{path} is {known[0]}. {known[1]}")
    return data


def _json_object(text: str | bytes, path: Path) -> dict[str, Any]:
    try:
        data = parse_json(text)
    except ValueError as error:
        raise CheckpointError(f"{path} is not valid JSON ({error}). Fetch the checkpoint again.") from error
    if not isinstance(data, dict):
        raise CheckpointError(f"{path} holds a {type(data).__name__}. A config is a JSON object. Fetch the checkpoint again.")
    return data
