"""Curves of runs: `read_curves` takes a run's metrics.jsonl, `draw_curves` makes one figure of one run or of several."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hubcore.errors import HubcoreError, OptionError
from hubcore.pretrain.metrics import METRICS, read_rows, run_figures
from hubcore.pretrain.objective import Figure
from hubcore.pretrain.objectives import find_objective
from hubcore.pretrain.provenance import RECIPE
from hubcore.pretrain.recipe import read_yaml
from hubcore.text import printable
from hubcore.tools.plotting import STYLE, load_matplotlib

_TERMS = "weighted/"
# Okabe and Ito's palette, told apart with any colour vision.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8A8A00")
_NUMBER = re.compile(r"[\d.]+")
_DASHES: tuple[tuple[float, ...], ...] = ((), (4, 2), (1, 1.5), (5, 1, 1, 1), (2, 2), (8, 2), (5, 1, 1, 1, 1, 1))


@dataclass(frozen=True)
class Curves:
    """The figures of one run, each as updates and values."""

    name: str
    series: dict[str, tuple[list[int], list[float]]]
    figures: Mapping[str, Figure]
    """Panels and formats, as its objective declares them."""
    folder: Path
    """The run."""


def is_run(folder: Path) -> bool:
    """True for a folder that `hubcore pretrain` wrote.

    Example:
        >>> is_run(Path("/nowhere"))
        False
    """
    return (folder / METRICS).is_file()


def read_curves(run: Path) -> Curves:
    """The curves of a run.

    Raises:
        OptionError: it has no figures yet.
    """
    points: dict[str, dict[int, float]] = {}  # the last row of an update counts, should two runs have written at once
    for row in read_rows(run / METRICS):
        for name, value in row.items():
            if name != "update" and isinstance(value, int | float) and isinstance(row.get("update"), int):
                points.setdefault(name, {})[row["update"]] = float(value)
    if not points:
        raise OptionError(
            f"{printable(run / METRICS)} has no figures yet. A row is written each run.log_every updates. Wait for the first."
        )
    series = {name: (sorted(values), [values[update] for update in sorted(values)]) for name, values in points.items()}
    return Curves(run.resolve().name, series, _figures(run), run.resolve())


def _figures(run: Path) -> Mapping[str, Figure]:
    """Figures that the run's objective declares; empty if its recipe or its plugin is gone."""
    try:
        return find_objective(str(read_yaml(run / RECIPE)["upstream"])).figures
    except (HubcoreError, KeyError):
        return {}


def draw_curves(runs: Sequence[Curves]) -> Any:
    """A `matplotlib.figure.Figure` of the curves of one run, or of several over each other.

    Raises:
        HubcoreError: matplotlib is missing or broken.
    """
    if len({run.name for run in runs}) < len(runs):
        runs = [replace(run, name=f"{run.folder.parent.name}/{run.name}") for run in runs]
    with load_matplotlib("style").context(STYLE, after_reset=True):
        titles: dict[str, list[str]] = {}
        for name, shown in run_figures({name: shown for run in runs for name, shown in run.figures.items()}).items():
            if shown.panel:
                titles.setdefault(shown.panel, []).append(name)
        chosen = [(title, [_chosen(run, names) for run in runs]) for title, names in titles.items()]
        panels = [(title, drawn) for title, drawn in chosen if any(drawn)]
        rows = (len(panels) + 1) // 2
        figure = load_matplotlib("figure").Figure(figsize=(11, 2.5 * rows + 0.4), layout="constrained")
        axes = [*figure.subplots(rows, 2, squeeze=False, sharex=True).flat]
        for (title, drawn), axis in zip(panels, axes, strict=False):
            _draw_panel(axis, title, runs, drawn)
        for axis in axes[len(panels) :]:
            axis.set_axis_off()
        for axis in axes[max(len(panels) - 2, 0) : len(panels)]:
            axis.set_xlabel("update")
            axis.tick_params(labelbottom=True)
        figure.suptitle(", ".join(printable(run.name) for run in runs), fontsize=10, parse_math=False)
        return figure


def _chosen(run: Curves, names: Sequence[str]) -> list[str]:
    """The series of a run that belong into a panel, training first; a name that ends in `*` stands for all that begin so."""
    found = []
    for name in names:
        if name.endswith("*"):
            found += sorted(series for series in run.series if series.startswith(name[:-1]) and any(run.series[series][1]))
        else:
            found += [name] if name in run.series else []
            valid = [series for series in run.series if series.startswith("valid/") and series.rpartition("/")[2] == name]
            found += sorted(
                valid, key=lambda s: [float(part) if _NUMBER.fullmatch(part) else 0.0 for part in re.split("[_/]", s)]
            )
    return found


def _label(name: str) -> str:
    """The name of a series in its panel, whose title says the figure."""
    if name.startswith(_TERMS):
        return name.removeprefix(_TERMS)
    return name.rpartition("/")[0] if name.startswith("valid/") else "training"


def _dashes(number: int) -> Any:
    """The line style of this number; no two are the same."""
    dashes = _DASHES[number] if number < len(_DASHES) else (number, 2) + (1, 2) * (number % 3)
    return (0, dashes) if dashes else "-"


def _draw_panel(axis: Any, title: str, runs: Sequence[Curves], drawn: Sequence[Sequence[str]]) -> None:
    axis.set_title(title, loc="left", fontsize=9)
    kinds = {name: number for number, name in enumerate(dict.fromkeys(itertools.chain.from_iterable(drawn)))}
    for place, (run, names) in enumerate(zip(runs, drawn, strict=True)):
        for name in names:
            updates, values = run.series[name]
            # Of several runs each has a colour and each kind of curve a line style; of one run each curve has a colour.
            many = len(runs) > 1
            turn, colour = divmod(place if many else kinds[name], len(_COLOURS))
            style = _dashes(turn * len(kinds) + kinds[name] if many else turn)
            marker = "o" if name.startswith("valid/") or len(updates) == 1 else None
            look = {"color": _COLOURS[colour], "linestyle": style, "linewidth": 1.1, "marker": marker, "markersize": 3}
            axis.plot(updates, values, label=f"{run.name}: {_label(name)}" if many else _label(name), **look)
    if sum(map(len, drawn)) > 1:
        beside = {"loc": "center left", "bbox_to_anchor": (1.0, 0.5), "borderaxespad": 0.3}
        for text in axis.legend(fontsize=6.5, frameon=False, handlelength=4.5, **beside).get_texts():
            text.set_parse_math(False)
    if all(name.startswith(_TERMS) for names in drawn for name in names):
        axis.set_yscale("log", nonpositive="mask")  # terms differ by powers of ten
    axis.margins(x=0.01)
    axis.grid(linewidth=0.3, color="#cccccc")
