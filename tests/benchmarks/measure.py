"""How everything here is measured: interleaved runs, medians, ratios of neighbours; memory of a process of its own."""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Hashable, Mapping
from typing import TypeVar

Name = TypeVar("Name", bound=Hashable)

# Linux's own high-water mark: getrusage's would start at that of the parent.
PEAK = """
import pathlib, re, sys
status = pathlib.Path("/proc/self/status").read_text()
sys.stdout.write("\\n" + str(1024 * int(re.search(r"VmHWM:\\s+(\\d+)", status)[1])))
"""


def interleaved(
    runs: Mapping[Name, Callable[[], object]],
    rounds: int = 7,
    warm_up: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[Name, list[float]]:
    """Seconds of each callable in each round, run in turn so that a machine that slows down slows all of them."""
    seconds: dict[Name, list[float]] = {name: [] for name in runs}
    for number in range(warm_up + rounds):
        for name, run in runs.items():
            began = clock()
            run()
            if number >= warm_up:
                seconds[name].append(clock() - began)
    return seconds


def ratio(seconds: Mapping[Name, list[float]], of: Name, to: Name) -> str:
    """Median, minimum and maximum of the round-by-round ratio of two callables."""
    ratios = sorted(a / b for a, b in zip(seconds[of], seconds[to], strict=True))
    return f"{statistics.median(ratios):.2f} ({ratios[0]:.2f}-{ratios[-1]:.2f})"


def children_cpu() -> float:
    """Seconds of processor time that finished child processes used: a clock for `interleaved`."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def peak_memory(script: str) -> int:
    """The largest resident size, in bytes, of a fresh interpreter that runs `script`."""
    done = subprocess.run([sys.executable, "-c", script + "\n" + PEAK], capture_output=True, text=True, check=True)
    return int(done.stdout.rsplit("\n", 1)[-1])


def table(headers: list[str], rows: list[list[str]]) -> str:
    """Rows as Markdown."""
    lines = ["| " + " | ".join(headers) + " |", "|" + "---|" * len(headers)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])
