"""Names of fairseq, transformers and torchaudio for the weights of a wav2vec-2.0-shaped encoder. Imports no model code.

Our names are those of `hubcore.nn`'s encoder; a family adds rows of its own and says which heads it ignores (`Names.extended`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from hubcore.checkpoints.names import DROP_TAP, FUSED_DIRECTION, FUSED_NORM, SWAP_TAPS, Name, Names, Turn
from hubcore.errors import CheckpointLayoutError


def _pos_conv(part: str, original: int, turn: object) -> Name:
    """A part of the position embedding's weight norm: in both spellings of torch, and split from a finished weight."""
    places = {
        "fairseq": "encoder.pos_conv.0",
        "transformers": "encoder.pos_conv_embed.conv",
        "torchaudio": "encoder.transformer.pos_conv_embed.conv",
    }
    spellings = {
        system: [f"{place}.{part}", f"{place}.parametrizations.weight.original{original}", (f"{place}.weight", turn)]
        for system, place in places.items()
    }
    spellings["transformers"][:2] = spellings["transformers"][1::-1]  # what transformers itself writes comes first
    return Name(f"encoder.pos_conv.{part}", spellings)  # type: ignore[arg-type]


def _block(ours: str, fairseq: str, transformers: str) -> Name:
    return Name(
        f"encoder.blocks.#.{ours}.*",
        {
            "fairseq": f"encoder.layers.#.{fairseq}.*",
            "transformers": f"encoder.layers.#.{transformers}.*",
            "torchaudio": f"encoder.transformer.layers.#.{transformers}.*",
        },
    )


ENCODER_NAMES = (
    Name(
        "extractor.convs.#.weight",
        {
            "fairseq": "feature_extractor.conv_layers.#.0.weight",
            "transformers": "feature_extractor.conv_layers.#.conv.weight",
            "torchaudio": "feature_extractor.conv_layers.#.conv.weight",
        },
        SWAP_TAPS,
    ),
    Name(
        "extractor.convs.#.bias",
        {
            "fairseq": "feature_extractor.conv_layers.#.0.bias",
            "transformers": "feature_extractor.conv_layers.#.conv.bias",
            "torchaudio": "feature_extractor.conv_layers.#.conv.bias",
        },
    ),
    Name(
        "extractor.norms.#.*",
        {
            # The first is of group norm, the second of layer norm, which fairseq puts between two transpositions.
            "fairseq": ["feature_extractor.conv_layers.#.2.*", "feature_extractor.conv_layers.#.2.1.*"],
            "transformers": "feature_extractor.conv_layers.#.layer_norm.*",
            "torchaudio": "feature_extractor.conv_layers.#.layer_norm.*",
        },
    ),
    Name(
        "feature_norm.*",
        {
            "fairseq": "layer_norm.*",
            "transformers": "feature_projection.layer_norm.*",
            "torchaudio": "encoder.feature_projection.layer_norm.*",
        },
    ),
    Name(
        "projection.*",
        {
            "fairseq": "post_extract_proj.*",
            "transformers": "feature_projection.projection.*",
            "torchaudio": "encoder.feature_projection.projection.*",
        },
    ),
    _pos_conv("weight_g", 0, FUSED_NORM),
    _pos_conv("weight_v", 1, FUSED_DIRECTION),
    Name(
        "encoder.pos_conv.bias",
        {
            "fairseq": "encoder.pos_conv.0.bias",
            "transformers": "encoder.pos_conv_embed.conv.bias",
            "torchaudio": "encoder.transformer.pos_conv_embed.conv.bias",
        },
    ),
    Name(
        "encoder.norm.*",
        {
            "fairseq": "encoder.layer_norm.*",
            "transformers": "encoder.layer_norm.*",
            "torchaudio": "encoder.transformer.layer_norm.*",
        },
    ),
    *(_block(f"attention.{part}_proj", f"self_attn.{part}_proj", f"attention.{part}_proj") for part in ("q", "k", "v", "out")),
    _block("attention_norm", "self_attn_layer_norm", "layer_norm"),
    _block("feed_forward.fc1", "fc1", "feed_forward.intermediate_dense"),
    _block("feed_forward.fc2", "fc2", "feed_forward.output_dense"),
    _block("feed_forward_norm", "final_layer_norm", "final_layer_norm"),
)
"""One row for each weight; the first is the one by which such an encoder is found in a file."""

