"""`check_upstream`: every check on one upstream, and a report that a person can read."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from hubcore.protocol import Upstream
from hubcore.testing.checks import CHECKS
from hubcore.testing.compare import one_thread
from hubcore.testing.exemptions import Exemptions

Outcome = Literal["passed", "failed", "exempt"]


@dataclass(frozen=True)
class CheckResult:
    """Result of one check."""

    name: str
    """The check's key in `CHECKS`."""
    outcome: Outcome
    """`exempt` if an exemption names the whole check, whether it would pass or not."""
    detail: str
    """Difference found, or reason of the exemption; empty if it passed."""
    seconds: float
    """Wall-clock time of the check, in seconds."""


@dataclass(frozen=True)
class ConformanceReport:
    """Results of all checks; `str(report)` is a table for people.

    Example:
        >>> report = ConformanceReport("ToyUpstream", (CheckResult("determinism", "passed", "", 0.01),))
        >>> report.ok
        True
        >>> print(report)
        ToyUpstream: 1 passed, 0 failed, 0 exempt
          passed  determinism
    """

    upstream: str
    """The upstream's class, and the name of its card if it has one."""
    results: tuple[CheckResult, ...]
    """One for each check, in the order of `CHECKS`."""

    @property
    def ok(self) -> bool:
        """True if no check failed."""
        return not self.failures

    @property
    def failures(self) -> tuple[CheckResult, ...]:
        """The checks that failed."""
        return tuple(result for result in self.results if result.outcome == "failed")

    def raise_failures(self) -> None:
        """Raises `AssertionError` with the whole report if a check failed."""
        if self.failures:
            raise AssertionError(str(self))

    def __str__(self) -> str:
        counts = [f"{sum(r.outcome == kind for r in self.results)} {kind}" for kind in ("passed", "failed", "exempt")]
        lines = [f"{self.upstream}: {', '.join(counts)}"]
        for result in self.results:
            lines.append(f"  {result.outcome:6}  {result.name}" + (f": {result.detail}" if result.detail else ""))
        return "\n".join(lines)


def check_upstream(upstream: Upstream, exempt: Mapping[str, str] | None = None) -> ConformanceReport:
    """Runs every check on `upstream`, whatever the others find, and reports; nothing about the upstream is changed.

    Args:
        upstream: the instance to check. An upstream that is not an `nn.Module` passes the checks that concern modules.
        exempt: check to the reason why it need not pass: `{"determinism": "samples on purpose"}`; for parameters,
            `{"gradients_nonzero:*.gate": "the gate starts at zero"}`. An exempt check runs and is reported as exempt.

    Raises:
        OptionError: an exemption names no check or gives no reason.

    Example:
        >>> from hubcore import hub
        >>> from hubcore.testing import check_upstream
        >>> check_upstream(hub.load("fbank")).ok
        True
    """
    exemptions = Exemptions.parse(exempt)
    with one_thread():
        results = tuple(_result(upstream, name, exemptions) for name in CHECKS)
    return ConformanceReport(upstream_title(upstream), results)


def _result(upstream: Upstream, name: str, exemptions: Exemptions) -> CheckResult:
    began = time.perf_counter()
    complaint = ""
    try:
        exemptions.bind(name)(upstream)
    except AssertionError as error:
        complaint = str(error) or "an assertion without a message failed."
    except Exception as error:
        # A broken upstream may raise anything; a report must continue with the next check.
        complaint = f"raised {type(error).__name__}: {error}"
    seconds = time.perf_counter() - began
    reason = exemptions.checks.get(name)
    if reason is not None:
        state = f"fails: {complaint}" if complaint else "passes now, so the exemption may go"
        return CheckResult(name, "exempt", f"{reason} ({state})", seconds)
    return CheckResult(name, "failed" if complaint else "passed", complaint, seconds)


def upstream_title(upstream: Upstream) -> str:
    """Name of an upstream in reports: its class and, if it has a card, the card's name."""
    card = getattr(upstream, "card", None)
    name = getattr(card, "name", None)
    return type(upstream).__name__ + (f" ({name})" if name else "")
