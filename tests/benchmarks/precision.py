"""Low precision on a CPU: speed, and the error of every layer, of bfloat16 (`dtype=`) and of int8 linears (torch's own).

int8 is measured, not offered: torch's way to it is deprecated, and its error is several per cent.
"""

from __future__ import annotations

import copy
import time
import warnings
from typing import Any

import torch
from torch import Tensor, nn

from hubcore_wav2vec2 import Wav2Vec2Upstream
from tests.benchmarks.measure import interleaved, ratio, table

SECONDS = 10


def models() -> dict[str, Any]:
    """wav2vec 2.0 base with random weights, in each precision."""
    torch.manual_seed(0)
    plain = Wav2Vec2Upstream.from_config("base").eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's remarks that this is deprecated
        int8 = torch.ao.quantization.quantize_dynamic(copy.deepcopy(plain), {nn.Linear}, dtype=torch.qint8)
    return {"float32": plain, "bfloat16": copy.deepcopy(plain).to(torch.bfloat16), "int8 linears": int8}


def error(state: Tensor, wanted: Tensor) -> tuple[float, float]:
    """The relative error of a hidden state, and the lowest cosine of a frame."""
    state = state.float()
    lowest = float(nn.functional.cosine_similarity(state, wanted, dim=-1).min())
    return float((state - wanted).norm() / wanted.norm()), lowest


@torch.inference_mode()
def run() -> str:
    """A table of speed and one of errors, layer by layer; one thread, the process's own clock."""
    torch.set_num_threads(1)
    made = models()
    wav = torch.randn(16000 * SECONDS, generator=torch.Generator().manual_seed(1)) * 0.1
    seconds = interleaved({name: lambda m=model: m([wav]) for name, model in made.items()}, rounds=5, clock=time.process_time)
    speeds = [[name, f"{SECONDS / min(taken):.1f}", ratio(seconds, "float32", name)] for name, taken in seconds.items()]
    wanted = made["float32"]([wav])
    rows = []
    states = {name: model([wav]).hidden_states for name, model in made.items() if name != "float32"}
    for layer, (title, right) in enumerate(zip(wanted.layer_names, wanted.hidden_states, strict=True)):
        cells = [f"{relative:.4f} ({cosine:.4f})" for relative, cosine in (error(s[layer], right) for s in states.values())]
        rows.append([title, *cells])
    flags = ", ".join(flag for flag in ("amx_bf16", "avx512_bf16", "avx512_vnni") if flag in _flags())
    return "\n\n".join(
        [
            f"Units of this CPU: {flags or 'none for bfloat16 or int8'}.",
            table(["precision", "x real time", "float32's time / its time"], speeds),
            table(["layer", *(f"{name}: relative error (lowest cosine)" for name in states)], rows),
        ]
    )


def _flags() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next((line for line in file if line.startswith("flags")), "")
    except OSError:
        return ""
