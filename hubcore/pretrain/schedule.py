"""`learning_rate`: a linear rise, then a polynomial fall."""

from __future__ import annotations

from hubcore.pretrain.recipe import OptimizationSection


def learning_rate(update: int, recipe: OptimizationSection) -> float:
    """The learning rate of the update before which `update` were done; fairseq's `polynomial_decay`.

    (The rise is one update earlier than fairseq's, whose first update has the rate 0 and changes nothing.)

    Example:
        >>> recipe = OptimizationSection(max_updates=10, lr=1.0, warmup_updates=5)
        >>> [round(learning_rate(update, recipe), 3) for update in (0, 4, 5, 6, 9)]
        [0.2, 1.0, 1.0, 0.8, 0.2]
    """
    if update < recipe.warmup_updates:
        return recipe.lr * (update + 1) / recipe.warmup_updates
    if update >= recipe.max_updates:
        return recipe.end_lr
    left = 1 - (update - recipe.warmup_updates) / (recipe.max_updates - recipe.warmup_updates)
    return float((recipe.lr - recipe.end_lr) * left**recipe.power + recipe.end_lr)
