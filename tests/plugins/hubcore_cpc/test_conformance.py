"""CPC keeps the whole contract, with each kind of recurrent network."""

from __future__ import annotations

from typing import Any

from hubcore.testing import parametrize_with_checks
from hubcore_cpc import CpcConfig, CpcUpstream


def lstm() -> CpcUpstream:
    return CpcUpstream(CpcConfig(encoder_dim=16, context_dim=8, num_levels=2))


def gru() -> CpcUpstream:
    return CpcUpstream(CpcConfig(encoder_dim=8, context_dim=8, context_net="gru"))


@parametrize_with_checks([lstm, gru])
def test_contract(upstream: Any, check: Any) -> None:
    check(upstream)
