"""Everything this family knows about foreign checkpoints: names, what may stand beside the encoder, configs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hubcore.checkpoints import Checkpoint, Name, Names, Reader, Turn
from hubcore.checkpoints.fairseq import DEFAULT_CONV_LAYERS, parse_conv_layers
from hubcore.checkpoints.foreign_options import demand, note_defaults, read_options, to_bool, to_int
from hubcore.checkpoints.names import SWAP_TAPS
from hubcore.nn import SpeechEncoder
from hubcore_data2vec2.config import Data2Vec2Config
from hubcore_data2vec2.model import build_model

_AUDIO = "modality_encoders.AUDIO"
_POSITIONS = f"{_AUDIO}.relative_positional_encoder"
_SCALES = Turn(lambda scale: scale.flatten(-3).flatten(0, -2), None, "axes of size 1 removed from the scales of attention")
"""`(blocks, 1, heads, 1, 1)`, in old files `(1, heads, 1, 1)`, to `(blocks, heads)`."""
_TOKENS = Turn(lambda tokens: tokens[0], None, "axis of size 1 removed from the extra tokens")


def _third(part: int) -> Turn:
    """Queries, keys or values of the three in one; copied, because a view would keep all three in memory."""
    return Turn(lambda fused: fused.unflatten(0, (3, -1))[part].clone(), None, "queries, keys and values split")


def _block(ours: str, theirs: str) -> list[Name]:
    fused = [
        Name(f"{ours}.attention.{part}_proj.*", {"fairseq": [(f"{theirs}.attn.qkv.*", _third(k))]})
        for k, part in enumerate("qkv")
    ]
    rest = {
        "attention.out_proj": "attn.proj",
        "attention_norm": "norm1",
        "feed_forward.fc1": "mlp.fc1",
        "feed_forward.fc2": "mlp.fc2",
        "feed_forward_norm": "norm2",
    }
    return fused + [Name(f"{ours}.{mine}.*", {"fairseq": f"{theirs}.{name}.*"}) for mine, name in rest.items()]


NAMES = Names(
    [
        Name("extractor.convs.#.weight", {"fairseq": f"{_AUDIO}.local_encoder.conv_layers.#.0.weight"}, SWAP_TAPS),
        Name(
            "extractor.norms.#.*",  # group norm, layer norm
            {"fairseq": [f"{_AUDIO}.local_encoder.conv_layers.#.2.*", f"{_AUDIO}.local_encoder.conv_layers.#.2.1.*"]},
        ),
        Name("feature_norm.*", {"fairseq": f"{_AUDIO}.project_features.1.*"}),
        Name("projection.*", {"fairseq": f"{_AUDIO}.project_features.2.*"}),
        # With a layer norm before them (`conv_pos_pre_ln`) the convolutions stand one level deeper.
        Name("encoder.pos_conv.norm.*", {"fairseq": f"{_POSITIONS}.0.*"}),
        *(
            Name(f"encoder.pos_conv.convs.{k}.*", {"fairseq": [f"{_POSITIONS}.{k + 1}.0.*", f"{_POSITIONS}.1.{k + 1}.0.*"]})
            for k in range(20)
        ),
        Name("encoder.extra_tokens", {"fairseq": f"{_AUDIO}.extra_tokens"}, _TOKENS),
        Name("encoder.alibi.scale", {"fairseq": f"{_AUDIO}.alibi_scale"}, _SCALES),
        Name("encoder.norm.*", {"fairseq": [f"{_AUDIO}.context_encoder.norm.*", "norm.*"]}),  # post-norm, pre-norm
        *_block("encoder.prenet.#", f"{_AUDIO}.context_encoder.blocks.#"),
        *_block("encoder.blocks.#", "blocks.#"),
    ],
    heads={
        # `_ema` is the teacher of pre-training. A model of several modalities has an encoder for each.
        "fairseq": [
            "_ema.**",
            f"{_AUDIO}.decoder.**",
            "modality_encoders.IMAGE.**",
            "modality_encoders.TEXT.**",
            "shared_decoder.**",
            "recon_proj.*",
        ]
    },
)
"""The encoder's names, and what stands beside it in files of pre-training."""

_MODEL = {
    "dim": ("embed_dim", 768),
    "num_layers": ("depth", 8),
    "num_heads": ("num_heads", 12),
    "pre_norm": ("layer_norm_first", False),
    "norm_eps": ("norm_eps", 1e-6),
    "dropout": ("encoder_dropout", 0.1),
    "attention_dropout": ("attention_dropout", 0.1),
    "activation_dropout": ("activation_dropout", 0.0),
}
_ENCODER = {
    "prenet_layers": ("prenet_depth", 4),
    "extra_tokens": ("num_extra_tokens", 0),
    "alibi": ("use_alibi_encoder", False),
    "pos_conv_groups": ("conv_pos_groups", 16),
    "pos_conv_depth": ("conv_pos_depth", 5),
    "pos_conv_pre_norm": ("conv_pos_pre_ln", False),
}
"""Our option -> fairseq's, and its default: of the model, and of its audio encoder."""
_UNSEEN = ("num_heads", "layer_norm_first", "norm_eps")


def parse(checkpoint: Checkpoint, notes: list[str]) -> Mapping[str, Any]:
    """Values of a config, by our names, from fairseq's config or FunASR's `model_conf`; assumptions are added to `notes`."""
    model, task = checkpoint.config, checkpoint.task
    audio = model.get("modalities", {}).get("audio", {})
    values = {**read_options(model, _MODEL), **read_options(audio, _ENCODER)}
    demand(model, {"norm_affine": [True]})
    alibi_heads = [values["num_heads"], "${model.num_heads}"]  # what fairseq calls the same without resolving it
    demand(audio, {"learned_alibi": [False], "num_alibi_heads": alibi_heads, "extractor_mode": ["layer_norm", "default"]})
    note_defaults(model, _UNSEEN, "fairseq", notes)
    note_defaults(audio, ["use_alibi_encoder", "extractor_mode", "feature_encoder_spec"], "fairseq", notes)
    per = [name for name in ("layer", "head") if to_bool(audio.get(f"learned_alibi_scale_per_{name}", False))]
    layer_norm = audio.get("extractor_mode", "layer_norm") == "layer_norm"
    if "normalize" not in task and "normalize" not in model:
        notes.append("the file does not say whether waveforms are normalised; taken from the extractor's norm")
    return {
        **values,
        "ffn_dim": int(values["dim"] * float(model.get("mlp_ratio", 4))),
        "alibi_scale": "_and_".join(per) or "one",
        "pos_conv_kernel": max(3, to_int(audio.get("conv_pos_width", 95)) // values["pos_conv_depth"]),
        "conv_layers": parse_conv_layers(audio.get("feature_encoder_spec", DEFAULT_CONV_LAYERS)),
        "conv_norm": "layer" if layer_norm else "group",
        "normalize": to_bool(task.get("normalize", model.get("normalize", layer_norm))),
        "sample_rate": to_int(task.get("sample_rate", 16000)),
    }


READER: Reader[Data2Vec2Config, SpeechEncoder] = Reader(
    family="data2vec 2.0",
    config_class=Data2Vec2Config,
    build=build_model,
    names=NAMES,
    kinds=("data2vec_multi", "Emotion2vec", "Data2Vec2Upstream"),
    parse=parse,
)
"""Reads fairseq's, emotion2vec's and FunASR's files."""
