"""Names of fairseq, transformers and torchaudio for the weights of a wav2vec-2.0-shaped encoder. Imports no model code.

Our names are those of `hubcore.nn`'s encoder; a family adds rows of its own and says which heads it ignores (`Names.extended`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from hubcore.checkpoints.names import DROP_TAP, FUSED_DIRECTION, FUSED_NORM, SWAP_TAPS, Name, Names, Turn
from hubcore.errors import CheckpointLayoutError

Spelling = str | Sequence[str | tuple[str, Turn]]


def _row(ours: str, fairseq: Spelling, transformers: str, turn: Turn | None = None) -> Name:
    return Name(ours, {"fairseq": fairseq, "transformers": transformers, "torchaudio": _torchaudio(transformers)}, turn)


def _torchaudio(transformers: str) -> str:
    """The name in torchaudio of a weight: transformers' with another beginning, but for the extractor."""
    extractor = transformers.startswith("feature_extractor.")
    return transformers if extractor else f"encoder.{transformers.replace('encoder.', 'transformer.', 1)}"


def _pos_conv(part: str, original: int, turn: Turn) -> Name:
    """A part of the position embedding's weight norm: in both spellings of torch, and split from a finished weight."""
    fairseq, transformers = "encoder.pos_conv.0", "encoder.pos_conv_embed.conv"
    places = {"fairseq": fairseq, "transformers": transformers, "torchaudio": _torchaudio(transformers)}
    spellings: dict[str, list[str | tuple[str, Turn]]] = {
        system: [f"{place}.{part}", f"{place}.parametrizations.weight.original{original}", (f"{place}.weight", turn)]
        for system, place in places.items()
    }
    spellings["transformers"][:2] = spellings["transformers"][1::-1]  # what transformers itself writes comes first
    return Name(f"encoder.pos_conv.{part}", spellings)


_CONV = "feature_extractor.conv_layers.#"
ENCODER_NAMES = (
    _row("extractor.convs.#.weight", f"{_CONV}.0.weight", f"{_CONV}.conv.weight", SWAP_TAPS),
    _row("extractor.convs.#.bias", f"{_CONV}.0.bias", f"{_CONV}.conv.bias"),
    # The first is of group norm, the second of layer norm, which fairseq puts between two transpositions.
    _row("extractor.norms.#.*", [f"{_CONV}.2.*", f"{_CONV}.2.1.*"], f"{_CONV}.layer_norm.*"),
    _row("feature_norm.*", "layer_norm.*", "feature_projection.layer_norm.*"),
    _row("projection.*", "post_extract_proj.*", "feature_projection.projection.*"),
    _pos_conv("weight_g", 0, FUSED_NORM),
    _pos_conv("weight_v", 1, FUSED_DIRECTION),
    _row("encoder.pos_conv.bias", "encoder.pos_conv.0.bias", "encoder.pos_conv_embed.conv.bias"),
    _row("encoder.norm.*", "encoder.layer_norm.*", "encoder.layer_norm.*"),
    *(
        _row(f"encoder.blocks.#.{ours}.*", f"encoder.layers.#.{fairseq}.*", f"encoder.layers.#.{transformers}.*")
        for ours, fairseq, transformers in (
            *((f"attention.{x}_proj", f"self_attn.{x}_proj", f"attention.{x}_proj") for x in ("q", "k", "v", "out")),
            ("attention_norm", "self_attn_layer_norm", "layer_norm"),
            ("feed_forward.fc1", "fc1", "feed_forward.intermediate_dense"),
            ("feed_forward.fc2", "fc2", "feed_forward.output_dense"),
            ("feed_forward_norm", "final_layer_norm", "final_layer_norm"),
        )
    ),
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
