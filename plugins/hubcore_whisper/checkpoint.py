"""Everything this family knows about foreign checkpoints: the names and options of transformers and of OpenAI."""

from __future__ import annotations

from typing import Any

from hubcore.checkpoints import Checkpoint, Layout, Name, Names, Reader
from hubcore.checkpoints.foreign_options import demand, note_defaults, read_options
from hubcore_whisper.config import WhisperConfig
from hubcore_whisper.model import WhisperEncoder

_OPENAI = Layout("OpenAI Whisper", config_key="dims", weights_key="model_state_dict")


def _name(ours: str, theirs: str, openais: str) -> Name:
    return Name(ours, {"transformers": f"encoder.{theirs}", "openai": f"encoder.{openais}"})


def _block(ours: str, theirs: str, openais: str) -> Name:
    return _name(f"encoder.blocks.#.{ours}.*", f"layers.#.{theirs}.*", f"blocks.#.{openais}.*")


_HEADS = ["decoder.**", "proj_out.*", "projector.*", "classifier.*", "layer_weights"]
NAMES = Names(
    [
        _name("extractor.conv1.*", "conv1.*", "conv1.*"),
        _name("extractor.conv2.*", "conv2.*", "conv2.*"),
        _name("positions", "embed_positions.weight", "positional_embedding"),
        _block("attention.q_proj", "self_attn.q_proj", "attn.query"),
        _block("attention.k_proj", "self_attn.k_proj", "attn.key"),
        _block("attention.v_proj", "self_attn.v_proj", "attn.value"),
        _block("attention.out_proj", "self_attn.out_proj", "attn.out"),
        _block("attention_norm", "self_attn_layer_norm", "attn_ln"),
        _block("feed_forward.fc1", "fc1", "mlp.0"),
        _block("feed_forward.fc2", "fc2", "mlp.2"),
        _block("feed_forward_norm", "final_layer_norm", "mlp_ln"),
        _name("encoder.norm.*", "layer_norm.*", "ln_post.*"),
    ],
    heads={"transformers": _HEADS, "openai": ["decoder.**"]},
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


def parse(checkpoint: Checkpoint, notes: list[str]) -> dict[str, Any]:
    """Values of a config, by our names; what had to be assumed is added to `notes`.

    Raises:
        CheckpointLayoutError: an option that this model does not have.
        ValueError: sizes are absent.
    """
    model = checkpoint.config
    if checkpoint.layout == _OPENAI.name:
        absent = [theirs for theirs in _OPENAI_OPTIONS.values() if theirs not in model]
        if absent:
            raise ValueError(f"its dims lack {', '.join(absent)}")
        return {ours: model[theirs] for ours, theirs in _OPENAI_OPTIONS.items()} | {"ffn_dim": 4 * model["n_audio_state"]}
    demand(model, {"activation_function": ["gelu"], "scale_embedding": [False]})
    note_defaults(model, ("encoder_attention_heads",), "transformers", notes)
    values = read_options(model, _TRANSFORMERS_OPTIONS)
    fixed = {"n_fft": 400, "hop_length": 160, "sampling_rate": 16000, "dither": 0.0, "feature_size": values["num_mel_bins"]}
    demand(checkpoint.task, {option: [value] for option, value in fixed.items()})
    return values


READER: Reader[WhisperConfig, WhisperEncoder] = Reader(
    family="Whisper",
    config_class=WhisperConfig,
    build=WhisperEncoder,
    names=NAMES,
    kinds=("whisper", "WhisperUpstream"),
    parse=parse,
    layouts=(_OPENAI,),
)
"""Reads transformers' folders and OpenAI's files."""
