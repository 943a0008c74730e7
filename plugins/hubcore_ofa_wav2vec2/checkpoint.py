"""Everything this family knows about foreign checkpoints beyond what wav2vec 2.0 knows: the CIF module and its options."""

from __future__ import annotations

from typing import Any

from hubcore.checkpoints import Checkpoint, Name, Reader, encoder_values
from hubcore.checkpoints.foreign_options import to_bool
from hubcore.checkpoints.names import SWAP_TAPS
from hubcore.errors import CheckpointLayoutError
from hubcore_ofa_wav2vec2.config import OfaWav2Vec2Config, drawn_range
from hubcore_ofa_wav2vec2.model import OfaWav2Vec2Model, build_model
from hubcore_wav2vec2.checkpoint import FAIRSEQ_NAMES, fit_projection

NAMES = FAIRSEQ_NAMES.extended(
    [
        Name("alpha_predictor.conv.weight", {"fairseq": "cif_subsampler.alpha_fn.cnn.weight"}, SWAP_TAPS),
        Name("alpha_predictor.conv.bias", {"fairseq": "cif_subsampler.alpha_fn.cnn.bias"}),
        Name("alpha_predictor.norm.*", {"fairseq": "cif_subsampler.alpha_fn.layer.0.*"}),
        Name("alpha_predictor.linear.*", {"fairseq": "cif_subsampler.alpha_fn.layer.2.*"}),
    ]
)
"""Names of the weights of `OfaWav2Vec2Model`; transformers has no such model."""


def parse(checkpoint: Checkpoint, notes: list[str]) -> dict[str, Any]:
    """Values of a config, by our names; what had to be assumed is added to `notes`.

    Raises:
        CheckpointLayoutError: no CIF module, or options that this model code does not have.
    """
    values = encoder_values(checkpoint, notes)
    model = checkpoint.config
    if model.get("subsample") != "cif":
        raise CheckpointLayoutError(
            f"it has subsample={model.get('subsample')!r}; an OFA wav2vec 2.0 checkpoint has 'cif'. Load it with "
            "hub.load('wav2vec2', checkpoint=...) if it is a plain wav2vec 2.0."
        )
    kernel = next((info.shape[-1] for name, info in checkpoint.tensors.items() if name.endswith("alpha_fn.cnn.weight")), 5)
    if "mixup" not in model:
        notes.append("the config does not say whether lambda mixes alpha (mixup); the original's default, no, was taken")
    draw = model.get("mixup_distro", "uniform")
    drawn = drawn_range(draw, float(model.get("upper_lambd", 2.0)))
    if drawn is None:
        raise CheckpointLayoutError(f"it has mixup_distro={draw!r}, which the original does not know. It may be damaged.")
    return {**values, "alpha_kernel": kernel, "mixing": to_bool(model.get("mixup", False)), "lambd_range": drawn}


READER: Reader[OfaWav2Vec2Config, OfaWav2Vec2Model] = Reader(
    family="OFA wav2vec 2.0",
    config_class=OfaWav2Vec2Config,
    build=build_model,
    names=NAMES,
    kinds=("wav2vec2", "OfaWav2Vec2Upstream"),
    parse=parse,
    fit=fit_projection,
)
"""Reads the files of the original's fork of fairseq."""
