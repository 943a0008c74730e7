"""Chunks against one pass: the error by layer, and the peak memory of an hour.

Real speech of `tests/data/speech` is repeated to two minutes, quieter each time: no chunk has the statistics of the whole.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hubcore import hub
from hubcore.audio import find_audio, load_audio
from hubcore.cli.table import format_table
from hubcore_wav2vec2 import Wav2Vec2Upstream

SPEECH = Path(__file__).parents[1] / "data/speech"
LENGTHS = ((30, 0), (30, 2), (30, 5), (30, 10), (10, 5))
_HOUR = """
import resource, sys, torch
from hubcore_wav2vec2 import Wav2Vec2Upstream
torch.set_num_threads(1)
model = Wav2Vec2Upstream.from_config("base").eval()
wav = torch.randn(16000 * int(sys.argv[1]))
with torch.inference_mode():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for chunk in model.stream(wav, layers=[2]):
        pass
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def speech(seconds: int) -> Tensor:
    """Real prompts one after the other, `(T,)`."""
    prompts = torch.cat([load_audio(path) for path in find_audio([SPEECH])])
    repeated = [prompts * 0.8**number for number in range(-(-seconds * 16000 // len(prompts)))]
    return torch.cat(repeated)[: seconds * 16000]


@torch.inference_mode()
def errors(model: Any, wav: Tensor) -> Iterator[list[str]]:
    """For each choice of lengths the relative error of each hidden state, in the Euclidean norm."""
    whole = model([wav]).hidden_states
    for chunk, overlap in LENGTHS:
        parts = [part.hidden_states for part in model.stream(wav, chunk_seconds=chunk, overlap_seconds=overlap)]
        joined = [torch.cat(states) for states in zip(*parts, strict=True)]
        wrong = [float((a - b[0]).norm() / b[0].norm()) for a, b in zip(joined, whole, strict=True)]
        yield [f"{chunk} s", f"{overlap} s", *(f"{error:.0e}" if error < 1e-3 else f"{100 * error:.2g} %" for error in wrong)]


def run() -> str:
    """The tables."""
    wav = speech(120)
    torch.manual_seed(0)
    tables = []
    for name, model in (
        ("wav2vec2_tiny_prompts", hub.load("wav2vec2_tiny_prompts")),
        ("base, random weights, 4 of 12 blocks", Wav2Vec2Upstream.from_config("base", num_layers=4).eval()),
        ("fbank", hub.load("fbank")),
    ):
        names = [f"layer {number}" for number in range(len(model.layer_names))]
        tables.append(f"{name}, {len(wav) // 16000} s\n" + format_table(["chunk", "overlap", *names], [*errors(model, wav)]))
    for seconds in (600, 3600):
        done = subprocess.run([sys.executable, "-c", _HOUR, str(seconds)], capture_output=True, text=True, check=True)
        tables.append(f"memory above model and waveform, base, 2 blocks, {seconds} s: {done.stdout.strip()} MiB")
    return "\n\n".join(tables)


if __name__ == "__main__":
    print(run())
