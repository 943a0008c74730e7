"""The conformance kit: named checks that prove an upstream keeps hubcore's contract, for plugin authors too.

With pytest:

```python
from hubcore.testing import parametrize_with_checks

@parametrize_with_checks([MyUpstream])
def test_contract(upstream, check):
    check(upstream)
```

Without it, `check_upstream(upstream)` runs every check and returns a report. Whether the numbers are right is for
`check_reference(upstream, wavs, states, atol)`, with hidden states that the original implementation gave.
"""

from __future__ import annotations

from hubcore.testing.checks import CHECKS, Check
from hubcore.testing.inputs import speech_like
from hubcore.testing.parametrize import parametrize_with_checks
from hubcore.testing.reference import check_reference
from hubcore.testing.report import CheckResult, ConformanceReport, check_upstream

__all__ = [
    "CHECKS",
    "Check",
    "CheckResult",
    "ConformanceReport",
    "check_reference",
    "check_upstream",
    "parametrize_with_checks",
    "speech_like",
]
