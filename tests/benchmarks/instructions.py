"""Instructions of one call, which other work on the machine does not change: `python -m tests.benchmarks instructions`.

Counted by `perf stat` where the kernel lets it, else by valgrind (a hundred times slower, without AVX-512). A process with one
call is taken from one with two, so that imports and loading drop out.
"""

from __future__ import annotations

import re
import subprocess
import sys

from tests.benchmarks.measure import Section, sizes, table
from tests.benchmarks.peers import OURS, peers

LENGTHS = {"1 x 2 s": [2.0], "4 of 1 to 4 s, one batch": [1.0, 2.0, 3.0, 4.0]}
SCRIPT = """
import sys, torch
from tests.benchmarks.measure import sizes
from tests.benchmarks.peers import systems
sizes({quick})
torch.manual_seed(0)
torch.set_num_threads(1)
model = systems(num_layers=2)[{system!r}]
wavs = [0.1 * torch.randn(int(16000 * seconds)) for seconds in {lengths}]
with torch.inference_mode():
    for _ in range({calls}):
        model(wavs)
"""
PERF = ("perf", "stat", "-x", ",", "-e", "instructions:u")
VALGRIND = ("valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null")


def run() -> Section:
    """The table."""
    tool = PERF if _counted((*PERF, sys.executable, "-c", "pass")) else VALGRIND
    names = [OURS, *peers()]
    rows, figures = [], {}
    for what, lengths in LENGTHS.items():
        counts = {name: _of_one_call(tool, name, lengths) for name in names}
        rows.append([what, f"{counts[OURS] / 1e9:.2f}", *(f"{counts[n] / counts[OURS]:.2f}" for n in names if n != OURS)])
        figures |= {f"{name}, {what}": float(count) for name, count in counts.items()}
    headers = ["utterances", "hubcore, thousand million", *(f"{name} / hubcore" for name in names if name != OURS)]
    text = f"2 blocks of base size, one thread, counted by `{tool[0]}`.\n\n{table(headers, rows)}"
    return Section("Instructions", text, figures)


def _of_one_call(tool: tuple[str, ...], system: str, lengths: list[float]) -> int:
    scripts = (SCRIPT.format(system=system, lengths=lengths, calls=calls, quick=sizes().quick) for calls in (1, 2))
    once, twice = (_counted((*tool, sys.executable, "-c", script)) for script in scripts)
    return twice - once


def _counted(command: tuple[str, ...]) -> int:
    """The instructions of a process as its tool tells them; 0 if it cannot."""
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
    found = re.search(r"Collected : (\d+)|^(\d+),[^,]*,instructions", done.stderr, re.MULTILINE)
    return int(found[1] or found[2]) if found else 0
