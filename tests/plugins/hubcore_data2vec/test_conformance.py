"""data2vec audio keeps the whole contract, in each of its shapes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hubcore.testing import parametrize_with_checks
from hubcore_data2vec import Data2VecConfig, Data2VecUpstream
from tests.conformance.families import EXEMPT
from tests.plugins.hubcore_wav2vec2.test_conformance import SMALL

SHAPE = {name: value for name, value in vars(SMALL).items() if not name.startswith("pos_conv")}
BASE = Data2VecConfig(**{**SHAPE, "conv_norm": "layer", "normalize": True}, pos_conv_kernel=7)


def base_style() -> Data2VecUpstream:
    return Data2VecUpstream(BASE)


def pre_norm_group_norm() -> Data2VecUpstream:
    return Data2VecUpstream(replace(BASE, conv_norm="group", normalize=False, pre_norm=True, pos_conv_depth=2))


@parametrize_with_checks([base_style, pre_norm_group_norm], exempt=EXEMPT)
def test_contract(upstream: Any, check: Any) -> None:
    check(upstream)
