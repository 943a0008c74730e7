"""ESPnet's configs of torchaudio's wav2vec-2.0-shaped encoders (`config.yaml`, `encoder_conf`), read. Imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hubcore.checkpoints.foreign_options import demand, read_options, to_int

if TYPE_CHECKING:
    from hubcore.checkpoints.layouts import Checkpoint

OPTIONS = {
    "conv_bias": ("extractor_conv_bias", False),
    "dim": ("encoder_embed_dim", 768),
    "num_layers": ("encoder_num_layers", 12),
    "num_heads": ("encoder_num_heads", 12),
    "ffn_dim": ("encoder_ff_interm_features", 3072),
    "pre_norm": ("encoder_layer_norm_first", False),
    "pos_conv_kernel": ("encoder_pos_conv_kernel", 128),
    "pos_conv_groups": ("encoder_pos_conv_groups", 16),
    "dropout": ("encoder_dropout", 0.1),
    "attention_dropout": ("encoder_attention_dropout", 0.1),
    "activation_dropout": ("encoder_ff_interm_dropout", 0.0),
}
"""Our option -> ESPnet's, and its default."""
_CONV_LAYERS = [[512, 10, 5], *[[512, 3, 2]] * 4, *[[512, 2, 2]] * 2]


def encoder_values(checkpoint: Checkpoint, notes: list[str]) -> dict[str, Any]:
    """Values of an encoder config, by our names. ESPnet never normalises the waveform for these encoders.

    Raises:
        CheckpointLayoutError: an option that the encoder does not have.
        ValueError: a value that makes no sense.
    """
    model = checkpoint.config
    demand(model, {"extractor_mode": ["group_norm", "layer_norm"]})
    rows = model.get("extractor_conv_layer_config") or _CONV_LAYERS
    notes.append("the waveform is not normalised, as in ESPnet")
    return {
        **read_options(model, OPTIONS),
        "conv_layers": tuple((to_int(c), to_int(k), to_int(s)) for c, k, s in rows),
        "conv_norm": "layer" if model.get("extractor_mode", "group_norm") == "layer_norm" else "group",
        "normalize": False,
        "sample_rate": to_int(checkpoint.task.get("fs", 16000)),
    }
