"""Everything this family knows about foreign checkpoints beyond what wav2vec 2.0 knows: the CIF module and its options."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hubcore.checkpoints import Checkpoint, LoadReport, Rename
from hubcore.checkpoints.weights import WeightPlan, read_weights
from hubcore.errors import CheckpointLayoutError
from hubcore_ofa_wav2vec2.config import OfaWav2Vec2Config, with_cif
from hubcore_ofa_wav2vec2.model import OfaWav2Vec2Model, build_model
from hubcore_wav2vec2.checkpoint import READER_VERSION, SWAPPED, native_config, plan_weights, read_config, swap_taps
from hubcore_wav2vec2.checkpoint import RENAMES as WAV2VEC2_RENAMES

RENAMES: Mapping[str, Sequence[Rename]] = {
    **WAV2VEC2_RENAMES,
    "fairseq": [
        *WAV2VEC2_RENAMES["fairseq"],
        Rename(r"cif_subsampler\.alpha_fn\.cnn\.weight", "alpha_predictor.conv.weight", swap_taps, SWAPPED),
        Rename(r"cif_subsampler\.alpha_fn\.cnn\.bias", "alpha_predictor.conv.bias"),
        Rename(r"cif_subsampler\.alpha_fn\.layer\.0\.(weight|bias)", r"alpha_predictor.norm.\1"),
        Rename(r"cif_subsampler\.alpha_fn\.layer\.2\.(weight|bias)", r"alpha_predictor.linear.\1"),
    ],
}
"""Foreign names of the weights of `OfaWav2Vec2Model`."""


def read_ofa_config(checkpoint: Checkpoint, notes: list[str]) -> OfaWav2Vec2Config:
    """The config of a checkpoint in our terms; what had to be assumed is added to `notes`.

    Raises:
        CheckpointLayoutError: no CIF module, or options that this model code does not have.
    """
    if checkpoint.layout.startswith("hubcore"):
        return native_config(checkpoint, OfaWav2Vec2Config)
    base = read_config(checkpoint, notes)
    model = checkpoint.config
    if model.get("subsample") != "cif":
        raise CheckpointLayoutError(
            f"{checkpoint.path} has subsample={model.get('subsample')!r}. An OFA wav2vec 2.0 checkpoint has 'cif'. "
            "Load it with hub.load('wav2vec2', checkpoint=...) if it is a plain wav2vec 2.0."
        )
    kernel = next((info.shape[-1] for name, info in checkpoint.tensors.items() if name.endswith("alpha_fn.cnn.weight")), 5)
    if "mixup" not in model:
        notes.append("the config does not say whether lambda mixes alpha (mixup); the original's default, no, was taken")
    mixing = str(model.get("mixup", False)) in ("True", "true", "1")
    draw = model.get("mixup_distro", "uniform")
    try:
        # What training drew from: only "both" goes up to upper_lambd.
        ranges = {"uniform": (0.0, 1.0), "uniform-fr": (0.0, 1.0), "scale": (1.0, 2.0)}
        drawn = ranges[draw] if draw != "both" else (0.0, min(float(model.get("upper_lambd", 2.0)), 2.0))
        return with_cif(base, alpha_kernel=kernel, mixing=mixing, lambd_range=drawn)
    except KeyError as error:
        raise CheckpointLayoutError(
            f"{checkpoint.path} has mixup_distro={draw!r}. It is one of {', '.join(ranges)}, both. The file may be damaged."
        ) from error
    except (TypeError, ValueError) as error:
        raise CheckpointLayoutError(
            f"the options of the CIF module in {checkpoint.path} make no sense: {error}. The file may be damaged."
        ) from error


def read_file(
    path: Path, config: OfaWav2Vec2Config | None = None, dropouts: Mapping[str, float | None] | None = None
) -> tuple[OfaWav2Vec2Config, OfaWav2Vec2Model, LoadReport]:
    """The config, the model with its weights in float32, and the report of the checkpoint at `path`.

    Dropouts that are not None replace the file's.
    """
    given: dict[str, Any] = {name: value for name, value in (dropouts or {}).items() if value is not None}
    config = dataclasses.replace(config, **given) if config else None  # for a file that has no config of its own

    def parse(checkpoint: Checkpoint, notes: list[str]) -> OfaWav2Vec2Config:
        return dataclasses.replace(read_ofa_config(checkpoint, notes), **given)

    def plan(checkpoint: Checkpoint) -> WeightPlan[OfaWav2Vec2Config, OfaWav2Vec2Model]:
        return plan_weights(checkpoint, config, renames=RENAMES, parse=parse, build=build_model)

    reader = f"ofa_wav2vec2 {READER_VERSION} {config} {given}"
    return read_weights(path, plan, config_class=OfaWav2Vec2Config, build=build_model, reader=reader)
