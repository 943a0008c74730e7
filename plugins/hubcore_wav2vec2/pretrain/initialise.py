"""Weights to start from: the encoder and, where the file has them, the heads of a checkpoint of any layout."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from hubcore.checkpoints import Checkpoint, Rename, check_names, open_checkpoint, rename
from hubcore.errors import CheckpointLayoutError
from hubcore_wav2vec2.checkpoint import RENAMES, find_encoder, read_config, split_fused_weight
from hubcore_wav2vec2.config import Wav2Vec2Config

if TYPE_CHECKING:
    from hubcore_wav2vec2.pretrain.objective import Wav2Vec2Pretraining

HEADS: Mapping[str, Sequence[Rename]] = {
    "fairseq": [
        Rename("mask_emb", "mask_embedding"),
        Rename(r"quantizer\.vars", "quantizer.codebook"),
        Rename(r"quantizer\.weight_proj\.(weight|bias)", r"quantizer.logits.\1"),
        Rename(r"project_q\.(weight|bias)", r"project_targets.\1"),
        Rename(r"final_proj\.(weight|bias)", r"project_predictions.\1"),
    ],
    "transformers": [
        Rename(r"(?:wav2vec2\.)?masked_spec_embed", "mask_embedding"),
        Rename(r"quantizer\.codevectors", "quantizer.codebook"),
        Rename(r"quantizer\.weight_proj\.(weight|bias)", r"quantizer.logits.\1"),
        Rename(r"project_q\.(weight|bias)", r"project_targets.\1"),
        Rename(r"project_hid\.(weight|bias)", r"project_predictions.\1"),
    ],
    "hubcore": [Rename(r"((?:mask_embedding|quantizer|project_targets|project_predictions).*)", r"\1")],
}
"""Foreign names of the pre-training heads, which stand beside the encoder."""


def load_pretraining_weights(
    objective: Wav2Vec2Pretraining,
    path: Path,
    *,
    renames: Mapping[str, Sequence[Rename]] = RENAMES,
    parse: Callable[[Checkpoint, list[str]], Wav2Vec2Config] | None = None,
    may_be_fresh: str = "\0",
) -> tuple[list[str], list[str]]:
    """Copies a checkpoint's weights into an objective: names of what was taken, and of what stays fresh.

    Args:
        objective: its encoder is `model`, its config `model_config`.
        path: the checkpoint.
        renames: foreign names of the encoder's weights.
        parse: reads the checkpoint's model config, which must be the objective's; if None, as `parse_encoder` does.
        may_be_fresh: encoder weights whose name starts so may be missing, too.

    Raises:
        CheckpointLayoutError: the file's encoder is of another shape.
        MissingWeightsError: a weight of the encoder is missing.
    """
    target: dict[str, Tensor] = dict(objective.state_dict())
    with open_checkpoint(path) as checkpoint:
        spelling, prefix = find_encoder(checkpoint)
        inside = {name[len(prefix) :]: name for name in checkpoint.tensors if name.startswith(prefix)}
        known, _ = rename(inside, renames[spelling])
        if "encoder.pos_conv.weight_v" not in known and "encoder.pos_conv.weight_g" not in known:
            known = split_fused_weight(known, inside, spelling)
        if checkpoint.config:
            wrong = _plain(objective.model_config).differences((parse or parse_encoder)(checkpoint, []))
            if wrong:
                raise CheckpointLayoutError(
                    f"{path} cannot start this run, for its model is another one: {'; '.join(wrong)} (this recipe's value "
                    "first). Give model: the values of the checkpoint."
                )
        rows = {f"model.{ours}": (inside[theirs], row) for ours, (theirs, row) in known.items()}
        # A fine-tuned file may hold its encoder below a prefix, and heads of another task beside it.
        beside = {name[len(prefix) :] if spelling == "fairseq" else name: name for name in checkpoint.tensors}
        heads, _ = rename(beside, HEADS[spelling])
        rows.update({ours: (beside[theirs], row) for ours, (theirs, row) in heads.items() if ours in target})
        values: dict[str, Tensor] = {}
        for ours, (theirs, row) in rows.items():
            if ours not in target:
                continue
            tensor = checkpoint.read([theirs], dtype=torch.float32)[theirs]
            tensor = row.convert(tensor) if row.convert else tensor
            if ours == "quantizer.codebook" and tensor.numel() == target[ours].numel() and tensor.ndim == 3:
                tensor = tensor.reshape(target[ours].shape)  # fairseq's and transformers' have all groups on one axis
            values[ours] = tensor
        needed = {
            name: tuple(value.shape)
            for name, value in target.items()
            if name in values or (name.startswith("model.") and not name.startswith(f"model.{may_be_fresh}"))
        }
        found = {name: (rows[name][0], tuple(value.shape)) for name, value in values.items()}
        check_names(path, needed, found)
    with torch.no_grad():
        for name, value in values.items():
            target[name].copy_(value)
    return sorted(values), sorted(set(target) - set(values))


def parse_encoder(checkpoint: Checkpoint, notes: list[str]) -> Wav2Vec2Config:
    """The wav2vec 2.0 part of a checkpoint's config; in our own file, what a family built on it adds is left aside."""
    if checkpoint.layout.startswith("hubcore"):
        ours = {field.name for field in dataclasses.fields(Wav2Vec2Config)}
        plain = {key: value for key, value in checkpoint.config.items() if key in ours}
        return read_config(dataclasses.replace(checkpoint, config=plain), notes)
    return read_config(checkpoint, notes)


def _plain(config: Wav2Vec2Config) -> Wav2Vec2Config:
    """The config without what a family built on wav2vec 2.0 adds; its shapes are checked tensor by tensor."""
    return Wav2Vec2Config(**{field.name: getattr(config, field.name) for field in dataclasses.fields(Wav2Vec2Config)})
