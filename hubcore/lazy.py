"""`lazy_exports`: public names of a package that are imported when they are first used (PEP 562). Imports no torch.

`needs` imports an optional package.
"""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Callable
from functools import cache
from importlib.util import resolve_name
from typing import Any

from hubcore.errors import OptionError


def lazy_exports(package: str) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` of a package whose public names are the imports under its `if TYPE_CHECKING:`.

    Type checkers and editors read these imports as they are (`as` makes a name public); Python runs each when its name is
    first used, so that listing upstreams imports no torch:

        if TYPE_CHECKING:
            from acme_speech.config import CONFIGS as CONFIGS
            from acme_speech.upstream import AcmeUpstream as AcmeUpstream

        __getattr__, __dir__ = lazy_exports(__name__)

    `__all__` holds the same names.

    Args:
        package: the package's `__name__`.

    Example:
        >>> import hubcore_fbank
        >>> get, names = lazy_exports("hubcore_fbank")
        >>> names(), "fbank" in get("CONFIGS")
        (['CONFIGS', 'FbankConfig', 'FbankUpstream'], True)
    """

    @cache
    def modules() -> dict[str, str]:
        return dict(sorted(_type_checking_imports(package)))

    def get(name: str) -> Any:
        if name == "__all__":
            return list(modules())
        if name.startswith("__") or name not in modules():
            raise AttributeError(f"module {package!r} has no attribute {name!r}; it has {', '.join(modules())}")
        if modules()[name] == package:
            return importlib.import_module(f"{package}.{name}")
        return getattr(importlib.import_module(modules()[name]), name)

    return get, lambda: list(modules())


def needs(module: str, extra: str) -> Any:
    """The module of an optional package.

    Raises:
        OptionError: it is not installed; the message names hubcore's extra that brings it.

    Example:
        >>> needs("no_such_package", "hdf5")
        Traceback (most recent call last):
        hubcore.errors.OptionError: this needs the package no_such_package. Install it with: pip install 'hubcore[hdf5]'
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        what = f"this needs the package {module.partition('.')[0]}."
        raise OptionError(what, f"Install it with: pip install 'hubcore[{extra}]'") from error


def _type_checking_imports(package: str) -> list[tuple[str, str]]:
    """Name and module of each `from module import name as name` under `if TYPE_CHECKING:` in a package's `__init__.py`."""
    loader: Any = getattr(sys.modules[package], "__loader__", None)
    tree = ast.parse(loader.get_source(package) or "")
    lines = [line for node in tree.body if isinstance(node, ast.If) for line in node.body if isinstance(line, ast.ImportFrom)]
    modules = [resolve_name("." * line.level + (line.module or ""), package) for line in lines]
    return [(alias.asname, module) for line, module in zip(lines, modules, strict=True) for alias in line.names if alias.asname]
