"""The wav2vec 2.0 encoder: the core's `SpeechEncoder` as it is."""

from __future__ import annotations

from hubcore.nn.speech_encoder import SpeechEncoder, build_speech_encoder

Wav2Vec2Model = SpeechEncoder
build_model = build_speech_encoder
