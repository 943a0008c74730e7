"""The manager that calls the hooks of `hubcore.hookspecs`. Imports no torch.

Each implementation is called on its own: one that fails is recorded in `Hooks.problems`, and harms no other.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib
import inspect
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pluggy

from hubcore.errors import BrokenFetchError, DownloadError, HubcoreError, nearest_names
from hubcore.findings import Finding
from hubcore.guests import as_guest
from hubcore.hookspecs import NAMES, Expectation, HookSpecs
from hubcore.registry.names import HOOKS_GROUP, disabled_plugins, entry_points, module_of
from hubcore.text import error_text, logger

if TYPE_CHECKING:
    from hubcore.card import Card

BUILT_IN = ("hubcore.sources.schemes",)
"""The modules of hubcore's own that implement hooks; the last ones called."""
FORMATS = {
    "npy": "hubcore.extract.writers:NpyWriter",
    "safetensors": "hubcore.extract.formats.safetensors:SafetensorsWriter",
    "hdf5": "hubcore.extract.formats.hdf5:Hdf5Writer",
    "ark": "hubcore.extract.formats.ark:ArkWriter",
    "parquet": "hubcore.extract.formats.parquet:ParquetWriter",
    "webdataset": "hubcore.extract.formats.webdataset:WebDatasetWriter",
    "lhotse": "hubcore.extract.formats.lhotse:LhotseWriter",
}
"""The formats of `hubcore extract` that are hubcore's own, and the classes that write them."""
_log = logger("hooks")


