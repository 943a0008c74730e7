"""Processor time and memory of imports, in fresh interpreters."""

from __future__ import annotations

import importlib.util
import statistics
import subprocess
import sys
from functools import partial

from tests.benchmarks.measure import Section, children_cpu, interleaved, peak_memory, ratio, table

IMPORTS = {
    "torch": "import torch",
    "hubcore": "import hubcore",
    "hubcore, a small model loaded": "from hubcore import hub; hub.load('wav2vec2_tiny_prompts')",
    "transformers": "from transformers import Wav2Vec2Model",
    "s3prl": "from s3prl.upstream.wav2vec2.wav2vec2_model import Wav2Vec2Model",
    "torchaudio": "import torchaudio.models",
}


def run() -> Section:
    """The table."""
    chosen = {name: code for name, code in IMPORTS.items() if importlib.util.find_spec(name.partition(",")[0])}
    runs = {name: partial(subprocess.run, [sys.executable, "-c", code], check=True) for name, code in chosen.items()}
    seconds = interleaved(runs, rounds=7, clock=children_cpu)
    rows = [
        [f"`{code}`", f"{statistics.median(seconds[n]):.2f}", ratio(seconds, n, "torch"), f"{peak_memory(code) / 1e6:.0f}"]
        for n, code in chosen.items()
    ]
    headers = ["fresh interpreter", "processor time, s", "times `import torch`", "peak MB"]
    return Section("Import", table(headers, rows), {name: statistics.median(times) for name, times in seconds.items()})
