"""Everything this family knows about foreign checkpoints: their configs, their names for our weights, one loader.

Our names are the left column; `RENAMES` says what fairseq (and s3prl, which keeps its names) and transformers call them.
"""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from hubcore.checkpoints import Checkpoint, LoadReport, Rename, check_names, rename
from hubcore.checkpoints.weights import WeightPlan, read_weights
from hubcore.errors import CheckpointLayoutError
from hubcore.sources.stamps import read_stamp
from hubcore_wav2vec2.config import Wav2Vec2Config
from hubcore_wav2vec2.model import Wav2Vec2Model, build_model

READER_VERSION = 2
"""Raised whenever the same file would give other weights or another config, so that no older copy is used."""

AnyConfig = TypeVar("AnyConfig", bound=Wav2Vec2Config)
AnyModel = TypeVar("AnyModel", bound=nn.Module)

_BLOCK = (
    (r"self_attn\.([qkv]|out)_proj\.", r"attention\.([qkv]|out)_proj\.", r"attention.\2_proj."),
    (r"self_attn_layer_norm\.", r"layer_norm\.", "attention_norm."),
    (r"fc1\.", r"feed_forward\.intermediate_dense\.", "feed_forward.fc1."),
    (r"fc2\.", r"feed_forward\.output_dense\.", "feed_forward.fc2."),
    (r"final_layer_norm\.", r"final_layer_norm\.", "feed_forward_norm."),
)


def swap_taps(weight: Tensor) -> Tensor:
    """`(C_out, C_in, kernel)` to `FrameConv`'s `(C_out, kernel, C_in)`."""
    return weight.transpose(1, 2).contiguous()


def _block_rows(side: int) -> list[Rename]:
    rows = []
    for row in _BLOCK:
        last = r"\3" if r"\2" in row[2] else r"\2"
        rows.append(Rename(rf"encoder\.layers\.(\d+)\.{row[side]}(weight|bias)", rf"encoder.blocks.\1.{row[2]}{last}"))
    return rows


SWAPPED = "convolution taps put before input channels"
_COMMON = [
    Rename(r"encoder\.layer_norm\.(weight|bias)", r"encoder.norm.\1"),
]
RENAMES: Mapping[str, Sequence[Rename]] = {
    "fairseq": [
        Rename(r"feature_extractor\.conv_layers\.(\d+)\.0\.weight", r"extractor.convs.\1.weight", swap_taps, SWAPPED),
        Rename(r"feature_extractor\.conv_layers\.(\d+)\.0\.bias", r"extractor.convs.\1.bias"),
        Rename(r"feature_extractor\.conv_layers\.(\d+)\.2(?:\.1)?\.(weight|bias)", r"extractor.norms.\1.\2"),
        Rename(r"layer_norm\.(weight|bias)", r"feature_norm.\1"),
        Rename(r"post_extract_proj\.(weight|bias)", r"projection.\1"),
        Rename(r"encoder\.pos_conv\.0\.(weight_g|weight_v|bias)", r"encoder.pos_conv.\1"),
        Rename(r"encoder\.pos_conv\.0\.parametrizations\.weight\.original0", "encoder.pos_conv.weight_g"),
        Rename(r"encoder\.pos_conv\.0\.parametrizations\.weight\.original1", "encoder.pos_conv.weight_v"),
        *_COMMON,
        *_block_rows(0),
    ],
    "transformers": [
        Rename(r"feature_extractor\.conv_layers\.(\d+)\.conv\.weight", r"extractor.convs.\1.weight", swap_taps, SWAPPED),
        Rename(r"feature_extractor\.conv_layers\.(\d+)\.conv\.bias", r"extractor.convs.\1.bias"),
        Rename(r"feature_extractor\.conv_layers\.(\d+)\.layer_norm\.(weight|bias)", r"extractor.norms.\1.\2"),
        Rename(r"feature_projection\.layer_norm\.(weight|bias)", r"feature_norm.\1"),
        Rename(r"feature_projection\.projection\.(weight|bias)", r"projection.\1"),
        Rename(r"encoder\.pos_conv_embed\.conv\.(weight_g|weight_v|bias)", r"encoder.pos_conv.\1"),
        Rename(r"encoder\.pos_conv_embed\.conv\.parametrizations\.weight\.original0", "encoder.pos_conv.weight_g"),
        Rename(r"encoder\.pos_conv_embed\.conv\.parametrizations\.weight\.original1", "encoder.pos_conv.weight_v"),
        *_COMMON,
        *_block_rows(1),
    ],
    "hubcore": [Rename(r"model\.(.+)", r"\1")],
}
"""Foreign names of the weights of `Wav2Vec2Model`, without the prefix that a fine-tuned model puts before its encoder."""

