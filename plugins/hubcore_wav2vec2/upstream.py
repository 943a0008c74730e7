"""`Wav2Vec2Upstream`: wav2vec 2.0 behind the uniform call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from hubcore.checkpoints import Reader
from hubcore.nn.encoder_upstream import SpeechEncoderUpstream
from hubcore_wav2vec2.checkpoint import READER
from hubcore_wav2vec2.config import CONFIGS, Wav2Vec2Config
from hubcore_wav2vec2.model import Wav2Vec2Model


class Wav2Vec2Upstream(SpeechEncoderUpstream):
    """wav2vec 2.0 (Baevski et al. 2020), XLSR-53 and XLS-R: the input of every block, then the encoder's output.

    Hidden state 0 (`input`) is the projected features with position embedding, layer-normed in post-norm models. Hidden
    state k (`block_k`) is the output of block k, counted from 1. The last is the encoder's output, which in pre-norm models
    (`pre_norm`) includes the final layer norm. These are s3prl's `hidden_states`.

    Each utterance's numbers are those it has alone: nothing is padded inside, see `hubcore.nn`.

    Example:
        >>> import torch
        >>> from hubcore_wav2vec2 import Wav2Vec2Upstream
        >>> model = Wav2Vec2Upstream.from_checkpoint("wav2vec2_tiny_prompts")
        >>> out = model([torch.randn(16000), torch.randn(8000)], layers=[0, -1])
        >>> [tuple(h.shape) for h in out.hidden_states], out.lengths.tolist()
        ([(2, 49, 96), (2, 49, 96)], [49, 24])
    """

    config_class: ClassVar[type[Wav2Vec2Config]] = Wav2Vec2Config
    configs: ClassVar[Mapping[str, Wav2Vec2Config]] = CONFIGS
    reader: ClassVar[Reader[Wav2Vec2Config, Wav2Vec2Model]] = READER
    config: Wav2Vec2Config
    model: Wav2Vec2Model
