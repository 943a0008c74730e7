"""w2v-BERT 2.0 keeps the whole contract, with each kind of positions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hubcore.testing import parametrize_with_checks
from hubcore_w2v_bert import W2vBertConfig, W2vBertUpstream
from tests.conformance.families import EXEMPT

SMALL = W2vBertConfig(
    dim=32,
    num_layers=2,
    num_heads=2,
    ffn_dim=48,
    left_distance=4,
    right_distance=2,
    depthwise_kernel=7,
    dropout=0.1,
    attention_dropout=0.1,
    activation_dropout=0.1,
    conv_dropout=0.1,
)


def relative_keys() -> W2vBertUpstream:
    return W2vBertUpstream(SMALL)


def rotary_frames_of_30_ms() -> W2vBertUpstream:
    return W2vBertUpstream(replace(SMALL, positions="rotary", num_mel_bins=40, stack=3))


@parametrize_with_checks([relative_keys, rotary_frames_of_30_ms], exempt=EXEMPT)
def test_contract(upstream: Any, check: Any) -> None:
    check(upstream)
