"""What `hubcore doctor` runs in a process of its own: imports what one distribution brings, builds it, calls its hooks.

Nothing here is for the process of a user: `hubcore.doctor.diagnosis` starts it, bounds it in time, and reads what it
wrote. Each line of its output is a JSON object, flushed at once, so that a process that dies has told what it was doing.
"""

from __future__ import annotations

import contextlib
import faulthandler
import importlib
import importlib.abc
import importlib.util
import json
import logging
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.machinery import ModuleSpec
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType
from typing import IO, TYPE_CHECKING, Any, NoReturn

from hubcore.registry.names import HOOKS_GROUP, OBJECTIVES_GROUP, current_registry, module_of, target_of
from hubcore.text import error_text

if TYPE_CHECKING:
    from hubcore.hooks import Hooks

TORCH_SECONDS = 120.0
"""How long torch's own import may take, which is no plugin's fault."""
NOBODYS_URI = "hubcore-doctor://nothing/file"
"""An address of a scheme that nobody has, for which `hubcore_fetch` must return None."""
_ABSENT = object()


class Probe:
    """The examination of one distribution, in the process that is to be spoilt.

    Args:
        job: `distribution`, `version`, `points` (group, name, value), `first` (the index to begin with), `timeout` (seconds),
            `own` (folders and files that hold the distribution's code), and the files `out`, `crash` and `stdout`.
    """

    def __init__(self, job: Mapping[str, Any]) -> None:
        self.job = job
        # Open until the process ends: faulthandler writes to the one when nothing else runs any more.
        self._out = open(job["out"], "a", encoding="utf-8")  # noqa: SIM115
        self._crash: IO[str] = open(job["crash"], "w", encoding="utf-8")  # noqa: SIM115
        self._stage = ""
        self._began = 0.0
        self._spared = 0.0
        self._before: dict[str, object] = {}

    def run(self) -> None:
        """Examines one entry point after the other, then ends the process, whatever threads are still running."""
        leave = watch_exit(self._crash)
        sys.meta_path.insert(0, _TorchClock(self))
        for index, (group, name, value) in enumerate(self.job["points"]):
            if index >= self.job["first"]:
                self.say(begin=index)
                self._point(EntryPoint(name=name, value=value, group=group))
                faulthandler.cancel_dump_traceback_later()
                self.say(end=index)
        leave(0)

    def say(self, **event: object) -> None:
        """Writes one line."""
        self._out.write(json.dumps(event) + "\n")
        self._out.flush()

    def finding(self, what: str, error: BaseException | None = None, *, file: str = "", warning: bool = False) -> None:
        """Tells of something that is wrong; a warning is what harms without breaking."""
        place, lines = self.shown(error) if error is not None else ("", [])
        self.say(finding={"what": what, "file": place or file, "traceback": lines, "warning": warning})

    def stage(self, stage: str, seconds: float | None = None) -> None:
        """Notes what is done next, and gives it its time."""
        self._stage = stage
        self.say(stage=stage)
        faulthandler.dump_traceback_later(seconds or self.job["timeout"], exit=True, file=self._crash)

    # One entry point ---------------------------------------------------------------------------------------------------

    def _point(self, point: EntryPoint) -> None:
        module = self._imported(point)
        if module is None:
            return
        try:
            if point.group == HOOKS_GROUP:
                self._hooks(point)
            elif point.group == OBJECTIVES_GROUP:
                self._objective(point, module)
            else:
                self._family(point, module)
        except Exception as error:
            self.finding(f"{self._stage} fails: {error_text(error)}. Update or mend that distribution.", error)

    def _imported(self, point: EntryPoint) -> ModuleType | None:
        """The module, with a look at what its import costs and changes; None if it cannot be imported."""
        name = module_of(point)
        _flush()
        printed = os.path.getsize(self.job["stdout"])
        self._before, self._began, self._spared = _state(), time.monotonic(), 0.0
        self.stage(f"importing {name}")
        try:
            module = importlib.import_module(name)
        except BaseException as error:  # an import may end in anything, SystemExit and KeyboardInterrupt included
            what = f"{name} cannot be imported: {error_text(error)}. "
            self.finding(what + "Update or mend that distribution; nothing else is harmed.", error)
            return None
        seconds = time.monotonic() - self._began - self._spared
        self.say(seconds=round(seconds, 3))
        if seconds > self.job["timeout"] / 4:
            what = f"importing {name} takes {seconds:.1f} s, torch not counted. Its first use waits for that. "
            self.finding(what + "Import what is heavy inside the functions that need it.", file=_file(module), warning=True)
        changed = _changes(self._before, _state())
        if changed:
            what = f"importing {name} changes {'; '.join(changed)}. Other code in the process runs with it too. "
            self.finding(what + "Do that where a user asks for it.", file=_file(module), warning=True)
        _flush()
        with open(self.job["stdout"], encoding="utf-8", errors="replace") as stream:
            stream.seek(printed)
            text = stream.read(200).strip()
        if text:
            what = f"importing {name} prints {text[:60]!r}, in the midst of what hubcore prints for programs. Use logging."
            self.finding(what, file=_file(module), warning=True)
        return module

    def _family(self, point: EntryPoint, module: ModuleType) -> None:
        from hubcore.errors import HubcoreError, OptionError
        from hubcore.loading import build_upstream

        target = target_of(point)
        class_name = target.partition(":")[2]
        cls = getattr(module, class_name, _ABSENT)
        if not isinstance(cls, type):
            what = f"{target} is not there" if cls is _ABSENT else f"{target} is a {type(cls).__name__}, not a class"
            self.finding(f"{what}. Correct the entry point, or put the class where it says.", file=_file(module))
            return
        if not callable(getattr(cls, "forward", None)):
            what = f"{target} has no forward, so it is no upstream. docs/upstream_contract.md says what one must have."
            self.finding(what, file=_file(module))
            return
        owned = {"distribution": self.job["distribution"], "target": target, "name": point.name}
        for entry in current_registry().entries:
            family, card = entry.family, entry.card
            if family is None or any(getattr(family, key) != value for key, value in owned.items()):
                continue
            if entry.owner not in ("user", family.distribution):
                continue
            where = f"{card.file}, line {card.line}" if card else _file(module)
            configs = getattr(cls, "configs", None)
            if card and card.config and isinstance(configs, Mapping) and configs and card.config not in configs:
                what = f"the card {card.name!r} names the config {card.config!r}, which {target} does not have. "
                self.finding(what + f"It has {', '.join(map(str, configs))}. Correct the card.", file=where)
            elif (card and card.sources) or (card is None and _wants_weights(cls)):
                if not callable(getattr(cls, "from_checkpoint", None)):
                    self.finding(f"{target} has no from_checkpoint, so it cannot load the weights of its cards.", file=where)
            else:
                self.stage(f"building {entry.name!r}")
                try:
                    self._instance(target, build_upstream(entry, None, {}), where)
                except OptionError as error:
                    if card is not None:  # a family alone may well need options
                        self.finding(f"{entry.name!r} cannot be built: {error_text(error)}", error.__cause__, file=where)
                except HubcoreError as error:  # its own words, and the traceback of what it is about
                    self.finding(" ".join(str(error).split()), error.__cause__ or error, file=where)

    def _objective(self, point: EntryPoint, module: ModuleType) -> None:
        """Looks for what `hubcore pretrain` asks of a class before it trains it."""
        from hubcore.errors import PluginError
        from hubcore.pretrain.objectives import objective_class

        try:
            objective_class(point.name, target_of(point), "")
        except PluginError as error:
            self.finding(" ".join(str(error).split()), error.__cause__, file=_file(module))

    def _instance(self, target: str, upstream: Any, where: str) -> None:
        """Looks at the attributes of the contract; what they promise is for the conformance kit."""
        from hubcore.protocol import missing_parts

        lacking = [name for name in missing_parts(upstream) if name != "__call__"]
        if lacking:
            what = f"{target} lacks {', '.join(lacking)}, so it is no upstream. "
            self.finding(what + "docs/upstream_contract.md says what each is.", file=where)
            return
        if not callable(upstream):
            self.finding(f"{target} cannot be called. Give it __call__, the same as forward.", file=where)
        layers, sizes = (getattr(upstream, name) for name in ("layer_names", "hidden_sizes"))
        wrong = [
            f"{name} is {value!r:.40}, not {wanted}"
            for name, value, wanted, right in (
                ("sample_rate", upstream.sample_rate, "a positive int", _count(upstream.sample_rate, 1)),
                ("num_layers", upstream.num_layers, "an int", _count(upstream.num_layers, 0)),
                ("min_samples", upstream.min_samples, "a positive int", _count(upstream.min_samples, 1)),
                ("receptive_field", upstream.receptive_field, "a positive int", _count(upstream.receptive_field, 1)),
                ("layer_names", layers, "a tuple of names", _each_is(layers, str)),
                ("hidden_sizes", sizes, "a tuple of ints, one for each layer name", _each_is(sizes, int, layers)),
            )
            if not right
        ]
        if wrong:
            self.finding(f"{target} breaks the contract: {'; '.join(wrong)}. Mend the class.", file=where)

    def _hooks(self, point: EntryPoint) -> None:
        from hubcore.hooks import Hooks

        hooks = Hooks()
        hooks.load(self.job["distribution"], self.job["version"], point)
        for what in call_hooks(hooks, self.stage):
            self.finding(what)
        for problem in hooks.problems:
            self.finding(problem.text, problem.error, file=problem.place)

    # Tracebacks and time -----------------------------------------------------------------------------------------------

    def shown(self, error: BaseException) -> tuple[str, list[str]]:
        """`file, line N` of where the distribution's own code failed, and its traceback without other people's frames."""
        whole = traceback.TracebackException.from_exception(error)
        place = ""
        part: traceback.TracebackException | None = whole
        for _ in range(10):
            if part is None:
                break
            own = [frame for frame in part.stack if self._is_own(frame.filename)]
            last = [frame for frame in part.stack[-1:] if frame not in own and not _is_machinery(frame.filename)]
            part.stack = traceback.StackSummary.from_list([*own, *last])
            if own and not place:
                place = f"{own[-1].filename}, line {own[-1].lineno}"
            part = part.__cause__ or part.__context__
        if isinstance(error, SyntaxError) and error.filename and not place:
            place = f"{error.filename}, line {error.lineno}"
        return place, "".join(whole.format()).rstrip().splitlines()

    def _is_own(self, file: str) -> bool:
        return any(file == place or file.startswith(place + os.sep) for place in self.job["own"])

    def torch_begins(self) -> Callable[[], None]:
        """Stops the clock; what it returns starts it again, and forgets what torch changed by itself."""
        stage, began, before = self._stage, time.monotonic(), _state()
        self.stage("importing torch", TORCH_SECONDS)

        def torch_ended() -> None:
            self._spared += time.monotonic() - began
            after = _state()
            self._before.update({name: value for name, value in after.items() if before.get(name) != value})
            self.stage(stage)

        return torch_ended


