"""`docs/benchmarks.md` and its plot, made of the results that are kept, one JSON file for each section."""

from __future__ import annotations

import dataclasses
import json
import platform
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from hubcore.tools.plotting import STYLE
from tests.benchmarks.measure import Section, sizes
from tests.paths import REPOSITORY

COLOURS = {"transformers": "#0072B2", "s3prl": "#D55E00", "torchaudio": "#009E73"}
HEAD = """# Benchmarks

`make bench` measures everything here and writes this page. `python -m tests.benchmarks speed` measures one section again and
keeps the others. Below each heading stands where and when it was measured.

Systems run in turn, round by round, so that a machine that slows down slows all of them. A ratio is the median of the rounds'
ratios, with the least and the most. Weights are random and shapes equal; every system gives all hidden states, and gets the
mask that it needs. The floor is the time that the floating point operations of the true lengths would take at the speed of a
large matrix product, measured in the same rounds: with the faster of torch's libraries, and with `torch.nn.functional.linear`.
{plot}
"""


def folder() -> Path:
    """Where results are kept: beside this module; quick ones, which mean nothing, in the build folder."""
    return REPOSITORY / "build" / "benchmarks" if sizes().quick else Path(__file__).with_name("results")


def keep(name: str, section: Section) -> None:
    """Keeps the result of a section, with where and when it was measured."""
    machine = f"{_processor()}, torch {torch.__version__}, {time.strftime('%Y-%m-%d')}"
    folder().mkdir(parents=True, exist_ok=True)
    kept = dataclasses.asdict(dataclasses.replace(section, machine=machine))
    (folder() / f"{name}.json").write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


def write_page(names: Sequence[str]) -> Path:
    """The page of all results that are kept, in the order of `names`, and beside it the plot."""
    found = {name: folder() / f"{name}.json" for name in names}
    kept = {n: Section(**json.loads(path.read_text("utf-8"))) for n, path in found.items() if path.is_file()}
    docs = folder() if sizes().quick else REPOSITORY / "docs"
    plot = "images/benchmarks.png"
    drawn = "speed" in kept and draw(kept["speed"].figures, docs / plot)
    head = HEAD.format(plot=f"\n![How many times faster than its peers hubcore is]({plot})" if drawn else "").rstrip()
    parts = [f"## {section.title}\n\n{section.machine}\n\n{section.text}" for section in kept.values()]
    page = docs / "benchmarks.md"
    page.write_text("\n\n".join([head, *parts]) + "\n", encoding="utf-8")
    return page


def draw(figures: Mapping[str, float], path: Path) -> bool:
    """Bars of the ratios of one thread by system and setting; False where there was no peer to compare with."""
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    title = ", 1 thread, processor time, "
    ratios = {tuple(name.split(title)): value for name, value in figures.items() if title in name}
    settings = list(dict.fromkeys(setting for _, setting in ratios))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.5, 0.6 + 0.6 * len(settings)), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        systems = [name for name in COLOURS if any(name == system for system, _ in ratios)]
        height = 0.8 / max(1, len(systems))
        for place, name in enumerate(systems):
            values = [ratios[name, setting] for setting in settings]
            where = [row + place * height for row in range(len(settings))]
            bars = axes.barh(where, values, height, label=name, color=COLOURS[name])
            axes.bar_label(bars, fmt="%.2f", padding=2)
        axes.set_yticks([row + 0.4 - height / 2 for row in range(len(settings))], settings)
        axes.invert_yaxis()
        axes.axvline(1, color="#333333", linewidth=0.8)
        axes.set_xlabel("times hubcore's time, one thread")
        if systems:
            axes.legend(frameon=False)
            path.parent.mkdir(parents=True, exist_ok=True)
            figure.savefig(path)
    return bool(systems)


def _processor() -> str:
    models = (line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line)
    return next(models, platform.machine())
