"""The systems that hubcore is compared with, where they are installed: transformers, s3prl's model class and torchaudio.

All have the same shape and fresh weights, and give every hidden state. Each is called with a list of waveforms.
"""

from __future__ import annotations

import functools
import importlib.util
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from hubcore_wav2vec2 import CONFIGS, Wav2Vec2Upstream
from tests.benchmarks.measure import sizes

Call = Callable[[list[Tensor]], object]
OURS = "hubcore"


def peers() -> list[str]:
    """The peers that can be imported."""
    return [name for name in MAKERS if importlib.util.find_spec(name) is not None]


@functools.cache
def systems(shape: str = "base", num_layers: int | None = None) -> dict[str, Call]:
    """hubcore and the peers that can be imported, with wav2vec 2.0 of a published shape."""
    count = min(num_layers or CONFIGS[shape].num_layers, sizes().layers)
    config = replace(CONFIGS[shape], num_layers=count)
    calls: dict[str, Call] = {OURS: Wav2Vec2Upstream(config).eval()}
    for name in peers():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            calls[name] = MAKERS[name](config)
    return calls


def padded(wavs: list[Tensor]) -> tuple[Tensor, Tensor]:
    """`(B, T)` waveforms, and `(B, T)` True where a sample is one."""
    batch = torch.nn.utils.rnn.pad_sequence(wavs, batch_first=True)
    lengths = torch.tensor([len(wav) for wav in wavs])
    return batch, torch.arange(batch.shape[1]) < lengths[:, None]


def _transformers(config: Any) -> Call:
    import transformers

    layer_norm = config.conv_norm == "layer"
    model = transformers.Wav2Vec2Model(
        transformers.Wav2Vec2Config(
            hidden_size=config.dim,
            num_hidden_layers=config.num_layers,
            num_attention_heads=config.num_heads,
            intermediate_size=config.ffn_dim,
            feat_extract_norm=config.conv_norm,
            conv_bias=config.conv_bias,
            do_stable_layer_norm=config.pre_norm,
        )
    ).eval()

    def call(wavs: list[Tensor]) -> object:
        batch, mask = padded(wavs)
        if layer_norm:
            batch = torch.stack([torch.nn.functional.layer_norm(row, row.shape) for row in batch])
        return model(batch, attention_mask=mask.long() if len(wavs) > 1 else None, output_hidden_states=True)

    return call


def _s3prl(config: Any) -> Call:
    from s3prl.upstream.wav2vec2.wav2vec2_model import Wav2Vec2Config, Wav2Vec2Model

    model = Wav2Vec2Model(
        Wav2Vec2Config(
            encoder_layers=config.num_layers,
            encoder_embed_dim=config.dim,
            encoder_ffn_embed_dim=config.ffn_dim,
            encoder_attention_heads=config.num_heads,
            extractor_mode="default" if config.conv_norm == "group" else "layer_norm",
            conv_bias=config.conv_bias,
            layer_norm_first=config.pre_norm,
        )
    ).eval()

    def call(wavs: list[Tensor]) -> object:
        batch, mask = padded(wavs)
        return model.extract_features(batch, padding_mask=~mask if len(wavs) > 1 else None)

    return call


def _torchaudio(config: Any) -> Call:
    from torchaudio.models import wav2vec2_model

    model = wav2vec2_model(
        extractor_mode="group_norm" if config.conv_norm == "group" else "layer_norm",
        extractor_conv_layer_config=None,
        extractor_conv_bias=config.conv_bias,
        encoder_embed_dim=config.dim,
        encoder_projection_dropout=0.0,
        encoder_pos_conv_kernel=config.pos_conv_kernel,
        encoder_pos_conv_groups=config.pos_conv_groups,
        encoder_num_layers=config.num_layers,
        encoder_num_heads=config.num_heads,
        encoder_attention_dropout=0.0,
        encoder_ff_interm_features=config.ffn_dim,
        encoder_ff_interm_dropout=0.0,
        encoder_dropout=0.0,
        encoder_layer_norm_first=config.pre_norm,
        encoder_layer_drop=0.0,
        aux_num_out=None,
    ).eval()

    def call(wavs: list[Tensor]) -> object:
        batch, _ = padded(wavs)
        lengths = torch.tensor([len(wav) for wav in wavs]) if len(wavs) > 1 else None
        return model.extract_features(batch, lengths)

    return call


MAKERS: dict[str, Callable[[Any], Call]] = {"transformers": _transformers, "s3prl": _s3prl, "torchaudio": _torchaudio}


def flops(config: Any, samples: int) -> float:
    """Floating point operations of one utterance of its true length: convolutions, linear layers, attention."""
    total, channels, length = 0.0, 1, samples
    for out, kernel, stride in config.conv_layers:
        length = (length - kernel) // stride + 1
        total += 2.0 * length * out * channels * kernel
        channels = out
    dim = config.dim
    block = 2 * (4 * dim * dim + 2 * dim * config.ffn_dim) + 4 * length * dim
    positions = 2 * dim * (dim // config.pos_conv_groups) * config.pos_conv_kernel
    return float(total + length * (2 * channels * dim + positions + config.num_layers * block))
