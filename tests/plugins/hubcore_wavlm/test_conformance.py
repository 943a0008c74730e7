"""WavLM keeps the whole contract, in both of its shapes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hubcore.testing import parametrize_with_checks
from hubcore_wavlm import WavLMConfig, WavLMUpstream
from tests.conformance.families import EXEMPT
from tests.plugins.hubcore_wav2vec2.test_conformance import SMALL

BASE = WavLMConfig(**vars(SMALL), num_buckets=32, max_distance=80)


def base_style() -> WavLMUpstream:
    return WavLMUpstream(BASE)


def large_style() -> WavLMUpstream:
    return WavLMUpstream(replace(BASE, conv_norm="layer", pre_norm=True, normalize=True))


@parametrize_with_checks([base_style, large_style], exempt=EXEMPT)
def test_contract(upstream: Any, check: Any) -> None:
    check(upstream)
