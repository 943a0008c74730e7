"""Models saved by transformers give transformers' hidden states: at published widths, over long distances, with every head."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from hubcore_wavlm import CONFIGS, WavLMUpstream
from tests.gold import gold_wavs, relative_error
from tests.hugging_face import transformers

pytestmark = pytest.mark.slow


LARGE: dict[str, Any] = {
    "hidden_size": 1024,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "feat_extract_norm": "layer",
    "do_stable_layer_norm": True,
}
TINY: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 32,
    "conv_dim": [16] * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
    "tdnn_dim": [16] * 5,
    "xvector_output_dim": 16,
}


def randomised(model: Any) -> Any:
    """The model with noise on every weight: fresh norms are ones, fresh positions nearly zeros, which would hide a mistake."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            scale = 1.0 if "rel_attn_embed" in name or "gru_rel_pos" in name else 0.02
            weight.add_(scale * torch.randn_like(weight))
    return model.eval()


@torch.no_grad()
def states_of(model: Any, wav: Tensor) -> list[Tensor]:
    """transformers' hidden states `(F, D)`; its last one lacks the final norm of pre-norm models."""
    out = model(wav[None], output_hidden_states=True)
    return [state[0] for state in (*out.hidden_states[:-1], out.last_hidden_state)]


@torch.no_grad()
def assert_states(folder: Path, wav: Tensor, wanted: list[Tensor]) -> WavLMUpstream:
    upstream = WavLMUpstream.from_checkpoint(folder)
    got = upstream([wav]).hidden_states
    errors = [relative_error(ours[0], theirs) for ours, theirs in zip(got, wanted, strict=True)]
    assert max(errors) <= 1e-4, errors
    return upstream


@pytest.mark.parametrize("name", ["base", "large"])
def test_two_blocks_of_the_published_width(name: str, tmp_path: Path) -> None:
    torch.manual_seed(7)
    options = LARGE if name == "large" else {}
    model = randomised(transformers.WavLMModel(transformers.WavLMConfig(**options, num_hidden_layers=2)))
    model.save_pretrained(tmp_path)
    wav = gold_wavs()[1]
    normalised = torch.nn.functional.layer_norm(wav, wav.shape) if name == "large" else wav
    upstream = assert_states(tmp_path, wav, states_of(model, normalised))
    assert [text.split()[0] for text in CONFIGS[name].differences(upstream.config)] == ["num_layers"]
    assert upstream.load_report.ignored == ("masked_spec_embed",)


def test_frames_that_are_further_apart_than_the_table_reaches(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = randomised(transformers.WavLMModel(transformers.WavLMConfig(**TINY)))
    model.save_pretrained(tmp_path)
    wav = torch.randn(16000 * 20)
    assert_states(tmp_path, wav, states_of(model, wav))


HEADS = ["WavLMForCTC", "WavLMForXVector", "WavLMForSequenceClassification", "WavLMForAudioFrameClassification"]


@pytest.mark.parametrize("head", HEADS)
def test_a_head_is_ignored(head: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = randomised(getattr(transformers, head)(transformers.WavLMConfig(**TINY, use_weighted_layer_sum=True)))
    model.save_pretrained(tmp_path)
    wav = gold_wavs()[0]
    upstream = assert_states(tmp_path, wav, states_of(model.wavlm, wav))
    ignored = upstream.load_report.ignored
    assert [name for name in ignored if name.startswith("wavlm.")] == ["wavlm.masked_spec_embed"] and len(ignored) >= 3
