"""Everything this family knows about foreign checkpoints: what its weights and heads are called, how its config is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from hubcore.checkpoints import CONFORMER_NAMES, FRONT_NAMES, Checkpoint, Name, Names, Reader, Turn, encoder_values
from hubcore.checkpoints.foreign_options import demand, to_int
from hubcore.checkpoints.layouts import HUGGING_FACE
from hubcore.checkpoints.transformers import conformer_values
from hubcore.errors import CheckpointLayoutError
from hubcore.nn import SpeechEncoder
from hubcore_wav2vec2_conformer.config import Wav2Vec2ConformerConfig
from hubcore_wav2vec2_conformer.model import build_model


def _batch_norm(part: str) -> Name:
    theirs = f"encoder.layers.#.conv_module.batch_norm.{part}"
    return Name(f"encoder.blocks.#.conv.norm.{part}", {"fairseq": theirs, "transformers": theirs})


NAMES = Names(
    [
        *(_batch_norm(part) for part in ("*", "running_mean", "running_var", "num_batches_tracked")),
        *FRONT_NAMES,
        *CONFORMER_NAMES,
        Name("encoder.norm.*", {"fairseq": "encoder.layer_norm.*", "transformers": "encoder.layer_norm.*"}),
        Name(
            "encoder.context.rates",
            {"fairseq": "encoder.layers.0.self_attn.rotary_emb.inv_freq", "transformers": "encoder.embed_positions.inv_freq"},
        ),
    ],
    heads={
        # Both systems build the position convolution of wav2vec 2.0 and never run it. Each block of fairseq has a copy of the
        # rates of rotary positions; the first one's is read, see `_Reader`.
        "fairseq": [
            *("mask_emb", "quantizer.**", "project_q.*", "final_proj.*"),
            *("encoder.pos_conv.**", "encoder.layers.#.self_attn.rotary_emb.inv_freq"),
        ],
        "transformers": [
            *("masked_spec_embed", "quantizer.**", "project_q.*", "project_hid.*", "lm_head.*"),
            "encoder.pos_conv_embed.**",
        ],
    },
)
"""The names of the weights; and the heads, and weights that the originals never use, which are ignored."""


def parse(checkpoint: Checkpoint, notes: list[str]) -> Mapping[str, Any]:
    """Values of a config, by our names; what had to be assumed is added to `notes`.

    What both systems share with wav2vec 2.0 is read as there, from a config without what is another's in conformers.
    """
    model = checkpoint.config
    if checkpoint.layout == HUGGING_FACE:
        # transformers has no option for the final norm of conformers: it is always there.
        front = {**model, "hidden_act": "gelu", "do_stable_layer_norm": True}
        values = encoder_values(replace(checkpoint, config=front), notes)
        values |= conformer_values(model, activation="gelu", positions=("relative", "rotary", None))
    else:
        demand(model, {"layer_type": ["conformer"], "attn_type": ["espnet"], "pos_enc_type": ["rel_pos", "rope"]})
        front = {**model, "layer_type": "transformer", "activation_fn": "gelu", "pos_conv_depth": 1}
        values = encoder_values(replace(checkpoint, config=front), notes)
        # fairseq has one dropout for everything in a conformer block, one activation, and a projection where widths differ.
        values |= dict.fromkeys(("attention_dropout", "activation_dropout", "conv_dropout"), values["dropout"])
        values |= {
            "positions": "rotary" if model.get("pos_enc_type") == "rope" else "relative",
            "depthwise_kernel": to_int(model.get("depthwise_conv_kernel_size", 31)),
            "input_projection": values["conv_layers"][-1][0] != values["dim"],
        }
    return {name: value for name, value in values.items() if not name.startswith("pos_conv")}


class _Reader(Reader[Wav2Vec2ConformerConfig, SpeechEncoder]):
    """Refuses a file whose blocks turn frames by different rates, since one set of them is read for all."""

    def find_weights(self, checkpoint: Checkpoint) -> dict[str, tuple[str, Turn | None]]:
        known = super().find_weights(checkpoint)
        copies = [name for name in checkpoint.tensors if name.endswith(".rotary_emb.inv_freq")]
        rates = checkpoint.read(copies, torch.float32)
        other = next((name for name in copies if not torch.equal(rates[name], rates[copies[0]])), None)
        if other is not None:
            raise CheckpointLayoutError(
                f"{checkpoint.path} cannot be loaded: {other} differs from {copies[0]}. Here all blocks share the "
                "rates of their rotary positions. The file may be damaged."
            )
        return known


READER: Reader[Wav2Vec2ConformerConfig, SpeechEncoder] = _Reader(
    family="wav2vec 2.0 conformer",
    config_class=Wav2Vec2ConformerConfig,
    build=build_model,
    names=NAMES,
    kinds=("wav2vec2_conformer", "wav2vec2-conformer", "Wav2Vec2ConformerUpstream"),
    parse=parse,
)
"""Reads fairseq's, s3prl's and transformers' files."""
