"""DistilHuBERT keeps the whole contract, with prediction heads and without."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hubcore.testing import parametrize_with_checks
from hubcore_distilhubert import DistilHubertConfig, DistilHubertUpstream
from tests.conformance.families import EXEMPT
from tests.plugins.hubcore_wav2vec2.test_conformance import SMALL

HEADS = {"predicted_layers": (4, 8, 12), "prediction_dim": 24, "prediction_inner_dim": 16}


def with_heads() -> DistilHubertUpstream:
    return DistilHubertUpstream(replace(DistilHubertConfig(**vars(SMALL)), feature_norm=False, **HEADS))


def as_in_transformers() -> DistilHubertUpstream:
    return DistilHubertUpstream(replace(DistilHubertConfig(**vars(SMALL)), feature_norm=False, normalize=True))


@parametrize_with_checks([with_heads, as_in_transformers], exempt=EXEMPT)
def test_contract(upstream: Any, check: Any) -> None:
    check(upstream)