_FIRST_WEIGHT = {
    "fairseq": "feature_extractor.conv_layers.0.0.weight",
    "transformers": "feature_extractor.conv_layers.0.conv.weight",
    "hubcore": "model.extractor.convs.0.weight",
}


def plan_weights(
    checkpoint: Checkpoint,
    config: AnyConfig | None,
    *,
    renames: Mapping[str, Sequence[Rename]],
    parse: Callable[[Checkpoint, list[str]], AnyConfig],
    build: Callable[[AnyConfig], AnyModel],
) -> WeightPlan[AnyConfig, AnyModel]:
    """What a checkpoint of wav2vec 2.0, or of a family built on it, gives; every weight the model needs is known to be there.

    Args:
        checkpoint: an open checkpoint of any layout.
        config: used if the checkpoint carries none; otherwise the checkpoint's own is checked against it.
        renames: the family's table.
        parse: reads the family's config, as `read_config` does.
        build: makes the family's model, whose shapes the tensors must have.

    Raises:
        CheckpointLayoutError: not a wav2vec 2.0 encoder, or it has no config and none was passed.
        MissingWeightsError: a tensor is missing or has another shape than the config says.
    """
    spelling, prefix = find_encoder(checkpoint)
    notes: list[str] = []
    if checkpoint.config:
        promised, config = config, parse(checkpoint, notes)
        wrong = promised.differences(config) if promised else []
        if wrong:
            raise CheckpointLayoutError(
                f"{checkpoint.path} is not of the config that was asked for: {'; '.join(wrong)}. Leave config= out to take the "
                "file as it is; where a card asked for it, the card or the file is wrong."
            )
    elif config is None:
        raise CheckpointLayoutError(
            f"{checkpoint.path} holds weights without a config. The number of heads and whether waveforms are normalised "
            "cannot be seen from weights. Put its config.json beside it, or pass config=, such as config='base'."
        )
    inside = {name[len(prefix) :]: name for name in checkpoint.tensors if name.startswith(prefix)}
    known, _ = rename(inside, renames[spelling])
    with_projection = "projection.weight" in known
    if config.input_projection != with_projection and config.conv_dim == config.dim:
        config = dataclasses.replace(config, input_projection=with_projection)
    if "encoder.pos_conv.weight_v" not in known and "encoder.pos_conv.weight_g" not in known:
        known = split_fused_weight(known, inside, spelling)
    with torch.device("meta"):  # no memory until the weights come
        model = build(config)
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    found = {ours: (inside[theirs], _shape(checkpoint, inside[theirs], row)) for ours, (theirs, row) in known.items()}
    check_names(checkpoint.path, shapes, found)
    rows = tuple((ours, inside[known[ours][0]], known[ours][1]) for ours in shapes)
    changed: dict[str, None] = {}
    for _, theirs, row in rows:
        if row.why:
            changed[row.why] = None
        if checkpoint.tensors[theirs].dtype != torch.float32:
            changed[f"{str(checkpoint.tensors[theirs].dtype).removeprefix('torch.')} weights converted to float32"] = None
    used = {theirs for _, theirs, _ in rows}
    report = LoadReport(
        source=str(checkpoint.path),
        layout=checkpoint.layout,
        used=tuple(sorted(used)),
        ignored=tuple(sorted(set(checkpoint.tensors) - used)),
        converted=tuple(changed),
        notes=tuple(notes),
        sha256=read_stamp(checkpoint.path),
    )
    return WeightPlan(config, model, rows, report)


def find_encoder(checkpoint: Checkpoint) -> tuple[str, str]:
    """Which spelling the file uses, and the prefix before its encoder's names."""
    for spelling, first in _FIRST_WEIGHT.items():
        prefixes = [name[: -len(first)] for name in checkpoint.tensors if name.endswith(first)]
        prefixes = [prefix for prefix in prefixes if not prefix or prefix.endswith(".")]
        if len(prefixes) > 1:
            raise CheckpointLayoutError(
                f"{checkpoint.path} holds {len(prefixes)} encoders, under {', '.join(map(repr, prefixes))}. One is expected. "
                "Save the one you mean in a file of its own."
            )
        if prefixes:
            return spelling, prefixes[0]
    some = ", ".join(list(checkpoint.tensors)[:3]) or "no tensors at all"
    raise CheckpointLayoutError(
        f"{checkpoint.path} ({checkpoint.layout}) is not a wav2vec 2.0 checkpoint: it has no {_FIRST_WEIGHT['fairseq']} under "
        f"any spelling known here. It has {some}. Load it with the class of its own family."
    )


