"""Models saved by transformers, with every head, give transformers' hidden states."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hubcore_unispeech_sat import UniSpeechSatUpstream
from tests.gold import gold_wavs, relative_error
from tests.hugging_face import transformers
from tests.plugins.hubcore_wavlm.test_transformers import TINY, randomised, states_of

pytestmark = pytest.mark.slow

HEADS = ["ForPreTraining", "ForCTC", "ForXVector", "ForSequenceClassification", "ForAudioFrameClassification"]


@torch.no_grad()
@pytest.mark.parametrize("head", HEADS)
def test_a_head_is_ignored(head: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = transformers.UniSpeechSatConfig(**TINY, num_clusters=8, codevector_dim=16, proj_codevector_dim=16)
    model = randomised(getattr(transformers, f"UniSpeechSat{head}")(config))
    model.save_pretrained(tmp_path)
    wav = gold_wavs()[0]
    upstream = UniSpeechSatUpstream.from_checkpoint(tmp_path)
    wanted = states_of(model.unispeech_sat, wav)
    errors = [relative_error(mine[0], their) for mine, their in zip(upstream([wav]).hidden_states, wanted, strict=True)]
    assert len(errors) == 3 and max(errors) <= 2e-5
    assert len(upstream.load_report.ignored) >= 3
