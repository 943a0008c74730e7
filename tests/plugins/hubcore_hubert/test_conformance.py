"""HuBERT keeps the whole contract, in each of its shapes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hubcore.testing import parametrize_with_checks
from hubcore_hubert import HubertConfig, HubertUpstream
from tests.conformance.families import EXEMPT
from tests.plugins.hubcore_wav2vec2.test_conformance import SMALL

BASE = HubertConfig(**vars(SMALL))


def base_style() -> HubertUpstream:
    return HubertUpstream(BASE)


def batch_norm_positions() -> HubertUpstream:
    return HubertUpstream(replace(BASE, pos_conv_norm="batch", feature_norm=False))


def large_style() -> HubertUpstream:
    return HubertUpstream(replace(BASE, conv_norm="layer", pre_norm=True, normalize=True))


@parametrize_with_checks([base_style, batch_norm_positions, large_style], exempt=EXEMPT)
def test_contract(upstream: Any, check: Any) -> None:
    check(upstream)
