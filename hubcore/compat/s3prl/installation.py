"""`install`: hubcore under the import name `s3prl`, for recipes that are not to be touched. Imports no torch."""

from __future__ import annotations

import importlib
import importlib.util
import os
import pkgutil
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from hubcore.compat.s3prl import hub
from hubcore.errors import OptionError, PluginError
from hubcore.version import VERSION

_HERE = "hubcore.compat.s3prl"
_FRAMES = "HUBCORE_S3PRL_FRAMES"
_CLASSES = {"Featurizer": f"{_HERE}.featurizer:Featurizer", "S3PRLUpstream": f"{_HERE}.upstream:S3PRLUpstream"}
_DOWNLOAD = {name: f"{_HERE}.download:{name}" for name in ("set_dir", "get_dir", "urls_to_filepaths")}
_LAZY: Mapping[str, Mapping[str, str]] = {
    "s3prl": {},
    "s3prl.hub": {},
    "s3prl.nn": _CLASSES,
    "s3prl.nn.upstream": _CLASSES,
    "s3prl.upstream": {},
    "s3prl.upstream.interfaces": {"Featurizer": "hubcore.featurizer:Featurizer"},
    "s3prl.util": {},
    "s3prl.util.download": {**_DOWNLOAD, "_urls_to_filepaths": _DOWNLOAD["urls_to_filepaths"]},
}
"""Module -> its public name -> `module:name` of what stands for it here."""

_lock = threading.Lock()
_undo = ExitStack()
_installed: dict[str, ModuleType] = {}


def install(*, force: bool = False, overlay: bool = False, frames: str | None = None) -> None:
    """Makes `import s3prl` give this interface, in this process. A second call changes nothing but `frames`.

    Args:
        force: whether to stand in for a real s3prl that is installed too. Whoever has imported it already keeps it.
        overlay: whether to keep the real s3prl, with its tasks, problems and runners, and to replace only its `hub`, its
            `S3PRLUpstream` and both classes `Featurizer`, also in those of its modules that hold them already.
        frames: the frames of every `S3PRLUpstream` that is told nothing else, "real" or "s3prl"; sets the environment
            variable `HUBCORE_S3PRL_FRAMES`, which other processes inherit.

    Raises:
        PluginError: the real s3prl is installed and neither `force` nor `overlay` is set, or it is not and `overlay` is.
        OptionError: no such `frames`.

    Example:
        >>> from hubcore.compat import s3prl as compat
        >>> compat.install()
        >>> from s3prl.nn import S3PRLUpstream
        >>> S3PRLUpstream is compat.S3PRLUpstream
        True
        >>> compat.uninstall()
    """
    if frames not in (None, "real", "s3prl"):
        raise OptionError(f"frames is {frames!r}. It must be 'real' or 's3prl'.")
    with _lock:
        if not _installed:
            place = _real_s3prl()
            if overlay and place is None:
                raise PluginError("s3prl itself is not installed. overlay=True needs it. Install it, or leave overlay out.")
            if place is not None and not force and not overlay:
                raise PluginError(
                    f"s3prl itself is installed, at {place}. Two packages cannot have one name, and yours was left in place. "
                    "Uninstall it, or import from hubcore.compat.s3prl, or call install(force=True) to use hubcore in its "
                    "stead in this process, or install(overlay=True) to put hubcore's upstreams into it."
                )
            if overlay:
                _lay_over()
            else:
                _stand_in()
        if frames is not None:
            _undo.callback(_set_frames, os.environ.get(_FRAMES))
            _set_frames(frames)


def uninstall() -> None:
    """Undoes `install`: `s3prl` is again what it was before. Objects imported from it keep working."""
    with _lock:
        _undo.close()
        _installed.clear()


def _set_frames(frames: str | None) -> None:
    os.environ.pop(_FRAMES, None)
    if frames is not None:
        os.environ[_FRAMES] = frames


def _stand_in() -> None:
    """Puts a module of ours in the place of every one of s3prl's."""
    replaced = {name: sys.modules.pop(name) for name in [*sys.modules] if name.partition(".")[0] == "s3prl"}
    _undo.callback(sys.modules.update, replaced)
    for name in _LAZY:
        _add_module(name)


def _add_module(name: str) -> ModuleType:
    _installed[name] = module = _make_module(name)
    _put(sys.modules, name, module)
    parent, _, child = name.rpartition(".")
    if parent in sys.modules:
        _put(vars(sys.modules[parent]), child, module)
    return module


def _put(holder: dict[str, Any], key: str, value: Any) -> None:
    """Sets an entry until `uninstall`."""
    if key in holder:
        _undo.callback(holder.__setitem__, key, holder[key])
    else:
        _undo.callback(holder.pop, key, None)
    holder[key] = value


def _lay_over() -> None:
    """Imports the real s3prl with our hub in the place of its own, and exchanges its classes for ours."""
    their_hub = sys.modules.get("s3prl.hub")
    ours = _add_module("s3prl.hub")  # before s3prl is imported: its own hub would import every family
    pairs: list[tuple[Any, Any]] = [] if their_hub is None else [(their_hub, ours)]
    try:
        _put(vars(importlib.import_module("s3prl")), "hub", ours)
        for name in ("s3prl.nn", "s3prl.nn.upstream", "s3prl.upstream", "s3prl.upstream.interfaces"):
            try:
                module = importlib.import_module(name)
            except ModuleNotFoundError as error:
                if error.name != name:
                    raise
                module = _add_module(name)
            for attribute, place in _LAZY[name].items():
                if hasattr(module, attribute):
                    pairs.append((getattr(module, attribute), pkgutil.resolve_name(place)))
    except BaseException:
        _undo.close()
        _installed.clear()
        raise
    _exchange(pairs)
    _undo.callback(_exchange, [(new, old) for old, new in pairs])


def _exchange(pairs: Sequence[tuple[Any, Any]]) -> None:
    """Puts the second of a pair wherever a module of s3prl holds the first."""
    others = {id(old): new for old, new in pairs}
    for name, module in [*sys.modules.items()]:
        if name.partition(".")[0] == "s3prl" and name not in _installed:
            for attribute, value in [*vars(module).items()]:
                if id(value) in others:
                    setattr(module, attribute, others[id(value)])


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
    names = _LAZY[name]

    def get(attribute: str) -> Any:
        if attribute in names:
            return pkgutil.resolve_name(names[attribute])
        raise AttributeError(
            f"module {name!r} is hubcore's and has no {attribute!r}. It has {', '.join(names) or 'its submodules only'}."
        )

    vars(module).update(__getattr__=get, __dir__=lambda: [*names, *vars(module)], __all__=list(names))
    return module
