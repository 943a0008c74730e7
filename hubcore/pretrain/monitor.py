"""`Monitor`: notices that a run no longer learns anything, and says what was seen, why that happens, and what to change."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hubcore.pretrain.objective import Figure
from hubcore.pretrain.recipe import MonitorSection
from hubcore.text import listed, printable

_NAMED = 64
"""Utterances that a message names; a micro-batch rarely has more."""


class Monitor:
    """Watches the rows of a run.

    Args:
        limits: the recipe's section.
        figures: the objective's, which say what limits them.
        state: how many rows in a row were beyond each limit, from a checkpoint.

    Example:
        >>> figures = {"code_perplexity": Figure(limits={"min_perplexity": "The codes have collapsed."})}
        >>> monitor = Monitor(MonitorSection(grace_updates=0, patience=2, min_perplexity=5.0), figures)
        >>> [monitor.judge({"update": 1, "code_perplexity": 2.0}), monitor.judge({"update": 2, "code_perplexity": 2.0})[:36]]
        [None, 'code_perplexity is 2 at update 2 and']
    """

    def __init__(self, limits: MonitorSection, figures: Mapping[str, Figure], state: Mapping[str, int] | None = None) -> None:
        self._limits, self._figures = limits, figures
        self._beyond = dict(state or {})

    def state(self) -> dict[str, int]:
        """Number of successive rows beyond each limit, for a checkpoint."""
        return dict(self._beyond)

    def judge(self, row: Mapping[str, Any]) -> str | None:
        """Why the run should stop after this row, or None."""
        if self._limits.patience == 0 or row["update"] <= self._limits.grace_updates:
            return None
        for name, figure in self._figures.items():
            for key, cause in figure.limits.items():
                value, limit = row.get(name), getattr(self._limits, key)
                if value is None:
                    continue
                beyond, side = (value < limit, "below") if key.startswith("min_") else (value > limit, "above")
                self._beyond[key] = self._beyond.get(key, 0) + 1 if beyond else 0
                if self._beyond[key] >= self._limits.patience:
                    return (
                        f"{name} is {value:g} at update {row['update']} and was {side} its limit of {limit:g} in "
                        f"{self._limits.patience} rows in a row. {cause}"
                    )
        return None


def why_not_finite(update: int, loss: float, grad_norm: float, keys: list[str]) -> str:
    """The message where the loss or its gradient is not a number.

    Example:
        >>> why_not_finite(7, float("nan"), 1.0, ["a.flac"])[:40]
        'the loss is nan at update 7 (gradient no'
    """
    return (
        f"the loss is {loss:g} at update {update} (gradient norm {grad_norm:g}), so this update was skipped. Its "
        f"utterances: {listed(map(printable, keys), _NAMED)}."
    )


def why_too_many_skipped(skipped: int, limit: int) -> str:
    """The message where too many updates had to be skipped.

    Example:
        >>> why_too_many_skipped(11, 10)[:42]
        'Skipped updates: 11; monitor.max_skipped i'
    """
    return (
        f"Skipped updates: {skipped}; monitor.max_skipped is {limit}. The usual causes are a learning rate that "
        "is too high and a file with broken audio. Lower optimization.lr, use optimization.clip_norm, or leave files out with "
        "data.exclude, which may change when you resume."
    )


def why_scale_collapsed(update: int, scale: float) -> str:
    """The message where fp16 keeps overflowing.

    Example:
        >>> why_scale_collapsed(7, 1e-5)[:36]
        'fp16 overflows at update 7 even with'
    """
    return (
        f"fp16 overflows at update {update} even with a loss scale of {scale:g}. The usual cause is a learning rate that "
        "is too high. Lower optimization.lr, or use optimization.precision=bf16."
    )
