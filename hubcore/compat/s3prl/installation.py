"""`install`: hubcore under the import name `s3prl`, for recipes that are not to be touched. Imports no torch."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import threading
from collections.abc import Mapping
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from hubcore.compat.s3prl import download, hub
from hubcore.errors import PluginError
from hubcore.version import VERSION

_HERE = "hubcore.compat.s3prl"
_CLASSES = {"Featurizer": f"{_HERE}.featurizer", "S3PRLUpstream": f"{_HERE}.upstream"}
_LAZY: Mapping[str, Mapping[str, str]] = {
    "s3prl": {},
    "s3prl.hub": {},
    "s3prl.nn": _CLASSES,
    "s3prl.nn.upstream": _CLASSES,
    "s3prl.upstream": {},
    "s3prl.upstream.interfaces": {"Featurizer": "hubcore.featurizer"},
    "s3prl.util": {},
    "s3prl.util.download": {},
}
"""Module -> its public name -> the module of hubcore that defines it."""

_lock = threading.Lock()
_installed: dict[str, ModuleType] = {}
_replaced: dict[str, ModuleType] = {}


def install(*, force: bool = False) -> None:
    """Makes `import s3prl` give this interface, in this process. A second call changes nothing.

    Args:
        force: whether to stand in for a real s3prl that is installed too. Whoever has imported it already keeps it.

    Raises:
        PluginError: the real s3prl is installed, and `force` is not set.

    Example:
        >>> from hubcore.compat import s3prl as compat
        >>> compat.install()
        >>> from s3prl.nn import S3PRLUpstream
        >>> S3PRLUpstream is compat.S3PRLUpstream
        True
        >>> compat.uninstall()
    """
    with _lock:
        if _installed:
            return
        place = _real_s3prl()
        if place is not None and not force:
            raise PluginError(
                f"s3prl itself is installed, at {place}. Two packages cannot have one name, and yours was left in place. "
                "Uninstall it, or import from hubcore.compat.s3prl, or call install(force=True) to use hubcore in its stead "
                "in this process."
            )
        for name in [name for name in sys.modules if name.partition(".")[0] == "s3prl"]:
            _replaced[name] = sys.modules.pop(name)
        for name in _LAZY:
            _installed[name] = module = _make_module(name)
            parent, _, child = name.rpartition(".")
            if parent:
                setattr(_installed[parent], child, module)
        sys.modules.update(_installed)


def uninstall() -> None:
    """Undoes `install`: `s3prl` is again what it was before. Objects imported from it keep working.

    Example:
        >>> from hubcore.compat import s3prl as compat
        >>> compat.uninstall()
    """
    with _lock:
        for name, module in _installed.items():
            if sys.modules.get(name) is module:
                del sys.modules[name]
        sys.modules.update(_replaced)
        _installed.clear()
        _replaced.clear()


def _real_s3prl() -> str | None:
    """Place of the real s3prl, or None. A mere folder of that name, such as a clone of its repository, is not it."""
    module = sys.modules.get("s3prl")
    if module is not None:
        return getattr(module, "__file__", None)
    spec = importlib.util.find_spec("s3prl")
    return spec.origin if spec is not None else None


def _make_module(name: str) -> ModuleType:
    module = ModuleType(name, f"{name} as hubcore provides it; see hubcore.compat.s3prl.")
    module.__spec__ = ModuleSpec(name, None, is_package=name != "s3prl.hub")
    module.__package__ = module.__spec__.parent or ""
    if module.__spec__.submodule_search_locations is not None:
        module.__path__ = []
    if name == "s3prl":
        # A local version, so that a log tells which s3prl this was.
        vars(module)["__version__"] = f"0+hubcore.{VERSION}"
    if name == "s3prl.hub":
        vars(module).update(__getattr__=hub.__getattr__, __dir__=hub.__dir__, options=hub.options)
        return module
    if name == "s3prl.util.download":
        vars(module).update(
            set_dir=download.set_dir,
            get_dir=download.get_dir,
            urls_to_filepaths=download.urls_to_filepaths,
            _urls_to_filepaths=download.urls_to_filepaths,
        )
        return module
    names = _LAZY[name]

    def get(attribute: str) -> Any:
        if attribute in names:
            return getattr(importlib.import_module(names[attribute]), attribute)
        raise AttributeError(
            f"module {name!r} is hubcore's and has no {attribute!r}. It has {', '.join(names) or 'its submodules only'}."
        )

    vars(module).update(__getattr__=get, __dir__=lambda: [*names, *vars(module)], __all__=list(names))
    return module