FRONT_NAMES = tuple(row for row in ENCODER_NAMES if not row.ours.startswith("encoder."))
"""The rows of everything before the encoder's blocks, for families with other blocks."""


_FAIRSEQ_LAYER_NORMS = Name("extractor.norms.#.*", {"fairseq": "feature_extractor.conv_layers.#.2.1.*"})


def fairseq_names(names: Names, config: Any) -> Names:
    """The table by which fairseq's file of an encoder is written.

    Raises:
        CheckpointLayoutError: fairseq has no such encoder.

    Example:
        >>> import torch
        >>> from hubcore.nn.speech_encoder_config import SpeechEncoderConfig
        >>> table = fairseq_names(Names(ENCODER_NAMES), SpeechEncoderConfig(conv_norm="layer"))
        >>> [*table.write("fairseq", {"extractor.norms.0.bias": torch.zeros(1)})]
        ['feature_extractor.conv_layers.0.2.1.bias']
    """
    if config.input_projection and config.conv_dim == config.dim:
        raise CheckpointLayoutError(
            f"extractor and blocks are both {config.dim} wide, and this model has a projection between them, where fairseq "
            "has none. Export it as hf or safetensors."
        )
    if config.conv_norm == "layer":
        return Names([*(row for row in names.rows if row.ours != _FAIRSEQ_LAYER_NORMS.ours), _FAIRSEQ_LAYER_NORMS])
    return names


def split_heads(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The encoder's weights in a state dict of pre-training, without `model.`, and the heads beside it.

    Example:
        >>> import torch
        >>> encoder, heads = split_heads({"model.a": torch.zeros(1), "mask_embedding": torch.zeros(1)})
        >>> [*encoder], [*heads]
        (['a'], ['mask_embedding'])
    """
    encoder = {name.removeprefix("model."): tensor for name, tensor in state.items() if name.startswith("model.")}
    return encoder, {name: tensor for name, tensor in state.items() if not name.startswith("model.")}


def _conformer(ours: str, fairseq: str, transformers: str, turn: Turn | None = None) -> Name:
    places = {"fairseq": f"encoder.layers.#.{fairseq}", "transformers": f"encoder.layers.#.{transformers}"}
    return Name(f"encoder.blocks.#.{ours}", places, turn)


def _conformer_feed_forward(ours: str, theirs: str) -> tuple[Name, ...]:
    return (
        _conformer(f"{ours}_norm.*", f"{theirs}.layer_norm.*", f"{theirs}_layer_norm.*"),
        _conformer(f"{ours}_feed_forward.fc1.*", f"{theirs}.w_1.*", f"{theirs}.intermediate_dense.*"),
        _conformer(f"{ours}_feed_forward.fc2.*", f"{theirs}.w_2.*", f"{theirs}.output_dense.*"),
    )


CONFORMER_NAMES = (
    *_conformer_feed_forward("first", "ffn1"),
    *(
        _conformer(f"attention.{ours}", f"self_attn.{theirs}", f"self_attn.{theirs}")
        for ours, theirs in (
            *((f"{part}_proj.*", f"linear_{part}.*") for part in ("q", "k", "v", "out")),
            ("pos_proj.weight", "linear_pos.weight"),
            ("content_bias", "pos_bias_u"),
            ("position_bias", "pos_bias_v"),
            ("distances", "distance_embedding.weight"),
        )
    ),
    *(
        _conformer(ours, theirs, theirs, turn)
        for ours, theirs, turn in (
            ("attention_norm.*", "self_attn_layer_norm.*", None),
            ("conv_norm.*", "conv_module.layer_norm.*", None),
            ("conv.gated.weight", "conv_module.pointwise_conv1.weight", DROP_TAP),
            ("conv.depthwise.weight", "conv_module.depthwise_conv.weight", None),
            ("conv.out.weight", "conv_module.pointwise_conv2.weight", DROP_TAP),
            ("norm.*", "final_layer_norm.*", None),
        )
    ),
    *_conformer_feed_forward("second", "ffn2"),
)
"""One row for each weight of conformer blocks, all but the norm after the depthwise convolution, by which families differ."""
