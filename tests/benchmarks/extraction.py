"""A bulk extraction beside its model alone: 450 s of audio, base size, one thread, processor time.

The bare loop decodes the same files, calls the model on the same batches, and throws the features away.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

import soundfile
import torch

from hubcore.audio import load_audio
from hubcore.corpus import find_utterances
from hubcore.extract import extract, make_batches
from tests.benchmarks.measure import Section, interleaved, ratio, sizes, table, threads
from tests.benchmarks.peers import OURS, systems

COUNT, SECONDS = 32, 14.0


def run() -> Section:
    """The table."""
    model = systems()[OURS]
    generator = torch.Generator().manual_seed(0)
    with tempfile.TemporaryDirectory() as name:
        folder, number = Path(name), [0]
        (folder / "audio").mkdir()
        for item in range(COUNT):
            length = int(16000 * sizes().scale * SECONDS * (0.5 + item / (COUNT - 1)))
            wav = 0.1 * torch.randn(length, generator=generator)
            soundfile.write(folder / "audio" / f"{item}.flac", wav.clamp(-1, 1).numpy(), 16000)
        made = make_batches(find_utterances([folder / "audio"]), sample_rate=16000, min_samples=400, batch_seconds=60)

        def bare() -> None:
            with torch.inference_mode():
                for batch in made.batches:
                    model([load_audio(item.utterance.source.open(), 16000) for item in batch])

        def whole() -> None:
            number[0] += 1
            extract([folder / "audio"], model, folder / f"out{number[0]}", batch_seconds=60, layers="last")  # type: ignore[arg-type]

        with threads(1):
            seconds = interleaved({"extract": whole, "bare": bare}, rounds=3, clock=time.process_time)
    above = statistics.median(a / b for a, b in zip(seconds["extract"], seconds["bare"], strict=True))
    row = [f"{made.seconds:.0f}", f"{statistics.median(seconds['bare']):.1f}", ratio(seconds, "extract", "bare")]
    headers = ["seconds of audio", "bare loop, s", "`hubcore extract` / bare loop"]
    return Section("Extraction", table(headers, [row]), {"overhead": above})
