"""Only what is asked: how much of a full pass it costs to stop at a layer. Base size, one thread, processor time."""

from __future__ import annotations

import statistics
import time
from functools import partial

import torch

from hubcore import Featurizer
from hubcore_wav2vec2 import Wav2Vec2Upstream
from tests.benchmarks.measure import Section, interleaved, ratio, sizes, table, threads
from tests.benchmarks.peers import OURS, systems


@torch.inference_mode()
def run() -> Section:
    """The table."""
    model = systems()[OURS]
    assert isinstance(model, Wav2Vec2Upstream)
    wavs = [0.1 * torch.randn(int(16000 * sizes().scale * 15))]
    depths = sorted({max(1, model.num_layers * part // 4) for part in (1, 2, 3)})
    featurizer = Featurizer(model)
    with threads(1):
        runs = {f"up to layer {depth}": partial(model, wavs, layers=[depth]) for depth in depths}
        runs |= {"weighted sum": partial(featurizer.extract, model, wavs), "all": partial(model, wavs)}
        seconds = interleaved(runs, rounds=7, clock=time.process_time)
    rows = [[name, ratio(seconds, name, "all")] for name in runs]
    figures = {n: statistics.median(a / b for a, b in zip(seconds[n], seconds["all"], strict=True)) for n in runs}
    text = table([f"hidden states of {model.num_layers}", "of a full pass"], rows)
    return Section("Only the layers asked for", text, figures)
