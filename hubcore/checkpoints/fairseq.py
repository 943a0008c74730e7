"""fairseq's configs of wav2vec-2.0-shaped encoders, read and written, and the file that fairseq loads. Imports no torch."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from hubcore.checkpoints.foreign_options import demand, note_defaults, read_options, to_bool, to_int, write_options

if TYPE_CHECKING:
    from hubcore.checkpoints.layouts import Checkpoint

OPTIONS = {
    "conv_bias": ("conv_bias", False),
    "dim": ("encoder_embed_dim", 768),
    "num_layers": ("encoder_layers", 12),
    "num_heads": ("encoder_attention_heads", 12),
    "ffn_dim": ("encoder_ffn_embed_dim", 3072),
    "pre_norm": ("layer_norm_first", False),
    "pos_conv_kernel": ("conv_pos", 128),
    "pos_conv_groups": ("conv_pos_groups", 16),
    "dropout": ("dropout", 0.1),
    "attention_dropout": ("attention_dropout", 0.1),
    "activation_dropout": ("activation_dropout", 0.0),
}
"""Our option -> fairseq's, and its default."""
_DEFAULTS = Path(__file__).with_name("fairseq_defaults.yaml")
DEFAULT_CONV_LAYERS = "[(512, 10, 5)] + [(512, 3, 2)] * 4 + [(512,2,2)] + [(512,2,2)]"
_UNSEEN = ("encoder_attention_heads", "layer_norm_first", "extractor_mode", "conv_feature_layers", "conv_pos_groups")
"""Settings that nothing else in the file shows, not even a tensor's shape."""


def encoder_values(checkpoint: Checkpoint, notes: list[str]) -> dict[str, Any]:
    """Values of an encoder config, by our names; what had to be assumed is added to `notes`.

    Raises:
        CheckpointLayoutError: an option that the encoder does not have.
        ValueError: a value that makes no sense.
    """
    model, task = checkpoint.config, checkpoint.task
    demand(model, {"layer_type": ["transformer"], "activation_fn": ["gelu"], "extractor_mode": ["default", "layer_norm"]})
    demand({"pos_conv_depth": to_int(model.get("pos_conv_depth", 1))}, {"pos_conv_depth": [1]})
    layer_norm = model.get("extractor_mode", "default") == "layer_norm"
    if "normalize" not in task and "normalize" not in model:
        notes.append("the file does not say whether waveforms are normalised; taken from the extractor's norm")
    note_defaults(model, _UNSEEN, "fairseq", notes)
    return {
        **read_options(model, OPTIONS),
        "conv_layers": parse_conv_layers(model.get("conv_feature_layers", DEFAULT_CONV_LAYERS)),
        "conv_norm": "layer" if layer_norm else "group",
        "normalize": to_bool(task.get("normalize", model.get("normalize", layer_norm))),
        "sample_rate": to_int(task.get("sample_rate", 16000)),
    }


def whole_file(cfg: Mapping[str, Any], weights: Mapping[str, Any], *, criterion: str) -> dict[str, Any]:
    """Dictionary of tensors and plain values that `torch.save` must write so that fairseq loads it, and fine-tunes from it.

    With omegaconf below 2.1, its fine-tuning needs every section of the config, whatever is in there; `cfg` has those
    that are not fairseq's defaults. `criterion` is the class of the loss.
    """
    return {
        "args": None,
        "cfg": {"_name": None, **yaml.safe_load(_DEFAULTS.read_text(encoding="utf-8")), **cfg},
        "model": dict(weights),
        # fairseq looks into the last entry, and for an epoch, before it gives the model out.
        "optimizer_history": [
            {
                "criterion_name": criterion,
                "optimizer_name": "FairseqAdam",
                "lr_scheduler_state": {"best": None},
                "num_updates": 0,
            }
        ],
        "task_state": {},
        "extra_state": {"train_iterator": {"epoch": 1, "iterations_in_epoch": 0}},
        "last_optimizer_state": None,
    }


def encoder_options(config: Any) -> dict[str, Any]:
    """The options of an encoder config in fairseq's names, for the `model` of a file."""
    return {
        **write_options(config, OPTIONS),
        "extractor_mode": "default" if config.conv_norm == "group" else "layer_norm",
        "activation_fn": "gelu",
        "layer_type": "transformer",
        "conv_feature_layers": repr([tuple(row) for row in config.conv_layers]),
    }


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
    if not isinstance(value, list | tuple) or not value or len(value) > _MAX_ROWS:
        raise ValueError(f"conv_feature_layers is {value!r:.80}")
    if any(not isinstance(row, list | tuple) or len(row) != 3 for row in value):
        raise ValueError("each row of conv_feature_layers must be (channels, kernel, stride)")
    return tuple((to_int(row[0]), to_int(row[1]), to_int(row[2])) for row in value)


_MAX_ROWS = 64


def _expression(node: ast.expr) -> Any:
    if isinstance(node, ast.Constant) and type(node.value) is int and abs(node.value) < 1_000_000:
        return node.value
    if isinstance(node, ast.List | ast.Tuple):
        return [_expression(item) for item in node.elts]
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Mult):
        left, right = _expression(node.left), _expression(node.right)
        if isinstance(node.op, ast.Add) and isinstance(left, list) and isinstance(right, list):
            if len(left) + len(right) <= _MAX_ROWS:
                return left + right
        elif isinstance(left, list) and isinstance(right, int) and right > 0 and len(left) * right <= _MAX_ROWS:
            return left * right
    raise ValueError("conv_feature_layers may hold lists of whole numbers, + and * only, and 64 rows at most")
