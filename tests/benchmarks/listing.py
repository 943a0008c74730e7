"""`hub.list()` and `hubcore list` in fresh interpreters, with no plugin installed and with fifty."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.benchmarks.measure import children_cpu, interleaved, ratio, table
from tests.packaging.many_plugins import COUNT, install_many

RUNS = {
    "a bare interpreter": ("-c", "pass"),
    "`from hubcore import hub`": ("-c", "from hubcore import hub"),
    "`hub.list()`": ("-c", "from hubcore import hub; hub.list()"),
    "`hubcore list`": ("-m", "hubcore", "list"),
}
ROUNDS = 15


def run() -> str:
    """The table: processor time of whole processes, medians of interleaved rounds, and the ratio to a bare interpreter."""
    with tempfile.TemporaryDirectory() as folder:
        sites = {"no plugin": "", f"{COUNT} plugins": str(install_many(Path(folder)))}
        runs = {(name, there): fresh(RUNS[name], site, folder) for name in RUNS for there, site in sites.items()}
        seconds = interleaved(runs, rounds=ROUNDS, clock=children_cpu)
    rows = [
        [name, there, f"{1000 * statistics.median(seconds[name, there]):.0f}", ratio(seconds, (name, there), (bare, there))]
        for bare in [next(iter(RUNS))]
        for name, there in runs
    ]
    headers = ["process", "installed", "processor time, ms", "times a bare interpreter"]
    return f"{ROUNDS} interleaved fresh interpreters each\n\n" + table(headers, rows)


def fresh(arguments: tuple[str, ...], site: str, folder: str) -> Callable[[], object]:
    """A run of a fresh interpreter; bytecode is kept, as where pip installed a package."""
    path = os.pathsep.join(filter(None, [str(Path.cwd()), site]))
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONPYCACHEPREFIX": f"{folder}/bytecode"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    return lambda: subprocess.run([sys.executable, *arguments], capture_output=True, check=True, env=environment)
