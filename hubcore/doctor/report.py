"""`PluginReport`: what an examination of a plugin saw, step by step, and what is wrong."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from hubcore.findings import Finding
from hubcore.text import plural


@dataclass(frozen=True)
class Step:
    """One thing that was looked at."""

    what: str
    """`entry points`, `listing`, `cards`, `names`, `class`, `conformance`, `objective` or `hooks`; `process` if that ended."""
    name: str
    """Subject of the step."""
    result: Literal["ok", "finding", "not checked"]
    """`not checked` where something is missing here that is no fault of the plugin's."""
    detail: str
    """Result in words; for `not checked` the reason, and the command that changes it."""


@dataclass
class PluginReport:
    """Report of `check_plugin`.

    Example:
        >>> report = PluginReport("acme-speech", "1.0")
        >>> report.add("names", "acme", [], "1, each its own")
        >>> report.ok, report.steps[0].result
        (True, 'ok')
    """

    distribution: str
    """The distribution's name, as its metadata spells it."""
    version: str
    """Its version."""
    brings: str = ""
    """Its entry points, for people."""
    steps: list[Step] = field(default_factory=list)
    """Everything that was looked at, in order."""
    findings: list[Finding] = field(default_factory=list)
    """Everything that is wrong."""
    seconds: float = 0.0
    """Seconds that its imports took, without torch's."""

    @property
    def ok(self) -> bool:
        """True if nothing is wrong; warnings and steps that were not checked do not count."""
        return all(finding.warning for finding in self.findings)

    def add(self, what: str, name: str, findings: Iterable[Finding], detail: str) -> None:
        """Records a step: what it found, or, if it found nothing, what it saw."""
        found = [*findings]
        said = plural(len(found), "finding") if found else detail
        self.steps.append(Step(what, name, "finding" if found else "ok", said))
        self.findings += found

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        findings = [
            {"file": found.file or None, "line": found.line, "cause": found.what, "remedy": found.fix, "warning": found.warning}
            for found in self.findings
        ]
        about = {"distribution": self.distribution, "version": self.version, "steps": [vars(step) for step in self.steps]}
        return {**about, "findings": findings, "ok": self.ok}
