"""`Live`: a run on the terminal, as a bar with figures; elsewhere a plain line for each row of metrics.jsonl."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import click

from hubcore.cli.table import format_duration
from hubcore.pretrain.loop import Progress

_SHOWN = (
    ("loss", "loss {:.3f}"),
    ("code_perplexity", "perplexity {:.1f}"),
    ("accuracy", "accuracy {:.3f}"),
    ("alpha_mean", "alpha {:.3f}"),
    ("frame_period_ms", "{:.1f} ms a frame"),
    ("grad_norm", "gradient {:.2f}"),
    ("lr", "lr {:.2e}"),
)


class Live:
    """Shows progress on standard error; a context manager."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._row: Mapping[str, Any] = {}

    def __enter__(self) -> Live:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def __call__(self, progress: Progress) -> None:
        """Shows how far a run is."""
        self._row = progress.row or self._row
        if sys.stderr.isatty():
            self._draw(progress)
        elif progress.row:
            click.echo(f"update {progress.update} of {progress.max_updates}: {describe(progress)}", err=True)

    def _draw(self, progress: Progress) -> None:
        if self._bar is None:
            from tqdm import tqdm

            layout = "{n_fmt}/{total_fmt} {bar:12} {desc}"
            self._bar = tqdm(
                total=progress.max_updates,
                initial=progress.update - 1,
                unit="update",
                file=sys.stderr,
                dynamic_ncols=True,
                bar_format=layout,
            )
        self._bar.set_description_str(describe(progress, self._row), refresh=False)
        self._bar.update(progress.update - self._bar.n)


def describe(progress: Progress, row: Mapping[str, Any] | None = None) -> str:
    """The figures of a row, speed, and time left, in one line.

    Example:
        >>> describe(Progress(5, 10, {"loss": 6.5, "accuracy": 0.125}, hours_per_second=0.01, seconds_left=90.0))
        'loss 6.500, accuracy 0.125, 36.0 x real time, 1:30 left'
    """
    row = row or progress.row or {}
    parts = [text.format(row[name]) for name, text in _SHOWN if row.get(name) is not None]
    return ", ".join(
        [*parts, f"{3600 * progress.hours_per_second:.1f} x real time", f"{format_duration(progress.seconds_left)} left"]
    )
