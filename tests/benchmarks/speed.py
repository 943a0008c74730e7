"""wav2vec 2.0, all hidden states, beside the peers: one thread by processor time, two threads by the clock on the wall.

Two threads are measured twice: by themselves, and beside a process that keeps one core busy.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial

import torch
from torch.nn import functional

from hubcore.nn import linear
from hubcore_wav2vec2 import CONFIGS
from tests.benchmarks.measure import Section, interleaved, ratio, sizes, table, threads
from tests.benchmarks.peers import OURS, Call, flops, peers, systems

SHORT = [1.2, 2.3, 0.8, 3.1, 1.9, 2.2, 0.7, 4.0, 5.2, 1.1, 9.6, 2.9, 1.6, 0.9, 4.9, 2.2]
"""Lengths of 16 spoken prompts; padded, they have 3.4 times their samples, as a random batch of Asterisk's prompts has."""
LONG = [9.2, 19.6, 14.1, 14.8]
SETTINGS: dict[str, tuple[str, int | None, Sequence[float], int]] = {
    "16 short, one by one": ("base", None, SHORT, 1),
    "16 short, one batch": ("base", None, SHORT, 16),
    "4 long, one by one": ("base", None, LONG, 1),
    "4 long, one batch": ("base", None, LONG, 4),
    "large, 8 of 24 layers, 4 long, one batch": ("large_lv60", 8, LONG, 4),
}
"""Name -> shape, its layers, seconds of the utterances, utterances in a batch."""


@torch.inference_mode()
def run() -> Section:
    """Three tables, and the ratios that the plot shows."""
    parts, figures = [], {}
    for title, count, rounds, clock, beside in (
        ("1 thread, processor time", 1, 3, time.process_time, nullcontext),
        ("2 threads, time on the wall", 2, 3, time.perf_counter, nullcontext),
        ("2 threads beside a busy core, time on the wall", 2, 7, time.perf_counter, _busy_core),
    ):
        with threads(count), beside():
            rows = []
            for setting in SETTINGS:
                row, ratios = _measured(setting, rounds, clock)
                print(title, *row, sep=" | ", flush=True)
                rows.append(row)
                figures |= {f"{name}, {title}, {setting}": value for name, value in ratios.items()}
        headers = [
            "utterances",
            "x real time",
            "time / floor",
            "time / floor of torch's product",
            *(f"{name} / hubcore" for name in peers()),
        ]
        parts.append(f"{title}, median (least-most) of {rounds} rounds:\n\n{table(headers, rows)}")
    return Section("Speed", "\n\n".join(parts), figures)


@contextmanager
def _busy_core() -> Iterator[None]:
    """A context in which another process keeps the first core busy."""
    script = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\nwhile True: pass"
    with subprocess.Popen([sys.executable, "-c", script]) as process:
        try:
            yield
        finally:
            process.kill()


def _measured(setting: str, rounds: int, clock: Callable[[], float]) -> tuple[list[str], dict[str, float]]:
    shape, layers, durations, size = SETTINGS[setting]
    name = shape if shape in CONFIGS else "large"
    wavs = [0.1 * torch.randn(int(16000 * sizes().scale * seconds)) for seconds in durations]
    batches = [wavs[i : i + size] for i in range(0, len(wavs), size)]
    calls = systems(name, layers)
    config = calls[OURS].config  # type: ignore[attr-defined]
    runs: dict[str, Callable[[], object]] = {system: partial(_all, call, batches) for system, call in calls.items()}
    runs |= {"product": product, "torch's product": partial(product, functional.linear)}
    seconds = interleaved(runs, rounds=rounds, clock=clock)
    work = sum(flops(config, len(wav)) for wav in wavs)
    above = []
    for name in ("product", "torch's product"):
        ratios = sorted(a / (b * work / PRODUCT_FLOPS) for a, b in zip(seconds[OURS], seconds[name], strict=True))
        above.append(f"{statistics.median(ratios):.2f} ({ratios[0]:.2f}-{ratios[-1]:.2f})")
    audio = sum(len(wav) for wav in wavs) / 16000
    others = [system for system in calls if system != OURS]
    row = [
        setting,
        f"{audio / statistics.median(seconds[OURS]):.2f}",
        *above,
        *(ratio(seconds, system, OURS) for system in others),
    ]
    medians = {s: statistics.median(a / b for a, b in zip(seconds[s], seconds[OURS], strict=True)) for s in others}
    return row, medians


def _all(call: Call, batches: list[list[torch.Tensor]]) -> None:
    for batch in batches:
        call(batch)


_LEFT, _RIGHT = torch.randn(1024, 768), torch.randn(3072, 768)
_TIMES = 4
PRODUCT_FLOPS = 2.0 * 1024 * 768 * 3072 * _TIMES


def product(multiply: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] = linear) -> None:
    """Matrix products of the blocks' shape: the speed that every operation would have at best."""
    for _ in range(_TIMES):
        multiply(_LEFT, _RIGHT)
