"""Curves of several runs can be told apart."""

from __future__ import annotations

from pathlib import Path

import pytest

from hubcore.pretrain.curves import Curves, draw_curves
from hubcore.pretrain.objective import Figure


def curves(name: str, kinds: int) -> Curves:
    series = {"loss": ([1, 2], [3.0, 2.0])}
    series |= {f"valid/set{number}/loss": ([1, 2], [3.0, 2.0]) for number in range(kinds - 1)}
    return Curves(Path(name).name, series, {"loss": Figure("loss")}, Path("/runs") / name)


@pytest.mark.parametrize(("runs", "kinds"), [(2, 6), (2, 12), (10, 3), (1, 12)])
def test_no_two_curves_of_a_panel_look_alike(runs: int, kinds: int) -> None:
    figure = draw_curves([curves(f"run{number}", kinds) for number in range(runs)])
    axis = next(axes for axes in figure.axes if axes.get_title(loc="left") == "loss")
    looks = [(line.get_color(), str(line._unscaled_dash_pattern)) for line in axis.lines]
    assert len(looks) == len(set(looks)) == runs * kinds


def test_the_legend_is_wide_enough_to_show_every_dash() -> None:
    figure = draw_curves([curves("a", 12), curves("b", 12)])
    legend = next(axes for axes in figure.axes if axes.lines).get_legend()
    width = legend.handlelength * legend.get_texts()[0].get_fontsize()
    periods = [sum(line._dash_pattern[1] or ()) for line in legend.get_lines()]
    assert len(periods) == 24 and max(periods) > 0 and width >= 1.5 * sorted(periods)[-3]


def test_runs_of_one_name_are_named_with_their_folder() -> None:
    figure = draw_curves([curves("seed1/run", 2), curves("seed2/run", 2)])
    labels = [text.get_text() for text in next(axes for axes in figure.axes if axes.lines).get_legend().get_texts()]
    assert labels[0] == "seed1/run: training" and labels[2] == "seed2/run: training" and len(set(labels)) == 4