def _shape(checkpoint: Checkpoint, name: str, row: Rename) -> tuple[int, ...]:
    """The shape that a tensor will have once its row has converted it."""
    shape = checkpoint.tensors[name].shape
    if row.convert is None:
        return shape
    return tuple(row.convert(torch.empty(shape, device="meta")).shape) if len(shape) == 3 else shape


def split_fused_weight(
    known: dict[str, tuple[str, Rename]], inside: Mapping[str, str], spelling: str
) -> dict[str, tuple[str, Rename]]:
    """Adds the two parts of the weight norm where a file holds the finished weight of the position embedding."""
    fused = {"fairseq": "encoder.pos_conv.0.weight", "transformers": "encoder.pos_conv_embed.conv.weight"}.get(spelling, "")
    if fused not in inside:
        return known
    why = "the position embedding's finished weight split into its weight norm's two parts"
    return {
        **known,
        "encoder.pos_conv.weight_v": (fused, Rename(fused, "", None, why)),
        "encoder.pos_conv.weight_g": (fused, Rename(fused, "", _norm_of_taps, why)),
    }


def _norm_of_taps(weight: Tensor) -> Tensor:
    """`(D, D / groups, kernel)` to the norm of each tap, `(1, 1, kernel)`."""
    norm: Tensor = torch.linalg.vector_norm(weight, dim=(0, 1), keepdim=True)
    return norm


# Configs --------------------------------------------------------------------------------------------------------------


def read_config(checkpoint: Checkpoint, notes: list[str]) -> Wav2Vec2Config:
    """The config of a checkpoint in our terms; what had to be assumed is added to `notes`.

    Raises:
        CheckpointLayoutError: an option that this model code does not have, or a value that makes no sense.
    """
    try:
        if checkpoint.layout.startswith("hubcore"):
            return native_config(checkpoint, Wav2Vec2Config)
        if checkpoint.layout == "Hugging Face":
            return _transformers_config(checkpoint, notes)
        return _fairseq_config(checkpoint, notes)
    except (TypeError, ValueError, KeyError, SyntaxError, RecursionError, OverflowError) as error:
        if isinstance(error, CheckpointLayoutError):
            raise
        raise CheckpointLayoutError(
            f"the config in {checkpoint.path} makes no sense: {error}. It must describe a wav2vec 2.0 encoder. "
            "The file may be damaged or belong to another family."
        ) from error


def native_config(checkpoint: Checkpoint, config_class: type[AnyConfig]) -> AnyConfig:
    """The config in hubcore's own file; an option that the file is too old to have gets its default.

    Raises:
        CheckpointLayoutError: it has options that the class has not, or their values make no sense.
    """
    unknown = sorted(set(checkpoint.config) - {f.name for f in dataclasses.fields(config_class)})
    if unknown:
        raise CheckpointLayoutError(
            f"the config in {checkpoint.path} is not a {config_class.__name__}: it has {', '.join(unknown)}. "
            "Load it with the class of its own family, or with the version that wrote it."
        )
    try:
        return config_class(**checkpoint.config)
    except (TypeError, ValueError) as error:
        raise CheckpointLayoutError(f"the config in {checkpoint.path} makes no sense: {error}. It may be damaged.") from error


