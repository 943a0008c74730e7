"""A bulk extraction beside its model alone: 450 s of audio, base size, one thread, processor time.

The bare loop decodes the same files, calls the model on the same batches, and throws the features away. With a model that
takes no time, the files per second are those of decoding, writing and the journal.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from functools import partial
from pathlib import Path

import soundfile
import torch

from hubcore.audio import load_audio
from hubcore.corpus import find_utterances
from hubcore.extract import extract, measure
from hubcore.extract.batches import batches_of
from tests.benchmarks.measure import Section, interleaved, ratio, sizes, table, threads
from tests.benchmarks.peers import OURS, systems
from tests.toys import Energies

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
        measured, _ = measure(find_utterances([folder / "audio"]), sample_rate=16000, min_samples=400)
        batches = batches_of(measured, 60, 16000)

        def bare() -> None:
            with torch.inference_mode():
                for batch in batches:
                    model([load_audio(item.utterance.source.open(), 16000) for item in batch])

        def whole() -> None:
            number[0] += 1
            extract([folder / "audio"], model, folder / f"out{number[0]}", batch_seconds=60, layers="last")  # type: ignore[arg-type]

        with threads(1):
            seconds = interleaved({"extract": whole, "bare": bare}, rounds=3, clock=time.process_time)
            rates = files_per_second(folder)
    above = statistics.median(a / b for a, b in zip(seconds["extract"], seconds["bare"], strict=True))
    row = [
        f"{sum(item.seconds for item in measured):.0f}",
        f"{statistics.median(seconds['bare']):.1f}",
        ratio(seconds, "extract", "bare"),
    ]
    headers = ["seconds of audio", "bare loop, s", "`hubcore extract` / bare loop"]
    told = f"With a model that takes no time, files of 2 s per second: {rates[1]:.0f} with one worker, {rates[2]:.0f} with two."
    numbers = {"overhead": above, **{f"files per second, {workers} workers": rate for workers, rate in rates.items()}}
    return Section("Extraction", f"{table(headers, [row])}\n\n{told}", numbers)


def files_per_second(folder: Path) -> dict[int, float]:
    """By number of workers."""
    generator, count = torch.Generator().manual_seed(1), int(500 * sizes().scale) or 1
    (folder / "short").mkdir()
    for item in range(count):
        wav = 0.1 * torch.randn(32000, generator=generator)
        soundfile.write(folder / "short" / f"{item}.flac", wav.clamp(-1, 1).numpy(), 16000)
    number = [0]

    def run(workers: int) -> None:
        number[0] += 1
        extract([folder / "short"], Energies(stride=320).eval(), folder / f"short{number[0]}", workers=workers)

    seconds = interleaved({workers: partial(run, workers) for workers in (1, 2)}, rounds=3)
    return {workers: count / statistics.median(values) for workers, values in seconds.items()}
