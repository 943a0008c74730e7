"""wav2vec 2.0 conformers keep the whole contract, in each of their shapes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hubcore.testing import parametrize_with_checks
from hubcore_wav2vec2_conformer import Wav2Vec2ConformerConfig, Wav2Vec2ConformerUpstream
from tests.conformance.families import EXEMPT

SMALL = Wav2Vec2ConformerConfig(
    conv_layers=((32, 10, 5), (32, 8, 8), (32, 8, 8)),
    conv_norm="layer",
    dim=32,
    num_layers=2,
    num_heads=2,
    ffn_dim=48,
    pre_norm=True,
    normalize=True,
    depthwise_kernel=7,
    dropout=0.1,
    attention_dropout=0.1,
    activation_dropout=0.1,
    conv_dropout=0.1,
)


def relative() -> Wav2Vec2ConformerUpstream:
    return Wav2Vec2ConformerUpstream(SMALL)


def rotary_norm_first_of_all() -> Wav2Vec2ConformerUpstream:
    config = replace(SMALL, positions="rotary", pre_norm=False, conv_norm="group", input_projection=False, activation="gelu")
    return Wav2Vec2ConformerUpstream(config)


@parametrize_with_checks([relative, rotary_norm_first_of_all], exempt=EXEMPT)
def test_contract(upstream: Any, check: Any) -> None:
    check(upstream)