def watch_exit(crash: IO[str]) -> Callable[[int], Any]:
    """Makes this process write to `crash` where a signal or a call of `os._exit` ends it; gives the real `os._exit`."""
    leave: Callable[[int], Any] = os._exit

    def tell(status: int) -> NoReturn:
        crash.write(f"os._exit({status})\n")
        crash.flush()
        faulthandler.dump_traceback(file=crash, all_threads=False)
        leave(status)
        raise SystemExit(status)  # never reached

    faulthandler.enable(file=crash)
    os._exit = tell
    return leave


def call_hooks(hooks: Hooks, stage: Callable[[str], None]) -> Iterator[str]:
    """Calls every hook of a manager once; what is wrong and not among its `problems`, in words.

    Args:
        hooks: with the modules that are to be tried, and no other third party's.
        stage: is told what is called next.
    """
    from hubcore.errors import HubcoreError, PluginError

    stage("calling hubcore_feature_writers")
    hooks.feature_writers()
    stage("calling hubcore_commands")
    hooks.commands()
    stage("calling hubcore_fetch")
    with tempfile.TemporaryDirectory() as folder:
        try:
            claimed = hooks.fetch(NOBODYS_URI, Path(folder), True) is not None
        except PluginError:
            claimed = False  # recorded by the manager
        except HubcoreError:
            claimed = True
    if claimed:
        what = f"its hubcore_fetch takes {NOBODYS_URI!r} for its own, and so everybody's addresses. "
        yield what + "Return None for every scheme but yours."
    if hooks.manager.hook.hubcore_upstream_loaded.get_hookimpls():
        from hubcore.loading import build_upstream

        stage("calling hubcore_upstream_loaded")
        entry = current_registry().find("hubcore:fbank")
        hooks.upstream_loaded(build_upstream(entry, None, {}), entry.card)


