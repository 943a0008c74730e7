"""A bulk extraction beside its model alone, files per second, and its memory: over 10,000 utterances, and of an hour of audio.

The bare loop decodes the same files, calls the model on the same batches, and throws the features away: 450 s of audio, base
size, one thread, processor time. With a model that takes no time, the files per second are those of decoding, writing and the
journal. The hour is computed in chunks of 30 s by fbank, 345 MB of features, once for each format.
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
from hubcore.hooks import FORMATS
from tests.benchmarks.measure import Section, fresh, interleaved, peak_memory, ratio, sizes, table, threads
from tests.benchmarks.peers import OURS, systems
from tests.toys import Energies

COUNT, SECONDS = 32, 14.0
MANY = 10_000
TEN_THOUSAND = """
import re, torch
from pathlib import Path
from hubcore.corpus import File, Utterance
from hubcore.extract import extract
from tests.toys import Energies
torch.set_num_threads(1)
files = sorted(Path({folder!r}).iterdir())
corpus = [Utterance(f"{{number:05}}", File(str(files[number % len(files)]))) for number in range({count})]
resident = {{}}
def report(done, total, note):
    status = Path("/proc/self/status").read_text()
    resident[round(10 * done / total)] = int(re.search(r"VmRSS:\\s+(\\d+)", status)[1]) // 1024
extract(corpus, Energies(stride=320).eval(), {out!r}, report=report)
print(*(resident[tenth] for tenth in (1, 5, 10)))
"""
HOUR = """
import torch
from hubcore import hub
from hubcore.extract import extract
torch.set_num_threads(1)
extract([{file!r}], hub.load("fbank"), {out!r}, layers="last", format={format!r}, chunk_seconds=30)
"""


def run() -> Section:
    """The tables."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with threads(1):
            above, text = overhead(folder)
            rates = files_per_second(folder)
        script = TEN_THOUSAND.format(folder=str(folder / "short"), out=str(folder / "many"), count=int(MANY * sizes().scale))
        resident = [int(part) for part in fresh(script).split()]
        peaks = peak_of_an_hour(folder)
    told = (
        f"With a model that takes no time, files of 2 s per second: {rates[1]:.0f} with one worker, {rates[2]:.0f} with two."
        "\n\n"
        f"Resident memory after 1,000, 5,000 and 10,000 utterances: {', '.join(map(str, resident))} MiB."
    )
    hour = table(["format", "peak of an hour, MiB"], [[format, str(peak)] for format, peak in peaks.items()])
    numbers = {"overhead": above, **{f"files per second, {workers} workers": rate for workers, rate in rates.items()}}
    numbers |= {"resident at the end, over that at 1,000": resident[2] / resident[0]}
    numbers |= {f"peak of an hour, {format}, MiB": float(peak) for format, peak in peaks.items()}
    return Section("Extraction", f"{text}\n\n{told}\n\n{hour}", numbers)


def overhead(folder: Path) -> tuple[float, str]:
    """The processor time of an extraction over that of the bare loop: the median of the rounds' ratios, and the table."""
    model, number = systems()[OURS], [0]
    generator = torch.Generator().manual_seed(0)
    (folder / "audio").mkdir()
    for item in range(COUNT):
        noise(folder / f"audio/{item}.flac", sizes().scale * SECONDS * (0.5 + item / (COUNT - 1)), generator)
    measured, _ = measure(find_utterances([folder / "audio"]), sample_rate=16000, min_samples=400)
    batches = batches_of(measured, 60, 16000)

    def bare() -> None:
        with torch.inference_mode():
            for batch in batches:
                model([load_audio(item.utterance.source.open(), 16000) for item in batch])

    def whole() -> None:
        number[0] += 1
        extract([folder / "audio"], model, folder / f"out{number[0]}", batch_seconds=60, layers="last")  # type: ignore[arg-type]

    seconds = interleaved({"extract": whole, "bare": bare}, rounds=3, clock=time.process_time)
    row = [
        f"{sum(item.seconds for item in measured):.0f}",
        f"{statistics.median(seconds['bare']):.1f}",
        ratio(seconds, "extract", "bare"),
    ]
    headers = ["seconds of audio", "bare loop, s", "`hubcore extract` / bare loop"]
    above = statistics.median(a / b for a, b in zip(seconds["extract"], seconds["bare"], strict=True))
    return above, table(headers, [row])


def files_per_second(folder: Path) -> dict[int, float]:
    """By number of workers; the files are below `short`."""
    generator, count = torch.Generator().manual_seed(1), int(500 * sizes().scale) or 1
    (folder / "short").mkdir()
    for item in range(count):
        noise(folder / f"short/{item}.flac", 2.0, generator)
    number = [0]

    def run(workers: int) -> None:
        number[0] += 1
        extract([folder / "short"], Energies(stride=320).eval(), folder / f"short{number[0]}", workers=workers)

    seconds = interleaved({workers: partial(run, workers) for workers in (1, 2)}, rounds=3)
    return {workers: count / statistics.median(values) for workers, values in seconds.items()}


def peak_of_an_hour(folder: Path) -> dict[str, int]:
    """The largest resident size in MiB by format, each in a process of its own."""
    noise(folder / "hour.flac", 3600 * sizes().scale, torch.Generator().manual_seed(2))
    file = str(folder / "hour.flac")
    scripts = {format: HOUR.format(file=file, out=str(folder / f"hour_{format}"), format=format) for format in FORMATS}
    return {format: peak_memory(script) >> 20 for format, script in scripts.items()}


def noise(path: Path, seconds: float, generator: torch.Generator) -> None:
    """Writes a file of noise at 16 kHz."""
    wav = 0.1 * torch.randn(int(16000 * seconds), generator=generator)
    soundfile.write(path, wav.clamp(-1, 1).numpy(), 16000)
