"""The examination of one plugin, in a process of its own that `hubcore.doctor.process` starts, bounds in time, and reads.

Each line that it writes is a JSON object, flushed at once, so that a process that dies has told what it was doing.
"""

from __future__ import annotations

import contextlib
import faulthandler
import importlib
import json
import logging
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import EntryPoint
from types import ModuleType
from typing import IO, Any, NoReturn

from hubcore.doctor.installed import find_plugin
from hubcore.errors import HubcoreError
from hubcore.registry.names import module_of
from hubcore.text import error_text, message_text, plural

_HUBCORE = os.path.dirname(os.path.dirname(__file__)) + os.sep
FIX = "Fix or update that distribution; nothing else is harmed."

Place = tuple[str, int | None]
"""A file, and a line in it."""
NOWHERE: Place = ("", None)


class Examination:
    """The examination of one distribution, in the process that it may spoil.

    Args:
        job: `distribution`; `parts`, each (group, name, value) of an entry point; `first`, the index of the part to begin
            with; `conformance`, whether to load checkpoints that are here and run the conformance kit; `exempt`, exemptions of
            it by name of the upstream, "" for all; `timeout` in seconds; and the files `out`, `crash` and `stdout`.
    """

    def __init__(self, job: Mapping[str, Any]) -> None:
        self.job = job
        # Open until the process ends: faulthandler writes to the one when nothing else runs any more.
        self._out = open(job["out"], "a", encoding="utf-8")  # noqa: SIM115
        self._crash: IO[str] = open(job["crash"], "w", encoding="utf-8")  # noqa: SIM115
        self.leave = watch_exit(self._crash)
        """Ends the process, whatever threads are still running."""
        self.found = 0
        """Findings of this step, without warnings."""
        self.stage("hub.list() in a fresh interpreter")
        self.plugin = find_plugin(job["distribution"])
        self._roots = self.plugin.roots()

    def say(self, **event: object) -> None:
        """Writes one line."""
        self._out.write(json.dumps(event) + "\n")
        self._out.flush()

    def stage(self, stage: str, seconds: float | None = None) -> None:
        """Notes what is done next, and gives it its time."""
        seconds = seconds or self.job["timeout"]
        self.say(stage=stage, limit=seconds)
        faulthandler.dump_traceback_later(seconds, exit=True, file=self._crash)

    @contextlib.contextmanager
    def step(self, what: str, name: str, place: Place = NOWHERE) -> Iterator[list[str]]:
        """One step of the report; the block appends to the list what it saw, or nothing to leave the step out."""
        self.found, seen = 0, list[str]()
        try:
            yield seen
        except (Exception, SystemExit) as error:
            self.error(f"{name} cannot be examined", error, place)
        if self.found or seen:
            detail = plural(self.found, "finding") if self.found else seen[-1]
            self.say(step={"what": what, "name": name, "result": "finding" if self.found else "ok", "detail": detail})

    def skip(self, name: str, why: str) -> None:
        """Notes an upstream that cannot be checked here."""
        self.say(step={"what": "conformance", "name": name, "result": "not checked", "detail": why})

    def finding(
        self,
        what: str,
        fix: str,
        place: Place = NOWHERE,
        *,
        error: BaseException | None = None,
        warning: bool = False,
        **more: str,
    ) -> None:
        """Tells of something that is wrong; a warning is what harms without breaking."""
        own, lines = self._shown(error) if error is not None else (NOWHERE, [])
        file, line = own if own[0] else place
        self.found += not warning
        self.say(finding={"what": what, "fix": fix, "file": file, "line": line, "traceback": lines, "warning": warning, **more})

    def error(self, what: str, error: BaseException, place: Place) -> None:
        """Tells of something that failed."""
        if isinstance(error, HubcoreError):  # its own words, and the traceback of what it is about
            cause = " ".join(message_text(error.what).split())
            self.finding(f"{what}: {cause}", message_text(error.fix) or FIX, place, error=error.__cause__ or error)
        else:
            self.finding(f"{what}: {error_text(error).rstrip('.')}.", FIX, place, error=error)

    def _shown(self, error: BaseException) -> tuple[Place, list[str]]:
        """Place where the plugin's own code failed, and the traceback without frames of other packages."""
        whole = traceback.TracebackException.from_exception(error)
        place = NOWHERE
        part: traceback.TracebackException | None = whole
        for _ in range(10):
            if part is None:
                break
            own = [
                f for f in part.stack if any(f.filename == root or f.filename.startswith(root + os.sep) for root in self._roots)
            ]
            last = [frame for frame in part.stack[-1:] if frame not in own and not _is_machinery(frame.filename)]
            part.stack = traceback.StackSummary.from_list([*own, *last])
            if own and not place[0]:
                place = own[-1].filename, own[-1].lineno
            part = part.__cause__ or part.__context__
        if isinstance(error, SyntaxError) and error.filename and not place[0]:
            place = error.filename, error.lineno
        return place, "".join(whole.format()).rstrip().splitlines()

    def imported(self, point: EntryPoint) -> ModuleType | None:
        """The module of an entry point, with a look at what its import costs and changes; None if it cannot be imported."""
        name = module_of(point)
        _flush()
        printed, before, began = os.path.getsize(self.job["stdout"]), _state(), time.monotonic()
        self.stage(f"importing {name}")
        try:
            module = importlib.import_module(name)
        except BaseException as error:  # an import may end in anything, SystemExit and KeyboardInterrupt included
            self.finding(f"{name} cannot be imported: {error_text(error)}.", FIX, self.plugin.place(point), error=error)
            return None
        seconds, place = time.monotonic() - began, (file_of(module), None)
        self.say(seconds=round(seconds, 3))
        if seconds > self.job["timeout"] / 4:
            what = f"importing {name} takes {seconds:.1f} s, torch not counted. Its first use waits for that."
            self.finding(what, "Import what is heavy inside the functions that need it.", place, warning=True)
        after = _state()
        changed = [_change(item, before.get(item), after.get(item)) for item in sorted({*before, *after})]
        if any(changed):
            what = f"importing {name} changes {'; '.join(filter(None, changed))}. Other code in the process runs with it too."
            self.finding(what, "Do that where a user asks for it.", place, warning=True)
        _flush()
        with open(self.job["stdout"], encoding="utf-8", errors="replace") as stream:
            stream.seek(printed)
            text = stream.read(200).strip()
        if text:
            what = f"importing {name} prints {text[:60]!r}, in the midst of what hubcore prints for programs."
            self.finding(what, "Use logging.", place, warning=True)
        return module


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


def file_of(module: ModuleType) -> str:
    """The file of a module, if it has one."""
    return str(getattr(module, "__file__", None) or "")


def _state() -> dict[str, object]:
    """State of the whole process, which no import should change."""
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


def _change(item: str, before: object, after: object) -> str:
    """Lists differences of two states, with their values where these are readable."""
    told = f" from {before} to {after}" if item.startswith(("torch's", "the working")) else ""
    return "" if before == after else item + told


def _flush() -> None:
    with contextlib.suppress(AttributeError, ValueError):  # the plugin may have closed it, or taken it away
        sys.stdout.flush()


def _is_machinery(file: str) -> bool:
    return file.startswith(("<frozen ", "<string>", _HUBCORE)) or f"{os.sep}importlib{os.sep}" in file
