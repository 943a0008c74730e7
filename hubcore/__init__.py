"""hubcore: self-supervised speech upstreams by name or by class, one uniform call, exact features.

Importing this package imports no torch: every public name is loaded when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from hubcore.version import VERSION

if TYPE_CHECKING:
    from hubcore import audio, errors, hub, testing
    from hubcore.card import Card, Source
    from hubcore.errors import HubcoreError
    from hubcore.featurizer import Featurizer
    from hubcore.hookspecs import hookimpl
    from hubcore.protocol import Upstream, UpstreamOutput
    from hubcore.upstream import UpstreamBase

__version__ = VERSION

__all__ = [
    "Card",
    "Featurizer",
    "HubcoreError",
    "Source",
    "Upstream",
    "UpstreamBase",
    "UpstreamOutput",
    "audio",
    "errors",
    "hookimpl",
    "hub",
    "testing",
]

_MODULE_OF = {
    "Card": "hubcore.card",
    "Featurizer": "hubcore.featurizer",
    "HubcoreError": "hubcore.errors",
    "Source": "hubcore.card",
    "Upstream": "hubcore.protocol",
    "UpstreamBase": "hubcore.upstream",
    "UpstreamOutput": "hubcore.protocol",
    "hookimpl": "hubcore.hookspecs",
}
_SUBMODULES = ("audio", "errors", "hub", "testing")


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return importlib.import_module(f"hubcore.{name}")
    if name in _MODULE_OF:
        return getattr(importlib.import_module(_MODULE_OF[name]), name)
    raise AttributeError(f"module 'hubcore' has no attribute {name!r}; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
