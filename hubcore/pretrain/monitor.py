"""`Monitor`: notices that a run no longer learns anything, and says what was seen, why that happens, and what to change."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hubcore.pretrain.recipe import MonitorSection

_PERPLEXITY = "code_perplexity"
_ACCURACY = "accuracy"
_CAUSES = {
    "few codes": (
        "The quantiser has collapsed onto a few codes, so that targets hardly differ. The usual causes are a learning rate "
        "that is too high or warms up too fast, and a diversity term that is too weak for the batch. Lower optimization.lr, "
        "raise optimization.warmup_updates or objective.diversity_weight, or use larger batches (optimization.accumulate)."
    ),
    "chance": (
        "The contrastive task is not being learnt. The usual causes are audio that is silence or noise, targets that are all "
        "the same, and a learning rate that is too high. Listen to some of the files, lower optimization.lr, raise "
        "optimization.warmup_updates."
    ),
    "trivial": (
        "The contrastive task has become trivial, so nothing more is learnt from it. The usual causes are masks that leave too "
        "much uncovered, and negatives that give themselves away by padding or by silence. Raise objective.mask_prob or "
        "objective.mask_length, and look at the audio."
    ),
}


class Monitor:
    """Watches the rows of a run.

    Args:
        limits: the recipe's section.
        state: how many rows in a row were beyond each limit, from a checkpoint.

    Example:
        >>> monitor = Monitor(MonitorSection(grace_updates=0, patience=2, min_perplexity=5.0))
        >>> [monitor.judge({"update": 1, "code_perplexity": 2.0}), monitor.judge({"update": 2, "code_perplexity": 2.0})[:36]]
        [None, 'code_perplexity is 2 at update 2 and']
    """

    def __init__(self, limits: MonitorSection, state: Mapping[str, int] | None = None) -> None:
        self._limits = limits
        self._beyond = dict(state or {})

    def state(self) -> dict[str, int]:
        """What a checkpoint keeps."""
        return dict(self._beyond)

    def judge(self, row: Mapping[str, Any]) -> str | None:
        """Why the run should stop after this row, or None."""
        limits = self._limits
        if limits.patience == 0 or row["update"] <= limits.grace_updates:
            return None
        checks = (
            ("few codes", _PERPLEXITY, "below", limits.min_perplexity),
            ("chance", _ACCURACY, "below", limits.min_accuracy),
            ("trivial", _ACCURACY, "above", limits.max_accuracy),
        )
        for kind, name, side, limit in checks:
            value = row.get(name)
            if value is None:
                continue
            beyond = value < limit if side == "below" else value > limit
            self._beyond[kind] = self._beyond.get(kind, 0) + 1 if beyond else 0
            if self._beyond[kind] >= limits.patience:
                return (
                    f"{name} is {value:g} at update {row['update']} and was {side} its limit of {limit:g} in {limits.patience} "
                    f"rows in a row. {_CAUSES[kind]}"
                )
        return None


def why_not_finite(update: int, loss: float, grad_norm: float, keys: list[str]) -> str:
    """What to say where the loss or its gradient is not a number.

    Example:
        >>> why_not_finite(7, float("nan"), 1.0, ["a.flac"])[:40]
        'the loss is nan at update 7 (gradient no'
    """
    begin = ", ".join(keys[:3])
    return (
        f"the loss is {loss:g} at update {update} (gradient norm {grad_norm:g}); its batches begin with {begin}. "
        "One step would have made every weight useless, so none was made. The usual causes are a learning rate that is too "
        "high and a file with broken audio. Lower optimization.lr, use optimization.clip_norm, or look at these files."
    )


def why_scale_collapsed(update: int, scale: float) -> str:
    """What to say where fp16 keeps overflowing.

    Example:
        >>> why_scale_collapsed(7, 1e-5)[:36]
        'fp16 overflows at update 7 even with'
    """
    return (
        f"fp16 overflows at update {update} even with a loss scale of {scale:g}. Gradients are then no numbers at any scale. "
        "The usual cause is a learning rate that is too high. Lower optimization.lr, or use optimization.precision=bf16."
    )
