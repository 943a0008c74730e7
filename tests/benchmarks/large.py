"""Loading a large model of random bfloat16 weights in fairseq2's layout: peak memory, bytes read, time.

The shape is `omniasr_300m` (0.6 GB on disk), or what the environment variable LARGE_SHAPE names; `omniasr_3b` needs 6 GB of
disk and 13 GB of memory.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from hubcore_wav2vec2 import CONFIGS, build_model
from hubcore_wav2vec2.checkpoint import NAMES
from tests.benchmarks.measure import table

LOADS = ("dtype=torch.bfloat16", "dtype=torch.float16", "", "layers=[12], dtype=torch.bfloat16", "layers=[12]")
SCRIPT = """
import re, sys, time, torch
from pathlib import Path
from hubcore import hub
import hubcore_wav2vec2.upstream
def figure(file, name): return int(re.search(name + r":\\s+(\\d+)", Path("/proc/self", file).read_text())[1])
memory, read, began = figure("status", "VmRSS"), figure("io", "rchar"), time.perf_counter()
model = hub.load("wav2vec2", checkpoint={path!r}, {options})
seconds, peak = time.perf_counter() - began, 1024 * (figure("status", "VmHWM") - memory)
own = sum(weight.numel() * weight.element_size() for weight in model.parameters())
print(own, figure("io", "rchar") - read, peak, seconds)
"""


def run() -> str:
    """The table."""
    shape = os.environ.get("LARGE_SHAPE", "omniasr_300m")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "large.pt"
        with torch.device("meta"):
            model = build_model(CONFIGS[shape])
        state = {name: torch.randn(weight.shape, dtype=torch.bfloat16) for name, weight in model.state_dict().items()}
        torch.save({"model": NAMES.write("fairseq2", state)}, path)
        del state
        rows = []
        for options in LOADS:
            script = SCRIPT.format(path=str(path), options=options)
            done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
            own, read, peak, seconds = map(float, done.stdout.split())
            rows.append([f"`{options}`", f"{own / 1e9:.2f}", f"{read / 1e9:.2f}", f"{peak / own:.3f}", f"{seconds:.0f}"])
        size = path.stat().st_size
    headers = ["options of hub.load", "model GB", "read GB", "peak memory, in models", "seconds"]
    return f"{shape}, file {size / 1e9:.2f} GB\n\n" + table(headers, rows)
