"""Exemptions: what an upstream need not fulfil, each with a written reason."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from hubcore.errors import OptionError, nearest_hint
from hubcore.testing.checks import CHECKS, Check


@dataclass(frozen=True)
class Exemptions:
    """The exemptions of one test, validated.

    Example:
        >>> exempt = Exemptions.parse({"gradients_nonzero:*.gate": "the gate starts at zero"})
        >>> exempt.patterns["gradients_nonzero"]
        {'*.gate': 'the gate starts at zero'}
    """

    checks: Mapping[str, str]
    """Name of an exempt check to the reason."""
    patterns: Mapping[str, Mapping[str, str]]
    """Name of a check to its exempt parameters: a glob pattern of their names to the reason."""

    @classmethod
    def parse(cls, exempt: Mapping[str, str] | None) -> Exemptions:
        """Exemptions from `{"check": reason}` and, for the gradient checks, `{"check:pattern of parameters": reason}`.

        Raises:
            OptionError: no such check, no reason, or a pattern for a check that does not look at parameters.
        """
        checks: dict[str, str] = {}
        patterns: dict[str, dict[str, str]] = {}
        for key, reason in (exempt or {}).items():
            name, colon, pattern = key.partition(":")
            if name not in CHECKS:
                raise OptionError(f"exempt names the check {name!r}, and there is none.", nearest_hint(name, CHECKS))
            if not isinstance(reason, str) or not reason.strip():
                raise OptionError(
                    f"exempt gives {reason!r} as the reason for {key!r}. An exemption without a reason cannot be judged. "
                    "Write one sentence that says why the upstream need not pass this check."
                )
            if not colon:
                checks[name] = reason
            elif not pattern or not _takes_parameters(CHECKS[name]):
                able = ", ".join(name for name, check in CHECKS.items() if _takes_parameters(check))
                raise OptionError(
                    f"exempt has {key!r}. Only {able} can be exempted for a part of the parameters. "
                    f"Write {name!r} to exempt the whole check."
                )
            else:
                patterns.setdefault(name, {})[pattern] = reason
        return cls(checks, patterns)

    def bind(self, name: str) -> Check:
        """The check called `name`, with the exempt parameters left out.

        The check fails where a pattern matches no parameter: such an exemption is out of date.
        """
        patterns = self.patterns.get(name)
        if not patterns:
            return CHECKS[name]
        check = CHECKS[name]

        @functools.wraps(check)
        def without_exempt(upstream: Any, **options: Any) -> None:
            names = [n for n, _ in upstream.named_parameters()] if isinstance(upstream, nn.Module) else []
            for pattern in patterns:
                if not any(fnmatchcase(n, pattern) for n in names):
                    raise AssertionError(f"the exemption {name}:{pattern} matches no parameter; it is out of date.")
            left_out = frozenset(n for n in names if any(fnmatchcase(n, pattern) for pattern in patterns))
            check(upstream, exempt_parameters=left_out, **options)

        return without_exempt


def _takes_parameters(check: Check) -> bool:
    return "exempt_parameters" in inspect.signature(check).parameters
