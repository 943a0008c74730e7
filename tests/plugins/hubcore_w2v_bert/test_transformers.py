"""Both conformer families against transformers itself, on seeded weights and on utterances longer than its position tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from hubcore import hub
from tests.gold import relative_error
from tests.hugging_face import transformers

pytestmark = pytest.mark.slow
SIZES: dict[str, Any] = {
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 80,
    "max_source_positions": 60,
}
SAMPLES = [41_000, 9_999, 25_600]  # the first has 128 frames


def seeded(model: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    for name, weight in model.named_parameters():
        scale = weight.ndim == 1 and "norm" in name and name.endswith("weight")
        nn.init.normal_(weight, float(scale), weight[0].numel() ** -0.5 if weight.ndim > 1 else 0.2)
    for name, buffer in model.named_buffers():
        if "running" in name:
            nn.init.uniform_(buffer, 0.5, 1.5)
    return model.eval()


def compare(family: str, folder: Path, theirs: Any, extractor: Any) -> None:
    torch.manual_seed(1)
    wavs = [torch.randn(samples) * 0.1 for samples in SAMPLES]
    ours = hub.load(family, checkpoint=folder)(wavs)
    for row, wav in enumerate(wavs):
        inputs = extractor(wav.numpy(), sampling_rate=16000, return_tensors="pt")
        out = theirs(**inputs, output_hidden_states=True)
        wanted = [*out.hidden_states[:-1], out.last_hidden_state]
        frames = int(ours.lengths[row])
        errors = [relative_error(a[row, :frames], b[0, :frames]) for a, b in zip(ours.hidden_states, wanted, strict=True)]
        assert max(errors) <= 2e-5, errors


@pytest.mark.parametrize("positions", ["relative", "relative_key", "rotary", None])
@torch.no_grad()
def test_w2v_bert(positions: str | None, tmp_path: Path) -> None:
    config = transformers.Wav2Vec2BertConfig(**SIZES, position_embeddings_type=positions, conv_depthwise_kernel_size=9)
    model = seeded(transformers.Wav2Vec2BertModel(config))
    extractor = transformers.SeamlessM4TFeatureExtractor()
    model.save_pretrained(tmp_path)
    extractor.save_pretrained(tmp_path)
    compare("w2v_bert", tmp_path, model, extractor)


@pytest.mark.parametrize("norm", ["group", "layer"])
@pytest.mark.parametrize("positions", ["relative", "rotary", None])
@torch.no_grad()
def test_wav2vec2_conformer(positions: str | None, norm: str, tmp_path: Path) -> None:
    options = {"position_embeddings_type": positions, "conv_depthwise_kernel_size": 9, "num_conv_pos_embeddings": 8}
    options |= {"conv_dim": (32,) * 7, "num_conv_pos_embedding_groups": 4, "feat_extract_norm": norm, "hidden_act": "swish"}
    model = seeded(transformers.Wav2Vec2ConformerModel(transformers.Wav2Vec2ConformerConfig(**SIZES, **options)))
    extractor = transformers.Wav2Vec2FeatureExtractor(do_normalize=True)
    model.save_pretrained(tmp_path)
    extractor.save_pretrained(tmp_path)
    compare("wav2vec2_conformer", tmp_path, model, extractor)
