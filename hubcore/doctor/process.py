"""`check_in_process`: the check of a plugin in a process of its own, which the plugin may end or spoil. Imports no torch."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hubcore.doctor.diagnosis import how_it_ended, last_words
from hubcore.doctor.distribution import check_plugin
from hubcore.doctor.probe import watch_exit
from hubcore.doctor.report import Finding, PluginReport
from hubcore.errors import HubcoreError, OptionError

_START = """
import json, sys
with open(sys.argv.pop(), encoding="utf-8") as stream:
    job = json.load(stream)
sys.path[:] = job["path"]
from hubcore.doctor.process import run
run(job)
"""


def check_in_process(distribution: str, exempt: Mapping[str, str] | None = None) -> PluginReport:
    """What `check_plugin` gives; a plugin that ends the process is a finding, and what it prints is not seen.

    Raises:
        OptionError: as `check_plugin` does.

    Example:
        >>> check_in_process("hubcroe")
        Traceback (most recent call last):
        ...
        hubcore.errors.OptionError: no installed distribution is called 'hubcroe'. The nearest are hubcore... all names.
    """
    with tempfile.TemporaryDirectory() as folder:
        job: dict[str, Any] = {"path": sys.path, "distribution": distribution, "exempt": dict(exempt or {})}
        job |= {name: str(Path(folder, name)) for name in ("job", "crash", "report")}
        said = Path(folder, "stderr")
        Path(folder, "job").write_text(json.dumps(job), "utf-8")
        with said.open("wb") as stderr:
            ended = subprocess.run(  # noqa: S603 - this interpreter, a constant text, and a job as data
                [sys.executable, "-c", _START, job["job"]],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                check=False,
            ).returncode
        report = Path(folder, "report")
        if not report.is_file():
            crash = Path(folder, "crash").read_text("utf-8", "replace") if Path(folder, "crash").is_file() else ""
            return _of_death(distribution, ended, crash, said.read_text("utf-8", "replace"))
        data = json.loads(report.read_text("utf-8"))
    if "error" in data:
        raise OptionError(data["error"])
    return PluginReport.from_dict(data)


def run(job: Mapping[str, Any]) -> None:
    """Checks, in the process that may be spoilt, and ends it, whatever threads are still running."""
    # Open until the process ends: faulthandler writes to it when nothing else runs any more.
    leave = watch_exit(open(job["crash"], "w", encoding="utf-8"))  # noqa: SIM115
    try:
        data = check_plugin(job["distribution"], job["exempt"]).to_dict()
    except HubcoreError as error:
        data = {"error": str(error)}
    Path(job["report"]).write_text(json.dumps(data), "utf-8")
    leave(0)


def _of_death(distribution: str, ended: int, crash: str, said: str) -> PluginReport:
    """What can be said of a check that the plugin has ended."""
    place, lines = last_words(crash, said, __file__)
    try:
        version = importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        version = "?"
    report = PluginReport(distribution, version)
    where = f" The last that ran: {' '.join(lines[-1].split())}." if lines else ""
    finding = Finding.of(
        f"code of the distribution ends the whole process ({how_it_ended(ended)}), so that it could not be checked.{where}",
        place,
        "Whoever uses it loses the program: raise an exception instead. `hubcore doctor` shows more.",
    )
    report.add("process", distribution, [finding], "")
    return report
