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
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pluggy

from hubcore.errors import BrokenFetchError, HubcoreError, PluginError, nearest_names
from hubcore.registry.names import HOOKS_GROUP, Problem, disabled_plugins, entry_points, module_of
from hubcore.text import error_text

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


NAMES = tuple(sorted(name for name in vars(HookSpecs) if name.startswith("hubcore_")))
"""Every hook's name."""


class Hooks:
    """The plugin manager: the built-in plugins at once, third parties' one by one at first need.

    Third parties are called in the order of their distributions' names, and before the built-in plugins; what is marked
    `tryfirst` goes before all others, `trylast` after them. Each is called on its own, so that one that fails harms no other.

    Args:
        third_parties: whether to load what is installed; else only what `load` is given.

    Example:
        >>> sorted(name for name, _ in current_hooks().manager.list_name_plugin() if name.startswith("hubcore."))
        ['hubcore.sources.schemes']
    """

    def __init__(self, *, third_parties: bool = True) -> None:
        self.manager = pluggy.PluginManager("hubcore")
        self.manager.add_hookspecs(HookSpecs)
        self.problems: list[Problem] = []
        self._versions: dict[str, str] = {}
        self._commands_added: set[tuple[Any, str]] = set()
        schemes = importlib.import_module("hubcore.sources.schemes")
        self.manager.register(schemes, name=schemes.__name__)
        unreadable: list[Problem] = []
        points = [found for found in entry_points(unreadable) if found[2].group == HOOKS_GROUP] if third_parties else []
        # What is registered last is called first.
        for owner, version, point in sorted(points, key=lambda found: (found[0].lower(), found[2].name), reverse=True):
            self.load(owner, version, point)

    def load(self, owner: str, version: str, point: EntryPoint) -> bool:
        """Registers one third-party module; whatever it does wrong becomes a problem and nothing else.

        Args:
            owner: the distribution.
            version: its version.
            point: its entry point of the group `hubcore`.

        Returns:
            Whether its hooks are there to be called.
        """
        name = f"{owner}:{point.name}"
        self._versions[owner] = version
        if self.manager.has_plugin(name):
            return True
        try:
            module = importlib.import_module(module_of(point))
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # an import may end in anything, SystemExit included
            self._report(name, f"its hooks in {point.value} (version {version}) cannot be loaded: {error_text(error)}", error)
            return False
        try:
            self.manager.register(module, name=name)
        except Exception as error:
            self._forget(name, module)
            what = _wrong_arguments(module, error) or f"its hooks in {point.value} cannot be registered: {error_text(error)}"
            self._report(name, f"{what} None of the hooks of that module is used.", error, _file_of(module))
            return False
        self._check_names(name, module)
        return True

    def _forget(self, name: str, module: Any) -> None:
        """Takes out what a registration that failed half-way left behind; pluggy before 1.7 does."""
        if self.manager.get_plugin(name) is module:
            self.manager.unregister(module, name)

    def _check_names(self, name: str, module: Any) -> None:
        """Reports what was surely meant as a hook and is none. A module may hold other things whose name starts alike."""
        target, file = module.__name__, _file_of(module)
        for attribute, value in list(vars(module).items()):
            if not attribute.startswith("hubcore_"):
                continue
            options = self.manager.parse_hookimpl_opts(module, attribute)
            own = inspect.isfunction(value) and value.__module__ == module.__name__
            if options is None and not own:
                continue
            if attribute not in NAMES:
                near = nearest_names(attribute, NAMES, count=1)
                hint = f" Did you mean {near[0]}?" if near else ""
                what = f"{target} has {attribute}, which is no hook. The hooks are {', '.join(NAMES)}.{hint}"
                what = what if options else f"{what} A hook is marked with @hookimpl, too."
            elif options is None:
                what = f"{target} has {attribute} without @hookimpl, so it is never called. Put @hookimpl above it."
            elif options.get("hookwrapper") or options.get("wrapper"):
                what = (
                    f"{target} has {attribute} as a wrapper, so it is never called. Hooks are called one by one here, and wrap "
                    "nothing. Write it without wrapper=True."
                )
            else:
                continue
            self._report(name, what, file=_line_of(value) or file)

    def _report(self, name: str, what: str, error: BaseException | None = None, file: str = "") -> None:
        """Records and logs a problem of the plugin `distribution:name`, once."""
        owner = name.partition(":")[0]
        problem = Problem(owner, what, self._versions.get(owner, ""), file, error)
        if problem not in self.problems:
            self.problems.append(problem)
            _log.warning("plugin %s: %s", name, what)

    def fetch(self, uri: str, cache_dir: Path, offline: bool) -> Path | None:
        """The first answer of `hubcore_fetch`, third parties before the built-in schemes.

        Raises:
            DownloadError: a plugin says that the file cannot be had.
            PluginError: a plugin failed with anything else, and no other one knows the scheme.
        """
        given = {"uri": uri, "cache_dir": cache_dir, "offline": offline}
        broken: PluginError | None = None
        for implementation in _each(self.manager.hook.hubcore_fetch):
            try:
                answer = implementation.function(**{name: given[name] for name in implementation.argnames})
                found = None if answer is None else Path(answer)
            except HubcoreError:
                raise
            except (Exception, SystemExit) as error:
                what = f"hubcore_fetch failed for {uri!r}: {error_text(error)}"
                self._report(implementation.plugin_name, what, error)
                if broken is None:
                    broken = BrokenFetchError(
                        f"the plugin {implementation.plugin_name} could not fetch {uri!r}: {error_text(error)}. Nothing else "
                        "here knows that scheme. Mend or update the plugin, or fetch the file yourself and pass its path."
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
                self._report(implementation.plugin_name, f"hubcore_upstream_loaded failed: {error_text(error)}", error)

    def feature_writers(self) -> dict[str, Any]:
        """Format name -> writer class, of every plugin; what is no such class, or the built-in `npy`, is reported.

        A format that two plugins bring is there as `distribution:format` only, once for each.
        """
        found: dict[str, dict[str, Any]] = {}
        for implementation in _each(self.manager.hook.hubcore_feature_writers):
            try:
                given = implementation.function() or {}
                formats = dict(given) if isinstance(given, Mapping) else {}
                if not isinstance(given, Mapping):
                    self._report(implementation.plugin_name, f"hubcore_feature_writers gave {given!r:.80}, not a dictionary.")
            except (Exception, SystemExit) as error:  # a plugin must not be able to take the formats of others away
                self._report(implementation.plugin_name, f"hubcore_feature_writers failed: {error_text(error)}", error)
                continue
            for name, writer in formats.items():
                lacking = [part for part in ("write", "holds", "close") if not callable(getattr(writer, part, None))]
                if not isinstance(name, str) or not isinstance(writer, type) or lacking:
                    needs = f"It lacks {', '.join(lacking)}." if lacking else "It must be a class, under a name."
                    self._report(implementation.plugin_name, f"the format {name!r} cannot be used. {needs}")
                elif name == "npy":
                    self._report(implementation.plugin_name, "the format 'npy' is another's already. Give it a new name.")
                else:
                    self._claim("format", name, implementation.plugin_name, writer, found)
        return self._settled("format", found, "--format ")

    def add_commands(self, cli: Any) -> None:
        """Calls every `hubcore_commands`, each on its own, and each once for this `cli`.

        A command that two plugins bring is there as `distribution:command` only, once for each.
        """
        import click

        from hubcore.cli.group import COMMANDS

        commands: dict[str, Any] = getattr(cli, "commands", {})
        found: dict[str, dict[str, Any]] = {}
        for implementation in _each(self.manager.hook.hubcore_commands):
            if (cli, implementation.plugin_name) in self._commands_added:
                continue
            self._commands_added.add((cli, implementation.plugin_name))
            before = dict(commands)
            try:
                implementation.function(cli)
            except (Exception, SystemExit) as error:  # a plugin's command must not be able to break the others
                self._report(implementation.plugin_name, f"hubcore_commands failed: {error_text(error)}", error)
            if isinstance(cli, click.Group):
                cli.commands = commands  # whatever it has put there instead: everybody's are in this one
            for name in [name for name, command in commands.items() if command is not before.get(name)]:
                command = commands.pop(name)
                if not isinstance(name, str) or not isinstance(command, click.Command):
                    what = f"the command {name!r} is a {type(command).__name__}. It must be a click command, under a name."
                    self._report(implementation.plugin_name, what)
                elif name in COMMANDS:
                    what = f"the command {name!r} is hubcore's own already. Give it a new name."
                    self._report(implementation.plugin_name, what)
                else:
                    self._claim("command", name, implementation.plugin_name, command, found)
            commands.update({name: command for name, command in before.items() if name not in commands})
        commands.update(self._settled("command", found, "hubcore "))

    def _claim(self, kind: str, name: str, plugin: str, thing: Any, found: dict[str, dict[str, Any]]) -> None:
        """Notes that a plugin brings a format or a command; of two of one distribution, the first counts."""
        if found.setdefault(name, {}).setdefault(plugin.partition(":")[0], thing) is not thing:
            self._report(plugin, f"the {kind} {name!r} is brought twice by this distribution. The first is used; remove one.")

    def _settled(self, kind: str, found: Mapping[str, Mapping[str, Any]], prefix: str) -> dict[str, Any]:
        """Name -> what its only owner brings; with several owners, each `distribution:name`, and a problem."""
        settled: dict[str, Any] = {}
        for name, claims in found.items():
            if len(claims) == 1:
                settled[name] = next(iter(claims.values()))
                continue
            settled.update({f"{owner}:{name}": thing for owner, thing in claims.items()})
            spelt = " or ".join(f"`{prefix}{owner}:{name}`" for owner in sorted(claims))
            what = f"the {kind} {name!r} is claimed by {' and '.join(sorted(claims))}. Use {spelt}, or uninstall one of them."
            for owner in claims:
                self._report(owner, what)
        return settled


def _wrong_arguments(module: Any, error: Exception) -> str | None:
    """What a hook with other arguments than the specification's should have, or None if that is not what is wrong."""
    functions = {name: value for name, value in vars(module).items() if name in NAMES and inspect.isfunction(value)}
    for name, function in functions.items() if isinstance(error, pluggy.PluginValidationError) else ():
        allowed = list(inspect.signature(getattr(HookSpecs, name)).parameters)[1:]
        wrong = [argument for argument in inspect.signature(function).parameters if argument not in allowed]
        if wrong:
            return (
                f"{module.__name__}.{name} takes {', '.join(wrong)}, which the hook does not have. It may take "
                f"{', '.join(allowed) or 'nothing'}, by these names. Rename the argument."
            )
    return None


def _file_of(module: Any) -> str:
    return str(getattr(module, "__file__", None) or "")


def _line_of(function: Any) -> str:
    """`file, line N` of a function; empty for anything else."""
    code = getattr(inspect.unwrap(function), "__code__", None) if callable(function) else None
    return f"{code.co_filename}, line {code.co_firstlineno}" if code else ""


def _each(caller: Any) -> Iterator[Any]:
    """The implementations of one hook, in the order in which they are to be called."""
    for implementation in reversed(list(caller.get_hookimpls())):
        if not (implementation.hookwrapper or implementation.wrapper):
            yield implementation


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