class _TorchClock(importlib.abc.MetaPathFinder):
    """Finds torch as ever, and tells the probe when its import begins and ends."""

    def __init__(self, probe: Probe) -> None:
        self.probe = probe

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:  # noqa: ARG002
        if name != "torch":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        loader: Any = spec and spec.loader
        if loader is None:
            return None
        execute = loader.exec_module

        def timed(module: ModuleType) -> None:
            ended = self.probe.torch_begins()
            execute(module)
            ended()

        loader.exec_module = timed
        return spec


def _state() -> dict[str, object]:
    """What belongs to the whole process and no import should change."""
    state: dict[str, object] = {
        "the working directory": os.getcwd(),
        "sys.path": tuple(sys.path),
        "the root logger": (logging.root.level, len(logging.root.handlers)),
        "sys.excepthook": id(sys.excepthook),
        "sys.stdout": id(sys.stdout),
        "the handler of SIGINT": id(signal.getsignal(signal.SIGINT)),
        **{f"the environment variable {name}": value for name, value in os.environ.items()},
    }
    torch = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "get_default_device"):
        state["torch's default dtype"] = torch.get_default_dtype()
        state["torch's default device"] = torch.get_default_device()
        state["torch's gradient mode"] = torch.is_grad_enabled()
        state["torch's seed"] = torch.initial_seed()
        state["torch's number of threads"] = torch.get_num_threads()
        state["torch's deterministic mode"] = torch.are_deterministic_algorithms_enabled()
    return state


