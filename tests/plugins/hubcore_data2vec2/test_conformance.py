"""data2vec 2.0 and emotion2vec keep the whole contract, in each of their shapes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hubcore.testing import parametrize_with_checks
from hubcore_data2vec2 import Data2Vec2Config, Data2Vec2Upstream
from tests.conformance.families import EXEMPT
from tests.plugins.hubcore_data2vec.test_conformance import BASE

SMALL = Data2Vec2Config(**vars(BASE))
UNUSED = "as in the original, no hidden state of a pre-norm model includes the final norm"


def base_style() -> Data2Vec2Upstream:
    return Data2Vec2Upstream(SMALL)


def emotion2vec_style() -> Data2Vec2Upstream:
    return Data2Vec2Upstream(replace(SMALL, num_heads=6, prenet_layers=1, extra_tokens=3, alibi_scale="layer_and_head"))


def pre_norm_group_norm() -> Data2Vec2Upstream:
    changes = {"conv_norm": "group", "normalize": False, "pos_conv_pre_norm": True, "alibi_scale": "one"}
    return Data2Vec2Upstream(replace(SMALL, pre_norm=True, prenet_layers=1, extra_tokens=2, **changes))


@parametrize_with_checks([base_style, emotion2vec_style], exempt=EXEMPT)
def test_contract(upstream: Any, check: Any) -> None:
    check(upstream)


@parametrize_with_checks(
    [pre_norm_group_norm],
    exempt=EXEMPT | {f"{check}:model.encoder.norm.*": UNUSED for check in ("gradients_arrive", "gradients_nonzero")},
)
def test_contract_of_the_pre_norm_form(upstream: Any, check: Any) -> None:
    check(upstream)
