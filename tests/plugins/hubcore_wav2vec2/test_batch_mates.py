"""Promise 1 at full size: an utterance's hidden states do not depend on what it is batched with."""

from __future__ import annotations

import itertools

import pytest
import torch

from hubcore_wav2vec2 import CONFIGS, Wav2Vec2Upstream

SECONDS = (0.5, 1.0, 3.0, 18.0)
LOUDNESS = (0.1, 1.0, 0.01, 0.3)


@torch.inference_mode()
@pytest.mark.slow
def test_full_size_base() -> None:
    torch.manual_seed(3)
    model = Wav2Vec2Upstream(CONFIGS["base"]).eval()
    wavs = [loud * torch.randn(int(16000 * s)) for s, loud in zip(SECONDS, LOUDNESS, strict=True)]
    alone = [model([wav]).hidden_states for wav in wavs]
    for order in ((3, 1, 0, 2),):
        batch = model([wavs[i] for i in order])
        for (row, i), k in itertools.product(enumerate(order), range(13)):
            wanted = alone[i][k][0]
            error = (batch.hidden_states[k][row, : len(wanted)] - wanted).abs().max() / wanted.abs().max()
            assert error <= 2e-5, f"{SECONDS[i]} s, hidden state {k}"


@torch.inference_mode()
@pytest.mark.parametrize("name", ["group", "layer"])
@pytest.mark.slow
def test_full_width_extractor_in_chunks(name: str) -> None:
    # The extractor works through the signal in chunks; where they fall must not matter.
    torch.manual_seed(4)
    extractor = Wav2Vec2Upstream(CONFIGS["base" if name == "group" else "large_lv60k"].__class__(conv_norm=name, num_layers=1))
    wavs = [torch.randn(n) for n in (400, 16123, 4799, 719)]
    wanted, _ = extractor.model.extract(wavs)
    for chunk in (1, 7, 1000):
        extractor.model.extractor.chunk = chunk
        got, _ = extractor.model.extract(wavs)
        assert (got - wanted).abs().max() <= 2e-5 * wanted.abs().max()
