"""Hooks by which a plugin takes part in what hubcore does, and the manager that calls them. Imports no torch.

A module that an entry point of the group `hubcore` names implements any of the specifications below:

```python
from hubcore import hookimpl

@hookimpl
def hubcore_fetch(uri, cache_dir, offline):
    if uri.startswith("s3://"):
        ...
        return path
```
"""

from __future__ import annotations

import importlib
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pluggy

from hubcore.registry import HOOKS_GROUP, Problem, entry_points

if TYPE_CHECKING:
    from hubcore.card import Card

_Function = TypeVar("_Function")
hookspec = pluggy.HookspecMarker("hubcore")
hookimpl = pluggy.HookimplMarker("hubcore")
_log = logging.getLogger("hubcore.hooks")


class HookSpecs:
    """Every hook there is."""

    @hookspec(firstresult=True)
    def hubcore_fetch(self, uri: str, cache_dir: Path, offline: bool) -> Path | None:
        """The local file or folder that `uri` names, fetched into `cache_dir` if need be; None if the scheme is not yours.

        Raises:
            DownloadError: the scheme is yours and the file cannot be had; `OfflineError` if only for `offline`.
        """

    @hookspec
    def hubcore_upstream_loaded(self, upstream: Any, card: Card | None) -> None:
        """Called by `hub.load` with every upstream just before it is returned."""

    @hookspec
    def hubcore_feature_writers(self) -> dict[str, Any] | None:
        """Further formats of `hubcore extract`: format name -> writer class (see `hubcore.extract`)."""

    @hookspec
    def hubcore_commands(self, cli: Any) -> None:
        """Adds commands to `cli`, the click group of the command line."""


class Hooks:
    """The plugin manager: the built-in plugins at once, third parties' one by one at first need.

    Example:
        >>> sorted(name for name, _ in current_hooks().manager.list_name_plugin() if name.startswith("hubcore."))
        ['hubcore.checkpoints.schemes']
    """

    def __init__(self) -> None:
        self.manager = pluggy.PluginManager("hubcore")
        self.manager.add_hookspecs(HookSpecs)
        self.problems: list[Problem] = []
        schemes = importlib.import_module("hubcore.checkpoints.schemes")
        self.manager.register(schemes, name=schemes.__name__)
        unreadable: list[Problem] = []
        for owner, version, point in entry_points(unreadable):
            if point.group == HOOKS_GROUP:
                self._load(f"{owner}:{point.name}", owner, version, point.value)

    def _load(self, name: str, owner: str, version: str, target: str) -> None:
        """Registers one third-party module; whatever it does wrong becomes a problem and nothing else."""
        if self.manager.has_plugin(name):
            return
        try:
            module = importlib.import_module(target.partition(":")[0])
            self.manager.register(module, name=name)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # an import may end in anything, SystemExit included
            self._report(owner, f"its hooks in {target} (version {version}) cannot be loaded: {type(error).__name__}: {error}")
            return
        known = {spec for spec in vars(HookSpecs) if spec.startswith("hubcore_")}
        for attribute in vars(module):
            if attribute.startswith("hubcore_") and attribute not in known:
                self._report(owner, f"{target} has {attribute}, which is no hook. The hooks are {', '.join(sorted(known))}.")

    def _report(self, owner: str, what: str) -> None:
        self.problems.append(Problem(owner, what))
        _log.warning("plugin %s: %s", owner, what)

    def fetch(self, uri: str, cache_dir: Path, offline: bool) -> Path | None:
        """The first answer of `hubcore_fetch`."""
        answer = self.manager.hook.hubcore_fetch(uri=uri, cache_dir=cache_dir, offline=offline)
        return None if answer is None else Path(answer)

    def upstream_loaded(self, upstream: Any, card: Card | None) -> None:
        """Calls every `hubcore_upstream_loaded`, each on its own, so that one that fails is only reported."""
        for implementation in self.manager.hook.hubcore_upstream_loaded.get_hookimpls():
            given = {"upstream": upstream, "card": card}
            try:
                implementation.function(**{name: given[name] for name in implementation.argnames})
            except Exception as error:  # an observer must not be able to break loading
                self._report(implementation.plugin_name, f"hubcore_upstream_loaded failed: {type(error).__name__}: {error}")

    def add_commands(self, cli: Any) -> None:
        """Calls every `hubcore_commands`, each on its own."""
        for implementation in self.manager.hook.hubcore_commands.get_hookimpls():
            try:
                implementation.function(cli)
            except Exception as error:  # a plugin's command must not be able to break the others
                self._report(implementation.plugin_name, f"hubcore_commands failed: {type(error).__name__}: {error}")


_hooks: list[Hooks] = []


def current_hooks() -> Hooks:
    """The one manager of this process."""
    if not _hooks:
        _hooks.append(Hooks())
    return _hooks[0]


def plugin_commands(cli: Any) -> None:
    """Adds third parties' commands to a click group."""
    current_hooks().add_commands(cli)


def refresh() -> None:
    """Forgets the manager, so that plugins installed meanwhile are found."""
    _hooks.clear()
