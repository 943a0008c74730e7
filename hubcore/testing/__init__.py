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

from typing import TYPE_CHECKING

from hubcore.lazy import lazy_exports

if TYPE_CHECKING:
    from hubcore.testing.checks import CHECKS as CHECKS
    from hubcore.testing.checks import Check as Check
    from hubcore.testing.inputs import speech_like as speech_like
    from hubcore.testing.parametrize import parametrize_with_checks as parametrize_with_checks
    from hubcore.testing.reference import check_reference as check_reference
    from hubcore.testing.report import CheckResult as CheckResult
    from hubcore.testing.report import ConformanceReport as ConformanceReport
    from hubcore.testing.report import check_upstream as check_upstream

__getattr__, __dir__ = lazy_exports(__name__)
