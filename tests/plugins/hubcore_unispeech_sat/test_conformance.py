"""UniSpeech-SAT keeps the whole contract, in both of its shapes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hubcore.testing import parametrize_with_checks
from hubcore_unispeech_sat import UniSpeechSatConfig, UniSpeechSatUpstream
from tests.conformance.families import EXEMPT
from tests.plugins.hubcore_wav2vec2.test_conformance import SMALL

BASE = UniSpeechSatConfig(**vars(SMALL))


def base_style() -> UniSpeechSatUpstream:
    return UniSpeechSatUpstream(BASE)


def large_style() -> UniSpeechSatUpstream:
    return UniSpeechSatUpstream(replace(BASE, conv_norm="layer", pre_norm=True, normalize=True))


@parametrize_with_checks([base_style, large_style], exempt=EXEMPT)
def test_contract(upstream: Any, check: Any) -> None:
    check(upstream)
