"""What a check of a plugin saw: `PluginReport`, its steps and its findings."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Result = Literal["ok", "finding", "not checked"]
_PLACE = re.compile(r"(?P<file>[^\n]+?), line (?P<line>\d+)(?:: (?P<rest>.+))?", re.DOTALL)

_YAML_PLACE = re.compile(r"line (\d+), column \d+")


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    Example:
        >>> print(Finding("a/registry.yaml", 3, "'ours' has no 'license'.", "Add it."))
        a/registry.yaml, line 3: 'ours' has no 'license'. Add it.
    """

    file: str | None
    """Where to mend it; None if no file is known."""
    line: int | None
    """The line in it; None if it is about the file as a whole."""
    cause: str
    """What is wrong."""
    remedy: str
    """What to do."""

    @classmethod
    def of(cls, message: str, place: str = "", remedy: str = "") -> Finding:
        """The finding that a message of hubcore's makes: its last sentence says what to do, its first words may say where.

        Args:
            message: what happened, what is true, what to do.
            place: `file` or `file, line N`, if the message does not begin with it.
            remedy: what to do, if the message does not end with it.

        Example:
            >>> Finding.of("a.yaml, line 3: 'ours' has no 'license'. Add it.").remedy
            'Add it.'
        """
        found = _PLACE.fullmatch(message)
        if found and found["rest"]:
            place, message = f"{found['file']}, line {found['line']}", found["rest"]
        at = _PLACE.fullmatch(place)
        file, line = (at["file"], int(at["line"])) if at else (place or None, None)
        if file and line is None:
            inside = _YAML_PLACE.search(message)
            line = int(inside[1]) if inside else None
        message = message.removeprefix(f"{file}: ").strip()
        if remedy:
            return cls(file, line, message, remedy)
        sentences = re.split(r"(?<=[.!?])\s+(?=[A-Z`])", message)
        if len(sentences) == 1:
            return cls(file, line, message, "Mend it there.")
        return cls(file, line, " ".join(sentences[:-1]), sentences[-1])

    def __str__(self) -> str:
        place = f"{self.file}, line {self.line}: " if self.line else f"{self.file}: " if self.file else ""
        return f"{place}{self.cause} {self.remedy}"


@dataclass(frozen=True)
class Step:
    """One thing that was looked at."""

    what: str
    """`entry points`, `listing`, `cards`, `names`, `class`, `conformance` or `hooks`; `process` where that was ended."""
    name: str
    """What it was about."""
    result: Result
    """`not checked` where something is missing here that is no fault of the plugin's."""
    detail: str
    """What was seen; for `not checked`, why, and the command that changes it."""


def listed(names: Iterable[str], most: int = 3) -> str:
    """Names as text, the first few of them if there are many.

    Example:
        >>> listed("abcde"), listed([])
        ('a, b, c and 2 more', 'none')
    """
    names = [*names]
    return (", ".join(names[:most]) or "none") + (f" and {len(names) - most} more" if len(names) > most else "")


@dataclass
class PluginReport:
    """What `check_plugin` saw.

    Example:
        >>> report = PluginReport("acme-speech", "1.0")
        >>> report.add("names", "acme", [], "1 name, all its own")
        >>> report.ok, report.steps[0].result
        (True, 'ok')
    """

    distribution: str
    """The distribution's name, as its metadata spells it."""
    version: str
    """Its version."""
    steps: list[Step] = field(default_factory=list)
    """Everything that was looked at, in order."""
    findings: list[Finding] = field(default_factory=list)
    """Everything that is wrong."""

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong; what could not be checked does not count."""
        return not self.findings

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return {**dataclasses.asdict(self), "ok": self.ok}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> PluginReport:
        """The report that `to_dict` made `data` of."""
        steps = [Step(**step) for step in data["steps"]]
        return cls(data["distribution"], data["version"], steps, [Finding(**finding) for finding in data["findings"]])

    def add(self, what: str, name: str, findings: Iterable[Finding], detail: str) -> None:
        """Records a step: what it found, or, if it found nothing, what it saw."""
        wrong = list(findings)
        said = f"{len(wrong)} finding{'s' * (len(wrong) > 1)}" if wrong else detail
        self.steps.append(Step(what, name, "finding" if wrong else "ok", said))
        self.findings += wrong

    def skip(self, what: str, name: str, why: str) -> None:
        """Records what could not be checked here."""
        self.steps.append(Step(what, name, "not checked", why))
