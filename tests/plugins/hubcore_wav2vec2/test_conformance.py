"""wav2vec 2.0 keeps the whole contract, in each of its shapes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hubcore.testing import parametrize_with_checks
from hubcore_wav2vec2 import CONFIGS, Wav2Vec2Upstream
from tests.conformance.families import EXEMPT, registered

SMALL = replace(CONFIGS["tiny"], num_layers=2, dropout=0.1, attention_dropout=0.1, activation_dropout=0.1)


def group_norm_post_norm() -> Wav2Vec2Upstream:
    return Wav2Vec2Upstream(SMALL)


def layer_norm_pre_norm_normalize() -> Wav2Vec2Upstream:
    return Wav2Vec2Upstream(replace(SMALL, conv_norm="layer", conv_bias=True, pre_norm=True, normalize=True))


def as_many_blocks_as_convolutions() -> Wav2Vec2Upstream:
    convolutions = ((32, 10, 5), (32, 8, 4))
    return Wav2Vec2Upstream(replace(SMALL, conv_layers=convolutions, input_projection=False, dim=32, pos_conv_kernel=9))


SHAPES = [group_norm_post_norm, layer_norm_pre_norm_normalize, as_many_blocks_as_convolutions]


@parametrize_with_checks([*registered("wav2vec2"), *SHAPES], exempt=EXEMPT)
def test_contract(upstream: Any, check: Any) -> None:
    check(upstream)
