"""OFA wav2vec 2.0 keeps the whole contract, whatever its lambda is."""

from __future__ import annotations

from typing import Any

from hubcore import hub
from hubcore.testing import parametrize_with_checks
from tests.conformance.families import EXEMPT, registered

NO_ALPHA = "at lambda 0 every weight is 1 whatever alpha is, so alpha has no influence"


def at_0() -> Any:
    return hub.load("ofa_wav2vec2_tiny_prompts", lambd=0.0)


def at_1() -> Any:
    return hub.load("ofa_wav2vec2_tiny_prompts", lambd=1.0)


@parametrize_with_checks([*registered("ofa_wav2vec2"), at_1], exempt=EXEMPT)
def test_contract(upstream: Any, check: Any) -> None:
    check(upstream)


@parametrize_with_checks([at_0], exempt={**EXEMPT, "gradients_nonzero:*alpha_predictor*": NO_ALPHA})
def test_contract_at_lambda_0(upstream: Any, check: Any) -> None:
    check(upstream)