class Hooks:
    """The plugin manager.

    What is loaded last is called first; what is marked `tryfirst` goes before all others, `trylast` after them.

    Example:
        >>> sorted(name for name, _ in current_hooks().manager.list_name_plugin() if name.startswith("hubcore."))
        ['hubcore.sources.schemes']
    """

    def __init__(self) -> None:
        self.manager = pluggy.PluginManager("hubcore")
        self.manager.add_hookspecs(HookSpecs)
        self.problems: list[Finding] = []
        self._about: dict[str, Finding] = {}  # of a plugin and of a distribution, what all its problems have in common
        self._commands: dict[str, Any] | None = None
        for name in BUILT_IN:
            self.manager.register(importlib.import_module(name), name=name)

    def load(self, owner: str, version: str, point: EntryPoint) -> None:
        """Registers the module of an entry point of the group `hubcore`; whatever is wrong with it becomes a problem."""
        name = f"{owner}:{point.name}"
        about = Finding("", owner=owner, version=version)
        self._about[name] = self._about[owner] = about
        module = None
        with self._reporting(name, f"its hooks in {point.value} (version {version}) cannot be loaded"):
            module = importlib.import_module(module_of(point))
        if module is None:
            return
        self._about[name] = self._about[owner] = dataclasses.replace(about, file=getattr(module, "__file__", None) or "")
        usable = True
        for harmless, what, fix, function in _faults(module, self.manager):
            self._report(name, what, fix, function=function)
            usable &= harmless
        if usable:
            self.manager.register(module, name=name)

    def fetch(self, uri: str, cache_dir: Path, offline: bool, expected: Expectation | None = None) -> Path | None:
        """The first answer of `hubcore_fetch`.

        Raises:
            DownloadError: a plugin says that the file is not available.
            PluginError: a plugin failed with anything else, and no other one knows the scheme.
        """
        broken: list[BrokenFetchError] = []
        given = {"uri": uri, "cache_dir": cache_dir, "offline": offline, "expected": expected or Expectation()}

        def fault(plugin: str, error: BaseException) -> BaseException | None:
            ours = plugin in BUILT_IN
            if isinstance(error, HubcoreError if ours else DownloadError):
                return error
            if ours:
                return DownloadError(f"{uri} cannot be fetched: {error_text(error)}.", "This is a fault of hubcore: report it.")
            self._report(plugin, f"hubcore_fetch failed for {uri!r}: {error_text(error)}", error=error)
            broken.append(_broken_fetch(plugin, uri, error))
            return None

        for plugin, call in self._each("hubcore_fetch", **given):
            with as_guest(functools.partial(fault, plugin)):
                found = call()
                if found is not None:
                    return _existing(Path(found))
        if broken:
            raise broken[0]
        return None

    def upstream_loaded(self, upstream: Any, card: Card | None) -> None:
        """Calls every `hubcore_upstream_loaded`."""
        for plugin, call in self._each("hubcore_upstream_loaded", upstream=upstream, card=card):
            with self._reporting(plugin, "hubcore_upstream_loaded failed"):
                call()

    def feature_writers(self) -> dict[str, Any]:
        """Format name -> writer class, of every plugin; a format of two plugins is there as `distribution:format`."""
        offers: list[tuple[str, str, Any]] = []
        for plugin, call in self._each("hubcore_feature_writers"):
            with self._reporting(plugin, "hubcore_feature_writers failed"):
                formats = call() or {}
                if not isinstance(formats, Mapping):
                    raise TypeError(f"it gave {formats!r:.80}, not a dictionary")
                offers += [(plugin, name, writer) for name, writer in formats.items()]
        return self._settled("format", "--format ", offers, _why_no_writer, FORMATS)

    def commands(self, reserved: Collection[str] = ()) -> dict[str, Any]:
        """Command name -> click command, of every plugin; a name of two plugins is there as `distribution:name`.

        None of them can have a `reserved` name, that of a built-in command.
        """
        import click

        if self._commands is None:
            offers: list[tuple[str, str, Any]] = []
            cli = click.Group("hubcore")
            for plugin, call in self._each("hubcore_commands", cli=cli):
                cli.commands = {}  # so that no plugin sees or removes another's
                with self._reporting(plugin, "hubcore_commands failed"):
                    call()
                    for command in cli.commands.values():  # as `--help` will
                        _ = isinstance(command, click.Command) and command.get_short_help_str()
                    offers += [(plugin, name, command) for name, command in cli.commands.items()]
            self._commands = self._settled("command", "hubcore ", offers, _why_no_command, reserved)
        return self._commands

    def _each(self, hook: str, **given: Any) -> Iterator[tuple[str, Callable[[], Any]]]:
        """Each implementation of a hook in its order: the plugin's name, and the call with what it wants of `given`."""
        for found in reversed(getattr(self.manager.hook, hook).get_hookimpls()):
            if not (found.hookwrapper or found.wrapper):
                yield found.plugin_name, functools.partial(found.function, **{name: given[name] for name in found.argnames})

    def _reporting(self, plugin: str, what: str) -> contextlib.AbstractContextManager[None]:
        """Runs a plugin's code; a failure of any kind becomes a problem."""
        return as_guest(lambda error: self._report(plugin, f"{what}: {error_text(error)}", error=error))

    def _report(
        self, plugin: str, what: str, fix: str = "", *, error: BaseException | None = None, function: Any = None
    ) -> None:
        """Records and logs a problem of the plugin `distribution:name`, once."""
        about = self._about.get(plugin, Finding("", owner=plugin))
        problem = dataclasses.replace(about, what=what, fix=fix, error=error)
        code = getattr(inspect.unwrap(function), "__code__", None) if callable(function) else None
        if code:
            problem = dataclasses.replace(problem, file=code.co_filename, line=code.co_firstlineno)
        if problem not in self.problems:
            self.problems.append(problem)
            _log.warning("plugin %s: %s", plugin, problem.text)

    def _settled(
        self,
        kind: str,
        prefix: str,
        offers: Iterable[tuple[str, str, Any]],
        why_not: Callable[[object, object], str],
        reserved: Collection[str],
    ) -> dict[str, Any]:
        """Name -> what its only owner brings; with several owners, each as `distribution:name`, and a problem."""
        claims: dict[str, dict[str, Any]] = {}
        for plugin, name, thing in offers:
            owner, wrong = plugin.partition(":")[0], why_not(name, thing)
            if wrong:
                self._report(plugin, f"the {kind} {name!r} cannot be used. {wrong}")
            elif name in reserved:
                self._report(plugin, f"the {kind} {name!r} is hubcore's own already.", "Give it a new name.")
            elif claims.setdefault(name, {}).setdefault(owner, thing) is not thing:
                self._report(
                    plugin, f"the {kind} {name!r} is brought twice by this distribution.", "Remove one; the first is used."
                )
        settled: dict[str, Any] = {}
        for name, owners in claims.items():
            if len(owners) == 1:
                settled |= dict.fromkeys([name], *owners.values())
                continue
            choices = {f"{owner}:{name}": thing for owner, thing in owners.items()}
            spelt = " or ".join(f"`{prefix}{choice}`" for choice in sorted(choices))
            for owner in owners:
                what = f"the {kind} {name!r} is claimed by {' and '.join(sorted(owners))}."
                self._report(owner, what, f"Use {spelt}, or uninstall one of them.")
            settled |= choices
        return settled


