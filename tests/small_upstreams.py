"""One small upstream of every first-party family, with weights that hide nothing: no zero bias, no norm of ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from hubcore.nn.encoder_upstream import EncoderUpstream
from hubcore_cpc import CpcUpstream
from hubcore_data2vec import Data2VecUpstream
from hubcore_data2vec2 import Data2Vec2Upstream
from hubcore_distilhubert import DistilHubertUpstream
from hubcore_fbank import FbankUpstream
from hubcore_hubert import HubertUpstream
from hubcore_ofa_wav2vec2 import OfaWav2Vec2Upstream
from hubcore_unispeech_sat import UniSpeechSatUpstream
from hubcore_w2v_bert import W2vBertUpstream
from hubcore_wav2vec2 import Wav2Vec2Upstream
from hubcore_wav2vec2_conformer import Wav2Vec2ConformerUpstream
from hubcore_wavlm import WavLMUpstream
from hubcore_whisper import WhisperUpstream

_BLOCKS: dict[str, Any] = {"dim": 16, "num_layers": 1, "num_heads": 2, "ffn_dim": 16}
_FRONT: dict[str, Any] = {**_BLOCKS, "conv_layers": ((8, 10, 5), (8, 3, 2))}
_SPEECH: dict[str, Any] = {**_FRONT, "pos_conv_kernel": 8}
_SLOW: dict[str, Any] = {**_SPEECH, "conv_layers": ((8, 10, 5), (8, 8, 8), (8, 8, 8))}
_LAYER: dict[str, Any] = {"conv_norm": "layer", "conv_bias": True, "pre_norm": True, "normalize": True}


def _make(cls: Any, config: Any = None, **options: Any) -> Callable[[], EncoderUpstream]:
    def build() -> EncoderUpstream:
        torch.manual_seed(0)
        upstream: EncoderUpstream = cls.from_config(cls.config_class() if config is None else config, **options).eval()
        for weight in upstream.parameters():
            weight.data.add_(0.05 * torch.randn_like(weight))
        return upstream

    return build


FAMILIES: dict[str, Callable[[], EncoderUpstream]] = {
    "wav2vec2": _make(Wav2Vec2Upstream, **_SPEECH),
    "hubert": _make(HubertUpstream, **_SPEECH, **_LAYER),
    "wavlm": _make(WavLMUpstream, **_SPEECH, num_buckets=32, max_distance=80),
    "unispeech_sat": _make(UniSpeechSatUpstream, **_SPEECH),
    "data2vec": _make(Data2VecUpstream, **_FRONT, pos_conv_kernel=5),
    "data2vec2": _make(Data2Vec2Upstream, **_FRONT, pos_conv_kernel=5, prenet_layers=1, extra_tokens=3),
    "wav2vec2_conformer": _make(Wav2Vec2ConformerUpstream, **_FRONT, positions="relative"),
    "w2v_bert": _make(W2vBertUpstream, **_BLOCKS),
    "whisper": _make(WhisperUpstream, **_BLOCKS, positions=50),
    "distilhubert": _make(DistilHubertUpstream, **_SPEECH, prediction_dim=8, prediction_inner_dim=8),
    "cpc": _make(CpcUpstream, encoder_dim=8, context_dim=8),
    "ofa_wav2vec2": _make(OfaWav2Vec2Upstream, **_SLOW),
    "fbank": _make(FbankUpstream, "fbank"),
}
"""Family -> what builds it; the others of a family that compute otherwise are in `VARIANTS`."""

VARIANTS: dict[str, Callable[[], EncoderUpstream]] = {
    "batch norm of positions": _make(HubertUpstream, **_SPEECH, pos_conv_norm="batch"),
    "rotary": _make(Wav2Vec2ConformerUpstream, **_FRONT, positions="rotary"),
    "gru of two levels": _make(CpcUpstream, encoder_dim=8, context_dim=8, context_net="gru", num_levels=2),
    "no padding to a window": _make(WhisperUpstream, **_BLOCKS, positions=50, pad=False),
    "a frame period": _make(OfaWav2Vec2Upstream, **_SPEECH, lambd_range=(0.0, 2.0), frame_period_ms=9.0, tail="keep"),
    "fewer frames than one": _make(OfaWav2Vec2Upstream, **_SPEECH, lambd_range=(0.0, 2.0), lambd=1.999),
    **{name: _make(FbankUpstream, name) for name in ("mfcc", "mel", "linear", "spectrogram", "fbank_no_cmvn")},
}
