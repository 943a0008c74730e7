"""Everything this family knows about foreign checkpoints: names, heads, and how a foreign config is read."""

from __future__ import annotations

from typing import Any

from hubcore.checkpoints import ENCODER_NAMES, Checkpoint, Name, Names, Reader, encoder_values
from hubcore.checkpoints.foreign_options import demand, read_options
from hubcore.checkpoints.layouts import HUGGING_FACE
from hubcore.nn import SpeechEncoder
from hubcore_wavlm.config import WavLMConfig
from hubcore_wavlm.model import build_model

_FAIRSEQ, _TRANSFORMERS = "encoder.layers.#.self_attn", "encoder.layers.#.attention"
NAMES = Names(
    [
        *ENCODER_NAMES,
        Name(
            "encoder.blocks.#.attention.gate_proj.*",
            {
                # The first is of the published files, the second of the program that trained them.
                "fairseq": [f"{_FAIRSEQ}.grep_linear.*", f"{_FAIRSEQ}.gate_ur_linear.*"],
                "transformers": f"{_TRANSFORMERS}.gru_rel_pos_linear.*",
            },
        ),
        Name(
            "encoder.blocks.#.attention.gate_scale",
            {
                "fairseq": [f"{_FAIRSEQ}.grep_a", f"{_FAIRSEQ}.eco_a"],
                "transformers": f"{_TRANSFORMERS}.gru_rel_pos_const",
            },
        ),
        Name(
            "encoder.context.weight",
            {
                "fairseq": "encoder.layers.0.self_attn.relative_attention_bias.weight",
                "transformers": "encoder.layers.0.attention.rel_attn_embed.weight",
            },
        ),
    ],
    heads={
        "fairseq": ["mask_emb", "label_embs_concat", "final_proj.**", "target_glu.**"],
        "transformers": ["masked_spec_embed"],
    },
)
"""The encoder's names, those of its relative positions, and the heads of pre-training."""


def parse(checkpoint: Checkpoint, notes: list[str]) -> dict[str, Any]:
    """Values of a config, by our names; what had to be assumed is added to `notes`.

    Raises:
        CheckpointLayoutError: an option that this encoder does not compute.
        ValueError: a value that makes no sense.
    """
    model, distance = checkpoint.config, ("max_bucket_distance", 800)
    if checkpoint.layout != HUGGING_FACE:
        demand({"gru_rel_pos": False, **model}, {"gru_rel_pos": [True]})
        distance = ("max_distance", 1280)
    options = {"num_buckets": ("num_buckets", 320), "max_distance": distance}
    return {**encoder_values(checkpoint, notes), **read_options(model, options)}


READER: Reader[WavLMConfig, SpeechEncoder] = Reader(
    family="WavLM",
    config_class=WavLMConfig,
    build=build_model,
    names=NAMES,
    kinds=("wavlm", "WavLM", "WavLMUpstream"),
    parse=parse,
)
"""Reads the publisher's and transformers' files."""
