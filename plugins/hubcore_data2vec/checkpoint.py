"""Everything this family knows about foreign checkpoints: the names that it adds to the encoder's, the heads, the configs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from hubcore.checkpoints import ENCODER_NAMES, Checkpoint, Name, Names, Reader, encoder_values
from hubcore.checkpoints.foreign_options import to_int
from hubcore.checkpoints.layouts import HUGGING_FACE
from hubcore.nn import SpeechEncoder
from hubcore_data2vec.config import Data2VecConfig
from hubcore_data2vec.model import build_model

NAMES = Names(
    [
        *ENCODER_NAMES,
        Name(
            "encoder.pos_conv.convs.#.*",
            {"fairseq": "encoder.pos_conv.#.0.*", "transformers": "encoder.pos_conv_embed.layers.#.conv.*"},
        ),
    ],
    heads={
        # `_ema` is the teacher of pre-training: the blocks once more, or the whole encoder.
        "fairseq": ["mask_emb", "final_proj.*", "_ema.**"],
        "transformers": ["masked_spec_embed", "lm_head.*"],
    },
)
"""The encoder's names, and what stands beside it in files of pre-training."""


def parse(checkpoint: Checkpoint, notes: list[str]) -> Mapping[str, Any]:
    """Values of a config, by our names; what had to be assumed is added to `notes`.

    Both systems have these positions under options that mean something else in wav2vec 2.0. transformers has one data2vec
    only: its convolutions have layer norms and its blocks are post-norm, whatever the config says.
    """
    model = dict(checkpoint.config)
    if checkpoint.layout == HUGGING_FACE:
        depth, kernel = to_int(model.get("num_conv_pos_embeddings", 5)), to_int(model.get("conv_pos_kernel_size", 19))
        model |= {"num_conv_pos_embeddings": kernel, "feat_extract_norm": "layer", "do_stable_layer_norm": False}
    else:
        depth = to_int(model.get("pos_conv_depth", 1))
        kernel = max(3, to_int(model.get("conv_pos", 128)) // depth)
        model |= {"conv_pos": kernel, "pos_conv_depth": 1}
    values = encoder_values(replace(checkpoint, config=model), notes)
    return {name: value for name, value in values.items() if name != "pos_conv_norm"} | {"pos_conv_depth": depth}


READER: Reader[Data2VecConfig, SpeechEncoder] = Reader(
    family="data2vec audio",
    config_class=Data2VecConfig,
    build=build_model,
    names=NAMES,
    kinds=("data2vec_audio", "data2vec-audio", "Data2VecUpstream"),
    parse=parse,
)
"""Reads fairseq's, s3prl's and transformers' files."""
