"""`CHECKS`: every check of the conformance kit, by name, in the order in which the modules define them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TypeAlias

from hubcore.testing import argument_checks, batch_checks, featurizer_checks, module_checks, output_checks, training_checks

Check: TypeAlias = Callable[..., None]
"""A check: called with an upstream, it raises `AssertionError` where the upstream breaks the contract."""

_MODULES = (output_checks, batch_checks, argument_checks, module_checks, training_checks, featurizer_checks)

CHECKS: Mapping[str, Check] = MappingProxyType(
    {
        name.removeprefix("check_"): check
        for module in _MODULES
        for name, check in vars(module).items()
        if name.startswith("check_")
    }
)
"""Name to check function, read-only: every `check_...` of these modules; `hubcore docs conformance` says what each proves."""
