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
import inspect
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pluggy

from hubcore.errors import BrokenFetchError, HubcoreError, PluginError
from hubcore.registry import HOOKS_GROUP, Problem, disabled_plugins, entry_points

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
        """Further formats of `hubcore extract --format`: format name -> a class as `hubcore.extract.FeatureWriter` is.

        It is called only for a format that is not built in.
        """

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
        self._commands_added: set[tuple[Any, str]] = set()
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
            self._report(owner, f"its hooks in {target} (version {version}) cannot be loaded: {_shown(error)}")
            return
        self._check_names(owner, target, module)

    def _check_names(self, owner: str, target: str, module: Any) -> None:
        """Reports what was surely meant as a hook and is none. A module may hold other things whose name starts alike."""
        known = {spec for spec in vars(HookSpecs) if spec.startswith("hubcore_")}
        for attribute, value in list(vars(module).items()):
            if not attribute.startswith("hubcore_"):
                continue
            options = self.manager.parse_hookimpl_opts(module, attribute)
            own = inspect.isfunction(value) and value.__module__ == module.__name__
            if options is None and not own:
                continue
            if attribute not in known:
                what = f"{target} has {attribute}, which is no hook. The hooks are {', '.join(sorted(known))}."
                self._report(owner, what if options else f"{what} A hook is marked with @hookimpl, too.")
            elif options is None:
                self._report(
                    owner, f"{target} has {attribute} without @hookimpl, so it is never called. Put @hookimpl above it."
                )
            elif options.get("hookwrapper") or options.get("wrapper"):
                self._report(
                    owner,
                    f"{target} has {attribute} as a wrapper, so it is never called. Hooks are called one by one here, and wrap "
                    "nothing. Write it without wrapper=True.",
                )

    def _report(self, owner: str, what: str) -> None:
        problem = Problem(owner, what)
        if problem not in self.problems:
            self.problems.append(problem)
            _log.warning("plugin %s: %s", owner, what)

    def fetch(self, uri: str, cache_dir: Path, offline: bool) -> Path | None:
        """The first answer of `hubcore_fetch`, third parties before the built-in schemes.

        Raises:
            DownloadError: a plugin says that the file cannot be had.
            PluginError: a plugin failed with anything else, and no other one knows the scheme.
        """
        given = {"uri": uri, "cache_dir": cache_dir, "offline": offline}
        broken: PluginError | None = None
        for implementation in reversed(list(_each(self.manager.hook.hubcore_fetch))):
            try:
                answer = implementation.function(**{name: given[name] for name in implementation.argnames})
                found = None if answer is None else Path(answer)
            except HubcoreError:
                raise
            except (Exception, SystemExit) as error:
                what = f"hubcore_fetch failed for {uri!r}: {_shown(error)}"
                self._report(implementation.plugin_name, what)
                if broken is None:
                    broken = BrokenFetchError(
                        f"the plugin {implementation.plugin_name} could not fetch {uri!r}: {_shown(error)}. Nothing else here "
                        "knows that scheme. Mend or update the plugin, or fetch the file yourself and pass its path."
                    )
                    broken.__cause__ = error
                continue
            if found is not None:
                return found
        if broken is not None:
            raise broken
        return None

    def upstream_loaded(self, upstream: Any, card: Card | None) -> None:
        """Calls every `hubcore_upstream_loaded`, each on its own, so that one that fails is only reported."""
        for implementation in _each(self.manager.hook.hubcore_upstream_loaded):
            given = {"upstream": upstream, "card": card}
            try:
                implementation.function(**{name: given[name] for name in implementation.argnames})
            except (Exception, SystemExit) as error:  # an observer must not be able to break loading
                self._report(implementation.plugin_name, f"hubcore_upstream_loaded failed: {_shown(error)}")

    def feature_writers(self) -> dict[str, Any]:
        """Format name -> writer class, of every plugin; what is no such class, or a name taken already, is reported."""
        found: dict[str, Any] = {}
        for implementation in _each(self.manager.hook.hubcore_feature_writers):
            try:
                given = implementation.function() or {}
                formats = dict(given) if isinstance(given, Mapping) else {}
                if not isinstance(given, Mapping):
                    self._report(implementation.plugin_name, f"hubcore_feature_writers gave {given!r:.80}, not a dictionary.")
            except (Exception, SystemExit) as error:  # a plugin must not be able to take the formats of others away
                self._report(implementation.plugin_name, f"hubcore_feature_writers failed: {_shown(error)}")
                continue
            for name, writer in formats.items():
                lacking = [part for part in ("write", "holds", "close") if not callable(getattr(writer, part, None))]
                if not isinstance(name, str) or not isinstance(writer, type) or lacking:
                    needs = f"It lacks {', '.join(lacking)}." if lacking else "It must be a class, under a name."
                    self._report(implementation.plugin_name, f"the format {name!r} cannot be used. {needs}")
                elif name in found or name == "npy":
                    self._report(implementation.plugin_name, f"the format {name!r} is another's already. Give it a new name.")
                else:
                    found[name] = writer
        return found

    def add_commands(self, cli: Any) -> None:
        """Calls every `hubcore_commands`, each on its own, and each once for this `cli`."""
        for implementation in _each(self.manager.hook.hubcore_commands):
            if (cli, implementation.plugin_name) in self._commands_added:
                continue
            self._commands_added.add((cli, implementation.plugin_name))
            try:
                implementation.function(cli)
            except (Exception, SystemExit) as error:  # a plugin's command must not be able to break the others
                self._report(implementation.plugin_name, f"hubcore_commands failed: {_shown(error)}")


def _each(caller: Any) -> Iterator[Any]:
    """The implementations of one hook, each to be called on its own, so that one that fails harms no other."""
    for implementation in caller.get_hookimpls():
        if not (implementation.hookwrapper or implementation.wrapper):
            yield implementation


def _shown(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # a broken plugin's own exception may not even print
        return type(error).__name__


_hooks: dict[frozenset[str], Hooks] = {}


def current_hooks() -> Hooks:
    """The one manager of this process; another one once `HUBCORE_DISABLE_PLUGINS` changes."""
    disabled = disabled_plugins()
    if disabled not in _hooks:
        _hooks[disabled] = Hooks()
    return _hooks[disabled]


def plugin_commands(cli: Any) -> None:
    """Adds third parties' commands to a click group."""
    current_hooks().add_commands(cli)


def refresh() -> None:
    """Forgets the manager, so that plugins installed meanwhile are found."""
    _hooks.clear()
