"""OmniASR's wav2vec 2.0 encoders (300M to 7B): their names in fairseq2 and in transformers, and their configs read."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from hubcore.checkpoints import Checkpoint, Name, Names, encoder_values
from hubcore.checkpoints.names import FUSED_DIRECTION, FUSED_NORM, SWAP_TAPS, Turn


def _name(ours: str, fairseq2: str, transformers: str, turn: Turn | None = None) -> Name:
    return Name(ours, {"fairseq2": fairseq2, "omniasr": transformers}, turn)


def _block(ours: str, fairseq2: str, transformers: str) -> Name:
    return _name(f"encoder.blocks.#.{ours}.*", f"encoder.layers.#.{fairseq2}.*", f"layers.#.{transformers}.*")


_CONV, _CONV_HF = "encoder_frontend.feature_extractor.layers.#", "subsampling.conv_layers.#"
_POS, _POS_HF = "encoder_frontend.pos_encoder.conv", "encode_positions.conv"

OMNIASR_NAMES = (
    _name("extractor.convs.#.weight", f"{_CONV}.conv.weight", f"{_CONV_HF}.conv.weight", SWAP_TAPS),
    _name("extractor.convs.#.bias", f"{_CONV}.conv.bias", f"{_CONV_HF}.conv.bias"),
    _name("extractor.norms.#.*", f"{_CONV}.layer_norm.*", f"{_CONV_HF}.layer_norm.*"),
    _name("feature_norm.*", "encoder_frontend.post_extract_layer_norm.*", "subsampling.layer_norm.*"),
    _name("projection.*", "encoder_frontend.model_dim_proj.*", "subsampling.projection.*"),
    Name("encoder.pos_conv.weight_g", {"fairseq2": f"{_POS}.weight_g", "omniasr": [(f"{_POS_HF}.weight", FUSED_NORM)]}),
    Name("encoder.pos_conv.weight_v", {"fairseq2": f"{_POS}.weight_v", "omniasr": [(f"{_POS_HF}.weight", FUSED_DIRECTION)]}),
    _name("encoder.pos_conv.bias", f"{_POS}.bias", f"{_POS_HF}.bias"),
    _name("encoder.norm.*", "encoder.layer_norm.*", "layer_norm.*"),
    *(_block(f"attention.{part}_proj", f"self_attn.{part}_proj", f"attention.{part}_proj") for part in ("q", "k", "v")),
    _block("attention.out_proj", "self_attn.output_proj", "attention.out_proj"),
    _block("attention_norm", "self_attn_layer_norm", "layer_norm"),
    _block("feed_forward.fc1", "ffn.inner_proj", "feed_forward.intermediate_dense"),
    _block("feed_forward.fc2", "ffn.output_proj", "feed_forward.output_dense"),
    _block("feed_forward_norm", "ffn_layer_norm", "final_layer_norm"),
)
"""Rows of the encoder in fairseq2's files (`fairseq2`) and in transformers' folders (`omniasr`)."""
OMNIASR_HEADS = {"fairseq2": ["masker.**", "quantizer.**", "final_proj.*", "final_target_proj.*"]}
"""Heads of pre-training and of CTC; those of transformers stand outside the encoder's prefix."""
OMNIASR_KINDS = ("omniasr_audio", "omniasr_ctc", "omniasr")
"""Values of `model_type` in transformers."""

_TABLE = Names(OMNIASR_NAMES)
_DEFAULTS = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "conv_bias": True,
}
"""transformers' defaults where they are not those of its wav2vec 2.0."""
_FIXED = {"do_stable_layer_norm": True, "feat_extract_norm": "layer"}
_KERNELS, _STRIDES = [10, 3, 3, 3, 3, 2, 2], [5, 2, 2, 2, 2, 2, 2]
_HEADS = {(2048, 16): 32, (2560, 32): 32, (2048, 64): 32, (2304, 64): 32}
"""Width and depth of fairseq2's architectures whose attention heads are not as many as the position embedding's groups."""


def parse(checkpoint: Checkpoint, notes: list[str]) -> dict[str, Any]:
    """Values of the config of any wav2vec 2.0, OmniASR in transformers among them; see `Reader.parse`."""
    if checkpoint.kind not in OMNIASR_KINDS:
        return encoder_values(checkpoint, notes)
    audio = checkpoint.config.get("audio_config", checkpoint.config)
    model = {**_DEFAULTS, **audio, **_FIXED}
    task = {"normalize_eps": 1e-5, **checkpoint.task} if checkpoint.task else {}
    return encoder_values(dataclasses.replace(checkpoint, config=model, task=task), notes)


def fairseq2_values(checkpoint: Checkpoint, notes: list[str]) -> Mapping[str, Any] | None:
    """Values of the config of a fairseq2 file, which has none: read from its weights; None if it is no such file."""
    system, prefix = _TABLE.find(checkpoint.tensors) or ("", "")
    if system != "fairseq2":
        return None
    inside = [name.removeprefix(prefix) for name in checkpoint.tensors if name.startswith(prefix)]
    known = _TABLE.read(system, inside)
    shapes = {ours: checkpoint.tensors[prefix + theirs].shape for ours, (theirs, _) in known.items()}
    convs = [shapes[name] for name in sorted(shapes) if name.startswith("extractor.convs.") and name.endswith(".weight")]
    width = shapes.get("encoder.pos_conv.weight_v", ())
    inner = shapes.get("encoder.blocks.0.feed_forward.fc1.weight", ())
    if [shape[-1] for shape in convs] != _KERNELS or len(width) != 3 or len(inner) != 2:
        return None
    dim, depth = width[0], sum(name.endswith(".fc1.weight") for name in shapes)
    groups = dim // max(width[1], 1)
    heads = _HEADS.get((dim, depth), groups)
    notes.append(
        "fairseq2's files have no config: sizes were read from the weights; as in fairseq2's models of this shape, there are "
        f"{heads} attention heads, blocks are pre-norm and waveforms are normalised. Pass config= if that is wrong"
    )
    return {
        "conv_layers": tuple((shape[0], shape[-1], stride) for shape, stride in zip(convs, _STRIDES, strict=True)),
        "conv_bias": "extractor.convs.0.bias" in shapes,
        "conv_norm": "layer",
        "dim": dim,
        "num_layers": depth,
        "num_heads": heads,
        "ffn_dim": inner[0],
        "pre_norm": True,
        "pos_conv_kernel": width[2],
        "pos_conv_groups": groups,
        "normalize": True,
    }
