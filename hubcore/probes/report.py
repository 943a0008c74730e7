"""`Report`: what was measured for each layer, and its picture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hubcore.probes.measures import HIGHER_IS_BETTER, Score


@dataclass(frozen=True)
class LayerReport:
    """Results of the probes of a layer, or of the weighted sum of all."""

    name: str
    """The layer, or `weighted`."""
    scores: Mapping[str, Score]
    """Measures on the test part."""
    epochs: tuple[int, ...]
    """The best epoch of each seed."""
    weights: Mapping[str, float] | None
    """The learned weight of each layer in the sum, the mean of all seeds."""
    file: str
    """The probe's file in the output folder: that of the seed whose validation loss is lowest."""


@dataclass(frozen=True)
class Report:
    """Results of `train_probes`."""

    task: str
    """`classify`, `regress` or `ctc`."""
    upstream: str
    """The name of the upstream."""
    group: str
    """The column whose groups are in one part each, and are drawn for the intervals."""
    seeds: int
    """Trainings of each layer."""
    parts: Mapping[str, int]
    """Utterances of each part, of the first seed."""
    groups: Mapping[str, int]
    """Groups of each part, of the first seed."""
    labels: int | None
    """The number of classes, or of tokens."""
    left_out: Mapping[str, int]
    """Utterances that were left out, by reason."""
    layers: tuple[LayerReport, ...]
    """Results for each layer."""

    @property
    def measure(self) -> str:
        """The first of the measures, by which layers are compared."""
        return next(iter(self.layers[0].scores))

    @property
    def best(self) -> LayerReport:
        """The layer with the best score of that measure."""
        sign = 1 if HIGHER_IS_BETTER[self.measure] else -1
        return max(self.layers, key=lambda layer: sign * layer.scores[self.measure].value)

    def plain(self) -> dict[str, Any]:
        """The report as plain data."""
        layers = [{**vars(one), "scores": {name: score.plain() for name, score in one.scores.items()}} for one in self.layers]
        return {**vars(self), "layers": layers}


def draw_report(report: Report) -> Any:
    """A `matplotlib.figure.Figure`: the first measure by layer with its interval, the level of chance, and learned weights.

    Raises:
        HubcoreError: matplotlib is missing or broken.
    """
    from hubcore.tools.plotting import load_matplotlib

    weights = next((layer.weights for layer in report.layers if layer.weights), None)
    names = [layer.name for layer in report.layers]
    size = (max(5.0, 1.5 + 0.45 * max(len(names), len(weights or ()))), 3.2 * (2 if weights else 1))
    figure = load_matplotlib("figure").Figure(figsize=size, layout="constrained")
    rows = figure.subplots(2 if weights else 1, 1, squeeze=False)[:, 0]
    scores = [layer.scores[report.measure] for layer in report.layers]
    values = [score.value for score in scores]
    ends = [[max(0.0, score.value - score.low) for score in scores], [max(0.0, score.high - score.value) for score in scores]]
    rows[0].errorbar(range(len(names)), values, yerr=ends, fmt="o-", color="#0072B2", capsize=3, linewidth=1)
    rows[0].plot(range(len(names)), [score.chance for score in scores], "--", color="#D55E00", label="chance")
    if len(names) == 1:
        rows[0].axhline(scores[0].chance, linestyle="--", color="#D55E00")
    rows[0].set_ylabel(report.measure)
    rows[0].set_title(f"{report.upstream}, {report.task}, by {report.group}", loc="left", fontsize=9, parse_math=False)
    rows[0].legend(frameon=False)
    rows[0].set_xticks(range(len(names)), names, rotation=60, ha="right", parse_math=False)
    if weights:
        rows[1].bar(range(len(weights)), [*weights.values()], color="#A6CEE9")
        rows[1].set_ylabel("weight in the sum")
        rows[1].set_xticks(range(len(weights)), [*weights], rotation=60, ha="right", parse_math=False)
    return figure
