"""Kaldi filter banks with derivatives and CMVN, one thread, processor time, beside torchaudio where it is installed."""

from __future__ import annotations

import importlib.util
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from hubcore import hub
from tests.benchmarks.measure import Section, interleaved, ratio, sizes, table, threads
from tests.benchmarks.speed import LONG, SHORT


@torch.inference_mode()
def run() -> Section:
    """The table."""
    rows, figures, ours = [], {}, hub.load("fbank")
    for name, durations in {"16 short": SHORT, "4 long": LONG}.items():
        wavs = [0.1 * torch.randn(int(16000 * max(0.3, sizes().scale * seconds))) for seconds in durations]
        runs: dict[str, Callable[[], object]] = {
            "hubcore": lambda wavs=wavs: ours(wavs),  # type: ignore[misc]
            "hubcore, one by one": lambda wavs=wavs: [ours([wav]) for wav in wavs],  # type: ignore[misc]
        }
        if importlib.util.find_spec("torchaudio"):
            runs["torchaudio"] = lambda wavs=wavs: [_torchaudio(wav) for wav in wavs]  # type: ignore[misc]
        with threads(1):
            seconds = interleaved(runs, rounds=15, clock=time.process_time)
        speed = sum(len(wav) for wav in wavs) / 16000 / statistics.median(seconds["hubcore"])
        peer = ratio(seconds, "torchaudio", "hubcore") if "torchaudio" in runs else "-"
        rows.append([name, f"{speed:.0f}", ratio(seconds, "hubcore, one by one", "hubcore"), peer])
        figures[name] = speed
    headers = ["utterances", "one batch, x real time", "one by one / one batch", "torchaudio / one batch"]
    return Section("Filter banks", table(headers, rows), figures)


def _torchaudio(wav: Tensor) -> Tensor:
    from torchaudio.compliance.kaldi import fbank
    from torchaudio.functional import compute_deltas

    features = fbank(wav[None], num_mel_bins=80, dither=0.0).t()
    deltas = compute_deltas(features)
    stacked = torch.cat([features, deltas, compute_deltas(deltas)])
    normal: Tensor = (stacked - stacked.mean(1, keepdim=True)) / (stacked.std(1, keepdim=True) + 1e-10)
    return normal
