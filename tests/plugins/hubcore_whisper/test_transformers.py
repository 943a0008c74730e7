"""A model that transformers saves gives transformers' hidden states."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hubcore_whisper import WhisperUpstream
from tests.gold import gold_wavs, relative_error
from tests.hugging_face import transformers

pytestmark = pytest.mark.slow


@torch.no_grad()
def test_hidden_states_are_equal(tmp_path: Path) -> None:
    torch.manual_seed(7)
    sizes = {"d_model": 64, "encoder_layers": 3, "encoder_attention_heads": 4, "encoder_ffn_dim": 256}
    decoder = {"decoder_layers": 1, "decoder_attention_heads": 4, "decoder_ffn_dim": 64, "vocab_size": 64, "pad_token_id": 0}
    tokens = {"bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 3}
    model = transformers.WhisperModel(transformers.WhisperConfig(**sizes, **decoder, **tokens)).eval()
    for weight in model.parameters():  # fresh norms and biases are ones and zeros, which would hide a mistake
        weight.add_(0.02 * torch.randn_like(weight))
    model.save_pretrained(tmp_path)
    front = transformers.WhisperFeatureExtractor()
    front.save_pretrained(tmp_path)
    upstream = WhisperUpstream.from_checkpoint(tmp_path)
    wav = gold_wavs()[2]
    features = front(wav.numpy(), sampling_rate=16000, return_tensors="pt").input_features
    wanted = model.encoder(features, output_hidden_states=True).hidden_states
    out = upstream([wav])
    (frames,) = out.lengths.tolist()
    errors = [relative_error(mine[0], theirs[0, :frames]) for mine, theirs in zip(out.hidden_states, wanted, strict=True)]
    assert frames == 161 and len(errors) == 4 and max(errors) <= 1e-4
