"""Pre-training: `pretrain` runs a recipe, `read_recipe` reads one, `Objective` is what a plugin brings. Imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hubcore.lazy import lazy_exports

if TYPE_CHECKING:
    from hubcore.pretrain.loop import Outcome, Progress, pretrain
    from hubcore.pretrain.objective import Batch, Losses, Objective
    from hubcore.pretrain.recipe import Recipe, read_recipe, shipped_recipes

__all__ = ["Batch", "Losses", "Objective", "Outcome", "Progress", "Recipe", "pretrain", "read_recipe", "shipped_recipes"]
__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "Batch": "objective",
        "Losses": "objective",
        "Objective": "objective",
        "Outcome": "loop",
        "Progress": "loop",
        "Recipe": "recipe",
        "pretrain": "loop",
        "read_recipe": "recipe",
        "shipped_recipes": "recipe",
    },
)
