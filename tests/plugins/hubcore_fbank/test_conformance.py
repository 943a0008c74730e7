"""Signal upstreams keep the whole contract."""

from __future__ import annotations

from typing import Any

from hubcore.testing import parametrize_with_checks
from tests.conformance.families import registered


@parametrize_with_checks(registered("fbank"))
def test_contract(upstream: Any, check: Any) -> None:
    check(upstream)
