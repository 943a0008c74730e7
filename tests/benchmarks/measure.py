"""How everything here is measured: interleaved runs, medians, ratios of neighbours; memory of a process of its own."""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import torch

Name = TypeVar("Name", bound=Hashable)


@dataclass(frozen=True)
class Sizes:
    """How large everything is."""

    quick: bool
    """One round of each, to see that all of it runs: its numbers mean nothing."""

    @property
    def scale(self) -> float:
        """Factor of durations."""
        return 0.05 if self.quick else 1.0

    @property
    def layers(self) -> int:
        """Most blocks of a model."""
        return 1 if self.quick else 48


_sizes = Sizes(quick=False)


def sizes(quick: bool | None = None) -> Sizes:
    """The sizes in use, changed if `quick` is given."""
    global _sizes
    if quick is not None:
        _sizes = Sizes(quick)
    return _sizes


@dataclass(frozen=True)
class Section:
    """The result of one benchmark, kept as JSON; the page is made of all that are kept."""

    title: str
    text: str
    """Markdown."""
    figures: dict[str, float] = field(default_factory=dict)
    """Numbers by name, for the plot and for comparison with an earlier run."""
    machine: str = ""
    """The processor, torch and the day."""


@contextmanager
def threads(count: int) -> Iterator[None]:
    """A context in which torch has `count` threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


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
    rounds, warm_up = (1, 0) if sizes().quick else (rounds, warm_up)
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
    return int(fresh(script + "\n" + PEAK).rsplit("\n", 1)[-1])


def fresh(script: str) -> str:
    """What a fresh interpreter prints that runs `script`."""
    return subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, check=True).stdout


def table(headers: list[str], rows: list[list[str]]) -> str:
    """Rows as Markdown."""
    lines = ["| " + " | ".join(headers) + " |", "|" + "---|" * len(headers)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])
