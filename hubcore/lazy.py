"""`lazy_exports`: public names of a package that are imported when they are first used (PEP 562). Imports no torch."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any


def lazy_exports(package: str, module_of: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` of a package whose public names live in its modules.

    A package that uses it costs nothing to import, so that listing upstreams imports no torch:

        __getattr__, __dir__ = lazy_exports(__name__, {"AcmeUpstream": "upstream", "CONFIGS": "config"})

    Args:
        package: the package's `__name__`.
        module_of: public name -> the module of the package that defines it.

    Example:
        >>> get, names = lazy_exports("hubcore_fbank", {"CONFIGS": "config"})
        >>> names(), "fbank" in get("CONFIGS")
        (['CONFIGS'], True)
    """

    def get(name: str) -> Any:
        if name in module_of:
            return getattr(importlib.import_module(f"{package}.{module_of[name]}"), name)
        raise AttributeError(f"module {package!r} has no attribute {name!r}; it has {', '.join(module_of)}")

    return get, lambda: list(module_of)
