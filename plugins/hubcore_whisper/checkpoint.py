"""Everything this family knows about foreign checkpoints: the names and options of transformers and of OpenAI."""

from __future__ import annotations

from typing import Any

from hubcore.checkpoints import Checkpoint, Layout, Name, Names, Reader
from hubcore.checkpoints.foreign_options import demand, note_defaults, read_options
from hubcore.checkpoints.layouts import HUGGING_FACE
from hubcore.errors import CheckpointLayoutError
from hubcore_whisper.config import WhisperConfig
from hubcore_whisper.model import WhisperEncoder

_OPENAI = Layout("OpenAI Whisper", config_key="dims", weights_key="model_state_dict")
_BLOCK = {
    "attention.q_proj": ("self_attn.q_proj", "attn.query"),
    "attention.k_proj": ("self_attn.k_proj", "attn.key"),
    "attention.v_proj": ("self_attn.v_proj", "attn.value"),
    "attention.out_proj": ("self_attn.out_proj", "attn.out"),
    "attention_norm": ("self_attn_layer_norm", "attn_ln"),
    "feed_forward.fc1": ("fc1", "mlp.0"),
    "feed_forward.fc2": ("fc2", "mlp.2"),
    "feed_forward_norm": ("final_layer_norm", "mlp_ln"),
}
NAMES = Names(
    [
        Name("extractor.conv1.*", {"transformers": "encoder.conv1.*", "openai": "encoder.conv1.*"}),
        Name("extractor.conv2.*", {"transformers": "encoder.conv2.*", "openai": "encoder.conv2.*"}),
        Name("positions", {"transformers": "encoder.embed_positions.weight", "openai": "encoder.positional_embedding"}),
        *(
            Name(
                f"encoder.blocks.#.{ours}.*",
                {"transformers": f"encoder.layers.#.{theirs}.*", "openai": f"encoder.blocks.#.{openais}.*"},
            )
            for ours, (theirs, openais) in _BLOCK.items()
        ),
        Name("encoder.norm.*", {"transformers": "encoder.layer_norm.*", "openai": "encoder.ln_post.*"}),
    ],
    heads={
        "transformers": ["decoder.**", "proj_out.*", "projector.*", "classifier.*", "layer_weights"],
        "openai": ["decoder.**"],
    },
)
"""The encoder's names, and the decoder and the heads of classification that may stand beside it."""
_TRANSFORMERS_OPTIONS = {
    "num_mel_bins": ("num_mel_bins", 80),
    "dim": ("d_model", 384),
    "num_layers": ("encoder_layers", 4),
    "num_heads": ("encoder_attention_heads", 6),
    "ffn_dim": ("encoder_ffn_dim", 1536),
    "positions": ("max_source_positions", 1500),
    "dropout": ("dropout", 0.0),
    "attention_dropout": ("attention_dropout", 0.0),
    "activation_dropout": ("activation_dropout", 0.0),
}
_OPENAI_OPTIONS = {
    "num_mel_bins": "n_mels",
    "dim": "n_audio_state",
    "num_layers": "n_audio_layer",
    "num_heads": "n_audio_head",
    "positions": "n_audio_ctx",
}


def whisper_values(checkpoint: Checkpoint, notes: list[str]) -> dict[str, Any]:
    """Values of the config, by our names; what had to be assumed is added to `notes`.

    Raises:
        CheckpointLayoutError: an option that this model does not have.
    """
    model = checkpoint.config
    if checkpoint.layout == _OPENAI.name:
        lacking = [theirs for theirs in _OPENAI_OPTIONS.values() if theirs not in model]
        if lacking:
            raise CheckpointLayoutError(f"its dims lack {', '.join(lacking)}. The file may be damaged: fetch it again.")
        values = {ours: model[theirs] for ours, theirs in _OPENAI_OPTIONS.items()}
        return {**values, "ffn_dim": 4 * values["dim"]}
    if checkpoint.layout == HUGGING_FACE:
        demand(model, {"activation_function": ["gelu"], "scale_embedding": [False]})
        demand(checkpoint.task, {"n_fft": [400], "hop_length": [160], "sampling_rate": [16000], "dither": [0.0]})
        note_defaults(model, ("encoder_attention_heads",), "transformers", notes)
        return read_options(model, _TRANSFORMERS_OPTIONS)
    raise CheckpointLayoutError(
        f"its layout is {checkpoint.layout}. Whisper is read from transformers' folders and OpenAI's files."
    )


READER: Reader[WhisperConfig, WhisperEncoder] = Reader(
    family="Whisper",
    config_class=WhisperConfig,
    build=WhisperEncoder,
    names=NAMES,
    kinds=("whisper", "WhisperUpstream"),
    parse=whisper_values,
    layouts=(_OPENAI,),
)
"""Reads transformers' folders and OpenAI's files."""
