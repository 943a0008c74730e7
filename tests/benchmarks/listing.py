"""`hub.list()` in a fresh interpreter, with no plugin installed and with fifty."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.benchmarks.measure import table
from tests.packaging.many_plugins import COUNT, install_many

SCRIPT = """
import time
began = time.perf_counter()
from hubcore import hub
imported = time.perf_counter()
names = hub.list()
print([imported - began, time.perf_counter() - imported, len(names)])
"""
ROUNDS = 15


def run() -> str:
    """The table: medians, and the smallest and largest, of interleaved rounds."""
    with tempfile.TemporaryDirectory() as folder:
        site = install_many(Path(folder))
        paths = {"bare interpreter": None, "no plugin": "", f"{COUNT} plugins": str(site)}
        spent: dict[str, list[tuple[float, float, float, int]]] = {name: [] for name in paths}
        for number in range(ROUNDS + 1):
            for name, path in paths.items():
                measured = fresh("print([0, 0, 0])" if path is None else SCRIPT, path or "")
                if number:  # the first round fills the caches of the file system
                    spent[name].append(measured)
    rows = []
    for name, measurements in spent.items():
        wall, imported, listed, names = zip(*measurements, strict=True)
        rows.append([name, str(names[0]), *(milliseconds(values) for values in (wall, imported, listed))])
    headers = ["installed", "names", "whole process, ms", "import hubcore.hub, ms", "hub.list(), ms"]
    return f"{ROUNDS} interleaved fresh interpreters each\n\n" + table(headers, rows)


def fresh(script: str, path: str) -> tuple[float, float, float, int]:
    """Seconds of a whole process, and what it says itself."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(Path.cwd()), path]))}
    began = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment)
    wall = time.perf_counter() - began
    imported, listed, names = json.loads(done.stdout)
    return wall, imported, listed, names


def milliseconds(seconds: tuple[float, ...]) -> str:
    """Median, minimum and maximum."""
    low, middle, high = (1000 * value for value in (min(seconds), statistics.median(seconds), max(seconds)))
    return f"{middle:.0f} ({low:.0f}-{high:.0f})"
