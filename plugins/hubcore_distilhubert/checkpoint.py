"""Everything this family knows about foreign checkpoints: s3prl's file, and transformers' copy of the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hubcore.checkpoints import ENCODER_NAMES, Checkpoint, Layout, Name, Names, Reader, fairseq, transformers
from hubcore.checkpoints.foreign_options import demand, note_defaults, read_options, to_int
from hubcore.checkpoints.layouts import HUGGING_FACE
from hubcore.errors import CheckpointLayoutError
from hubcore_distilhubert.config import DistilHubertConfig
from hubcore_distilhubert.model import DistilHubert

_LAYOUT = Layout("s3prl distiller", config_key="Config.distiller", weights_key="Distiller")
_OPTIONS = {
    **fairseq.OPTIONS,
    "num_layers": ("encoder_layers", 1),
    "activation_dropout": ("activation_dropout", 0.1),
    "prediction_dim": ("final_dim", 768),
    "prediction_inner_dim": ("out_layer_inter_dim", -1),
}
_COMPUTED: Mapping[str, Sequence[Any]] = {
    "extractor_mode": ["default", "layer_norm"],
    "activation_fn": ["gelu"],
    "attention_type": ["original"],
    "layer_norm_first": [False],
    "task_emb_type": ["expand-last"],
    "out_layer_type": ["expand-last"],
}
NAMES = Names(
    [
        *ENCODER_NAMES,
        Name("predictions.hidden.*", {"fairseq": "output_layer.0.*"}),
        Name("predictions.out.*", {"fairseq": ["output_layer.2.*", "output_layer.2.layer.*"]}),
    ],
    heads={"transformers": ["masked_spec_embed", "final_proj.*", "lm_head.*"]},
)
"""The encoder's names, those of the prediction heads, and the heads of fine-tuning that transformers may save beside it."""


def parse(checkpoint: Checkpoint, notes: list[str]) -> dict[str, Any]:
    """Values of a config, by our names; what had to be assumed is added to `notes`.

    Raises:
        CheckpointLayoutError: another family's file, or an option that this model does not have.
    """
    if checkpoint.layout == _LAYOUT.name:
        return _distiller_values(checkpoint.config, notes)
    model = checkpoint.config
    small = model.get("num_hidden_layers") == 2 and model.get("feat_proj_layer_norm") is False
    if checkpoint.layout == HUGGING_FACE and small:
        demand(model, {"do_stable_layer_norm": [False]})
        return {**transformers.encoder_values(checkpoint, notes), "predicted_layers": ()}
    raise CheckpointLayoutError(
        f"it calls itself {checkpoint.kind!r}. In transformers' layout, a DistilHuBERT is a HuBERT of two blocks with "
        "feat_proj_layer_norm: false. Use hub.load('hubert', ...)."
    )


def _distiller_values(model: dict[str, Any], notes: list[str]) -> dict[str, Any]:
    demand(model, _COMPUTED)
    note_defaults(model, ("encoder_attention_heads", "extractor_mode", "conv_pos_groups", "pred_layer_id"), "s3prl", notes)
    values = read_options(model, _OPTIONS)
    layers = tuple(map(to_int, model.get("pred_layer_id", range(1, to_int(model.get("n_tasks", 12)) + 1))))
    conv_layers = fairseq.parse_conv_layers(model.get("extractor_conv_feature_layers", fairseq.DEFAULT_CONV_LAYERS))
    return {
        **values,
        "conv_layers": conv_layers,
        "conv_norm": "layer" if model.get("extractor_mode", "default") == "layer_norm" else "group",
        "input_projection": conv_layers[-1][0] != values["dim"],
        "predicted_layers": layers,
        "prediction_inner_dim": values["prediction_inner_dim"] if values["prediction_inner_dim"] > 0 else values["dim"],
    }


READER: Reader[DistilHubertConfig, DistilHubert] = Reader(
    family="DistilHuBERT",
    config_class=DistilHubertConfig,
    build=DistilHubert,
    names=NAMES,
    kinds=("hubert", "DistilHubertUpstream"),
    parse=parse,
    layouts=(_LAYOUT,),
)
"""Reads s3prl's and transformers' files."""
