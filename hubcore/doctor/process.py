"""Runs the examination of a plugin in a process of its own, and says what ended it if it did not end by itself."""

from __future__ import annotations

import contextlib
import importlib
import json
import linecache
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hubcore.doctor.installed import CARDS
from hubcore.doctor.report import PluginReport, Step
from hubcore.findings import Finding

TIMEOUT = 20.0
"""Seconds that one step of a plugin may take: an import, a construction, a call of a hook."""
_GRACE = 5.0
"""Seconds that a process gets to end itself before it is ended from outside."""
NO_BACKENDS = "TORCH_DEVICE_BACKEND_AUTOLOAD"
"""Keeps torch from looking for backends among all entry points."""
_START = """
import json, sys
with open(sys.argv.pop(), encoding="utf-8") as stream:
    job = json.load(stream)
sys.path[:] = job["path"]
from hubcore.doctor.checks import run
run(job)
"""
_FRAME = re.compile(r'  File "(.+)", line (\d+),? in (.+)')
_CHECKS = str(Path(__file__).with_name("checks.py"))
_MACHINERY = ("<frozen ", "<string>", _CHECKS, str(Path(__file__).with_name("examination.py")), importlib.__file__)
_FILES = ("job", "out", "crash", "stdout", "stderr")

Part = tuple[str, str, str]
"""Group, name and value of an entry point."""


def examine(report: PluginReport, parts: Sequence[Part], timeout: float = TIMEOUT, **options: Any) -> None:
    """Adds to a report what the examination of its distribution gives; it begins again behind a part that ends the process."""
    first = 0
    while first < len(parts):
        with tempfile.TemporaryDirectory() as folder:
            files = {name: str(Path(folder, name)) for name in _FILES}
            job = {"distribution": report.distribution, "parts": parts, "first": first, "timeout": timeout, **options, **files}
            current, stage = -1, ""
            for event in _run(job):
                current, stage = event.get("part", current), event.get("stage", stage)
                part = parts[max(current, 0)]
                if "ended" in event and stage != "finished":
                    found = _of_death(stage, event["ended"], folder, timeout)
                    report.steps.append(Step("process", part[2], "finding", found["what"]))
                    _take(report, {"finding": found}, part)
                _take(report, event, part)
        if stage == "finished" or current < 0:  # one that does not even start would not start the next time
            return
        first = current + 1


def _take(report: PluginReport, event: Mapping[str, Any], part: Part) -> None:
    """Adds to a report what the examination said of a part."""
    report.seconds += event.get("seconds", 0.0)
    if "step" in event:
        report.steps.append(Step(**event["step"]))
    if "finding" in event:
        found = {"owner": report.distribution, **event["finding"]}
        found["version"] = report.version if found["owner"] == report.distribution else ""
        found["entry_point"] = "" if part[0] == CARDS else "{1} = {2} ({0})".format(*part)
        report.findings.append(Finding(**{**found, "traceback": tuple(found["traceback"])}))


def _run(job: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Runs one examination; its events as they come, then its exit status as `ended`, None if it was ended for its time."""
    path = [os.path.abspath(place) for place in sys.path]
    Path(job["job"]).write_text(json.dumps({**job, "path": sys.path}), "utf-8")
    environment = {
        **os.environ,
        "HUBCORE_OFFLINE": "1",  # an examination must not start a download of gigabytes
        "PYTHONIOENCODING": "utf-8:replace",
        "PYTHONPATH": os.pathsep.join(path),
    }
    if entry_points_error() is not None:
        environment.setdefault(NO_BACKENDS, "0")  # or every plugin would be blamed for what one has done
    with open(job["stdout"], "wb") as stdout, open(job["stderr"], "wb") as stderr, open(job["out"], "w+b") as out:
        process = subprocess.Popen(  # noqa: S603 - this interpreter, a constant text, and a job as data
            [sys.executable, "-c", _START, job["job"]],
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            env=environment,
            start_new_session=True,  # so that what it started itself can be ended with it
        )
        try:
            line, until, running = b"", time.monotonic() + job["timeout"] + _GRACE, True
            while running:
                running = process.poll() is None
                while True:
                    line += out.readline()
                    if not line.endswith(b"\n"):
                        break
                    event = json.loads(line)
                    line, until = b"", time.monotonic() + event.get("limit", job["timeout"]) + _GRACE
                    yield event
                if running and time.monotonic() > until:
                    yield {"ended": None}
                    return
                time.sleep(0.02 * running)
            yield {"ended": process.returncode}
        finally:
            if process.poll() is None:
                _kill(process)
                process.wait()


def _kill(process: subprocess.Popen[bytes]) -> None:
    if hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()


def entry_points_error() -> Exception | None:
    """Error of a request for all entry points at once, as torch makes it; None if it works."""
    try:
        importlib.metadata.entry_points(group="torch.backends")
    except Exception as error:  # whatever broken metadata raises
        return error
    return None


def _of_death(stage: str, status: int | None, folder: str, timeout: float) -> dict[str, Any]:
    """Cause of the process's end, and the place, if Python could tell."""
    report, said = (_text(Path(folder, name)) for name in ("crash", "stderr"))
    threads = report.split("\n\n")
    main = next((thread for thread in threads if _CHECKS in thread), threads[0])
    # Python prints a traceback with the last call at its end, faulthandler with the last call first.
    calls = _FRAME.findall(main)[::-1] or _FRAME.findall(said)
    frames = [(file, int(line), name) for file, line, name in calls if not file.startswith(_MACHINERY)]
    lines = [text for frame in frames for text in _frame_lines(*frame)]
    lines = [*lines, *said.splitlines()[-1:]] if not report else lines or said.splitlines()[-3:]
    # The frames of the import system and of the standard library above the plugin's own say nothing.
    file, line = next(((file, line) for file, line, _ in reversed(frames) if not _is_library(file)), ("", None))
    stage = stage or "starting Python"
    if status is None or report.startswith("Timeout"):
        what = f"{stage} takes longer than {timeout:g} s, and was ended. Whoever uses it waits for as long as it takes."
        fix = "Fix or update that distribution, or give `hubcore doctor` a longer --timeout."
    else:
        how = f"signal {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
        what = f"{stage} ends the whole process ({how}), which nothing can catch."
        fix = (
            "Uninstall or update that distribution. hubcore cannot protect you from a plugin that kills the process, but that "
        )
        fix += "happens only when you load it."
    return {"what": what, "fix": fix, "file": file, "line": line, "traceback": lines}


def _text(path: Path) -> str:
    return path.read_text("utf-8", "replace") if path.is_file() else ""


def _frame_lines(file: str, line: int, name: str) -> Iterator[str]:
    yield f'  File "{file}", line {line}, in {name}'
    source = linecache.getline(file, line).strip()
    if source:
        yield f"    {source}"


def _is_library(file: str) -> bool:
    return file.startswith(os.path.dirname(os.__file__) + os.sep) and "site-packages" not in file