_current: dict[frozenset[str], Hooks] = {}


def current_hooks() -> Hooks:
    """The one manager of this process, with every plugin that is installed and not in `HUBCORE_DISABLE_PLUGINS`.

    Plugins are called in the order of their distributions' names.
    """
    disabled = disabled_plugins()
    if disabled not in _current:
        hooks = Hooks()
        points = [found for found in entry_points([]) if found[2].group == HOOKS_GROUP]
        for owner, version, point in sorted(points, key=lambda found: (found[0].lower(), found[2].name), reverse=True):
            hooks.load(owner, version, point)
        _current[disabled] = hooks
    return _current[disabled]


def refresh() -> None:
    """Forgets the manager, so that plugins installed meanwhile are found."""
    _current.clear()


def _faults(module: Any, manager: pluggy.PluginManager) -> Iterator[tuple[bool, str, str, Any]]:
    """(whether the module can be used, what is wrong, what to do, the function) of what was surely meant as a hook."""
    for name, value in list(vars(module).items()):
        options = manager.parse_hookimpl_opts(module, name)
        own = inspect.isfunction(value) and value.__module__ == module.__name__
        if not name.startswith("hubcore_") or not (options or own):
            continue
        what = f"{module.__name__} has {name}"
        if name not in NAMES:
            near = "".join(f" Did you mean {other}?" for other in nearest_names(name, NAMES, count=1))
            mark = "" if options else " A hook is marked with @hookimpl, too."
            yield True, f"{what}, which is no hook. The hooks are {', '.join(NAMES)}.{near}{mark}", "", value
        elif options is None:
            yield True, f"{what} without @hookimpl, so it is never called.", "Put @hookimpl above it.", value
        elif options["hookwrapper"] or options["wrapper"]:
            yield True, f"{what} as a wrapper, so it is never called.", "Write it without wrapper=True.", value
        else:
            allowed = getattr(manager.hook, name).spec.argnames
            wrong = [other for other in pluggy.HookImpl(module, "", value, options).argnames if other not in allowed]
            if wrong:
                what = f"{module.__name__}.{name} takes {', '.join(wrong)}, which the hook does not have. It may take "
                what += f"{', '.join(allowed) or 'nothing'}, by these names. None of the hooks of that module is used."
                yield False, what, "Rename the argument.", value


def _why_no_writer(name: object, writer: object) -> str:
    lacking = [part for part in ("write", "holds", "close") if not callable(getattr(writer, part, None))]
    if lacking:
        return f"It lacks {', '.join(lacking)}."
    return "" if isinstance(name, str) and isinstance(writer, type) else "It must be a class, under a name."


def _why_no_command(name: object, command: object) -> str:
    import click

    return "" if isinstance(name, str) and isinstance(command, click.Command) else "It must be a click command, under a name."


def _existing(path: Path) -> Path:
    if not (path.is_file() or path.is_dir()):
        raise FileNotFoundError(f"it gave {str(path)!r}, which is no file and no folder")
    return path


def _broken_fetch(plugin: str, uri: str, error: BaseException) -> BrokenFetchError:
    broken = BrokenFetchError(
        f"the plugin {plugin} could not fetch {uri!r}: {error_text(error)}. Nothing else here knows that scheme. Fix or update "
        "the plugin, or fetch the file yourself and pass its path."
    )
    broken.__cause__ = error
    return broken
