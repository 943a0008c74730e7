"""Everything this family knows about foreign checkpoints: the heads beside the encoder, and options that it does not have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hubcore.checkpoints import ENCODER_NAMES, Checkpoint, Names, Reader, encoder_values
from hubcore.checkpoints.foreign_options import demand
from hubcore.nn import SpeechEncoder, build_speech_encoder
from hubcore_unispeech_sat.config import UniSpeechSatConfig

NAMES = Names(
    ENCODER_NAMES,
    heads={
        "fairseq": [
            "mask_emb", "label_embs_concat", "final_proj.**", "target_glu.**",
            # of the loss that tells speakers apart
            "quantizer.**", "project_q.*", "spk_proj.*", "encoder.layer_norm_for_extract.*",
        ],
        "transformers": ["masked_spec_embed"],
    },
)  # fmt: skip
"""The encoder's names, and the heads of pre-training."""

_COMPUTED: Mapping[str, Sequence[Any]] = {
    "structure_type": ["transformer"],
    "relative_position_embedding": [False],
    "streaming": [False],
    "expand_attention_head_size": [-1],
}
"""Options of the program that trained these models -> the values that are computed here, its default first."""


def parse(checkpoint: Checkpoint, notes: list[str]) -> dict[str, Any]:
    """Values of a config, by our names; what had to be assumed is added to `notes`.

    Raises:
        CheckpointLayoutError: an option that this encoder does not compute.
        ValueError: a value that makes no sense.
    """
    demand(checkpoint.config, _COMPUTED)
    return encoder_values(checkpoint, notes)


READER: Reader[UniSpeechSatConfig, SpeechEncoder] = Reader(
    family="UniSpeech-SAT",
    config_class=UniSpeechSatConfig,
    build=build_speech_encoder,
    names=NAMES,
    kinds=("unispeech_sat", "unispeech-sat", "UniSpeech-SAT", "UniSpeechSatUpstream"),
    parse=parse,
)
"""Reads the publisher's and transformers' files."""