def _fairseq_config(checkpoint: Checkpoint, notes: list[str]) -> Wav2Vec2Config:
    model, task = checkpoint.config, checkpoint.task
    _demand(checkpoint, "layer_type", model.get("layer_type", "transformer"), ("transformer",))
    _demand(checkpoint, "activation_fn", model.get("activation_fn", "gelu"), ("gelu",))
    _demand(checkpoint, "pos_conv_depth", _int(model.get("pos_conv_depth", 1)), (1,))
    _demand(checkpoint, "extractor_mode", model.get("extractor_mode", "default"), ("default", "layer_norm"))
    if "normalize" not in task and "normalize" not in model:
        notes.append("the file does not say whether waveforms are normalised; taken from the extractor's norm")
    layer_norm = model.get("extractor_mode", "default") == "layer_norm"
    default = Wav2Vec2Config()
    _note_defaults(model, _FAIRSEQ_KEYS, "fairseq", notes)
    return Wav2Vec2Config(
        conv_layers=parse_conv_layers(model["conv_feature_layers"]) if "conv_feature_layers" in model else default.conv_layers,
        conv_bias=_bool(model.get("conv_bias", False)),
        conv_norm="layer" if layer_norm else "group",
        dim=_int(model.get("encoder_embed_dim", 768)),
        num_layers=_int(model.get("encoder_layers", 12)),
        num_heads=_int(model.get("encoder_attention_heads", 12)),
        ffn_dim=_int(model.get("encoder_ffn_embed_dim", 3072)),
        pre_norm=_bool(model.get("layer_norm_first", False)),
        pos_conv_kernel=_int(model.get("conv_pos", 128)),
        pos_conv_groups=_int(model.get("conv_pos_groups", 16)),
        normalize=_bool(task.get("normalize", model.get("normalize", layer_norm))),
        dropout=float(model.get("dropout", 0.1)),
        attention_dropout=float(model.get("attention_dropout", 0.1)),
        activation_dropout=float(model.get("activation_dropout", 0.0)),
        sample_rate=_int(task.get("sample_rate", 16000)),
    )


def _transformers_config(checkpoint: Checkpoint, notes: list[str]) -> Wav2Vec2Config:
    model, task = checkpoint.config, checkpoint.task
    _demand(checkpoint, "model_type", model.get("model_type"), ("wav2vec2",))
    _demand(checkpoint, "hidden_act", model.get("hidden_act", "gelu"), ("gelu",))
    _demand(checkpoint, "feat_extract_activation", model.get("feat_extract_activation", "gelu"), ("gelu",))
    _demand(checkpoint, "feat_extract_norm", model.get("feat_extract_norm", "group"), ("group", "layer"))
    _demand(checkpoint, "layer_norm_eps", float(model.get("layer_norm_eps", 1e-5)), (1e-5,))
    if model.get("add_adapter") or model.get("adapter_attn_dim"):
        raise CheckpointLayoutError(
            f"{checkpoint.path} has adapter layers (add_adapter or adapter_attn_dim). This encoder has none, so its features "
            "would differ. Load a checkpoint without adapters."
        )
    default = Wav2Vec2Config()
    conv_layers = default.conv_layers
    if "conv_dim" in model:
        columns = (model["conv_dim"], model["conv_kernel"], model["conv_stride"])
        conv_layers = tuple((_int(c), _int(k), _int(s)) for c, k, s in zip(*columns, strict=True))
    layer_norm = model.get("feat_extract_norm", "group") == "layer"
    _note_defaults(model, _TRANSFORMERS_KEYS, "transformers", notes)
    if not task:
        notes.append(
            "the folder has no feature extractor (preprocessor_config.json), so whether waveforms are normalised follows the "
            f"norm of the convolutions, as in fairseq: {'yes' if layer_norm else 'no'}"
        )
    elif "do_normalize" not in task:
        notes.append("the feature extractor does not say whether it normalises; transformers' own default is yes")
    return Wav2Vec2Config(
        conv_layers=conv_layers,
        conv_bias=_bool(model.get("conv_bias", False)),
        conv_norm="layer" if layer_norm else "group",
        dim=_int(model.get("hidden_size", 768)),
        num_layers=_int(model.get("num_hidden_layers", 12)),
        num_heads=_int(model.get("num_attention_heads", 12)),
        ffn_dim=_int(model.get("intermediate_size", 3072)),
        pre_norm=_bool(model.get("do_stable_layer_norm", False)),
        pos_conv_kernel=_int(model.get("num_conv_pos_embeddings", 128)),
        pos_conv_groups=_int(model.get("num_conv_pos_embedding_groups", 16)),
        normalize=_bool(task.get("do_normalize", True)) if task else layer_norm,
        normalize_eps=float(task.get("normalize_eps", 1e-7)) if task else default.normalize_eps,
        dropout=float(model.get("hidden_dropout", 0.1)),
        attention_dropout=float(model.get("attention_dropout", 0.1)),
        activation_dropout=float(model.get("activation_dropout", 0.1)),
        sample_rate=_int(task.get("sampling_rate", 16000)),
    )