def _changes(before: Mapping[str, object], after: Mapping[str, object]) -> list[str]:
    """What differs, with the values where they say something."""
    changed = []
    for name in sorted({*before, *after}):
        old, new = before.get(name), after.get(name)
        if old != new:
            told = name.startswith(("torch's", "the working"))
            changed.append(f"{name} from {old} to {new}" if told else name)
    return changed


def _wants_weights(cls: type[Any]) -> bool:
    """Whether a class is of use only with a checkpoint, so that nothing is to be built without one."""
    from hubcore.loading import reads_checkpoints
    from hubcore.upstream import UpstreamBase

    return reads_checkpoints(cls) or (not issubclass(cls, UpstreamBase) and callable(getattr(cls, "from_checkpoint", None)))


def _count(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _each_is(values: object, kind: type, as_many_as: object = None) -> bool:
    if not isinstance(values, list | tuple) or not values or not all(isinstance(value, kind) for value in values):
        return False
    return as_many_as is None or (isinstance(as_many_as, list | tuple) and len(as_many_as) == len(values))


def _flush() -> None:
    with contextlib.suppress(AttributeError, ValueError):  # the plugin may have closed it, or taken it away
        sys.stdout.flush()


def _file(module: ModuleType) -> str:
    return str(getattr(module, "__file__", None) or "")


def _is_machinery(file: str) -> bool:
    return file.startswith("<frozen ") or file in (__file__, "<string>") or f"{os.sep}importlib{os.sep}" in file