# What neither a tensor's shape nor anything else in the file would betray.
_FAIRSEQ_KEYS = ("encoder_attention_heads", "layer_norm_first", "extractor_mode", "conv_feature_layers", "conv_pos_groups")
_TRANSFORMERS_KEYS = ("num_attention_heads", "do_stable_layer_norm", "feat_extract_norm", "conv_stride")


def _note_defaults(model: Mapping[str, Any], keys: Sequence[str], system: str, notes: list[str]) -> None:
    """Notes which options the config leaves out; both systems write only what differs from their defaults at times."""
    absent = [key for key in keys if key not in model]
    if absent:
        notes.append(f"the config does not have {', '.join(absent)}; {system}'s own defaults were taken")


def _demand(checkpoint: Checkpoint, option: str, value: object, allowed: Sequence[object]) -> None:
    if value not in allowed:
        raise CheckpointLayoutError(
            f"{checkpoint.path} has {option}={value!r}. Wav2Vec2Model computes {' or '.join(map(repr, allowed))} only, and "
            "nothing is approximated. Load it with the class of its own family."
        )


def _int(value: object) -> int:
    """An integer, also one that an old Namespace holds as a string."""
    if isinstance(value, str | int) and not isinstance(value, bool):
        return int(value)
    raise ValueError(f"{value!r} is not a whole number")


def _bool(value: object) -> bool:
    if isinstance(value, bool):
        return value
    if str(value) in ("True", "true", "1", "False", "false", "0", "None"):
        return str(value) in ("True", "true", "1")
    raise ValueError(f"{value!r} is neither true nor false")


def parse_conv_layers(value: object) -> tuple[tuple[int, int, int], ...]:
    """Fairseq's `conv_feature_layers`, a Python expression of lists, `+` and `*`, read without running it.

    Raises:
        ValueError: anything else than such an expression.

    Example:
        >>> parse_conv_layers("[(512, 10, 5)] + [(512, 3, 2)] * 2")
        ((512, 10, 5), (512, 3, 2), (512, 3, 2))
    """
    if isinstance(value, str):
        if len(value) > 10_000:
            raise ValueError("conv_feature_layers is too long")
        value = _expression(ast.parse(value.strip(), mode="eval").body)
    if not isinstance(value, list | tuple) or not value or len(value) > 64:
        raise ValueError(f"conv_feature_layers is {value!r:.80}")
    if any(not isinstance(row, list | tuple) or len(row) != 3 for row in value):
        raise ValueError("each row of conv_feature_layers must be (channels, kernel, stride)")
    return tuple((_int(row[0]), _int(row[1]), _int(row[2])) for row in value)


def _expression(node: ast.expr) -> Any:
    if isinstance(node, ast.Constant) and type(node.value) is int and abs(node.value) < 1_000_000:
        return node.value
    if isinstance(node, ast.List | ast.Tuple):
        return [_expression(item) for item in node.elts]
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Mult):
        left, right = _expression(node.left), _expression(node.right)
        if isinstance(node.op, ast.Add) and isinstance(left, list) and isinstance(right, list):
            return left + right
        if isinstance(node.op, ast.Mult) and isinstance(left, list) and isinstance(right, int) and 0 < right <= 64:
            return left * right
    raise ValueError("conv_feature_layers may hold lists of whole numbers, + and * only")


def read_file(
    path: Path, config: Wav2Vec2Config | None = None, dropouts: Mapping[str, float | None] | None = None
) -> tuple[Wav2Vec2Config, Wav2Vec2Model, LoadReport]:
    """`read_weights` of the checkpoint at `path`; dropouts that are not None replace the file's."""
    given: dict[str, Any] = {name: value for name, value in (dropouts or {}).items() if value is not None}
    config = dataclasses.replace(config, **given) if config else None  # for a file that has no config of its own

    def parse(checkpoint: Checkpoint, notes: list[str]) -> Wav2Vec2Config:
        return dataclasses.replace(read_config(checkpoint, notes), **given)

    def plan(checkpoint: Checkpoint) -> WeightPlan[Wav2Vec2Config, Wav2Vec2Model]:
        return plan_weights(checkpoint, config, renames=RENAMES, parse=parse, build=build_model)

    reader = f"wav2vec2 {READER_VERSION} {config} {given}"
    return read_weights(path, plan, config_class=Wav2Vec2Config, build=build_model, reader=reader)
