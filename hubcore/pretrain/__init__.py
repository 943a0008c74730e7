"""Pre-training: `pretrain` runs a recipe, `read_recipe` reads one, `Objective` is what a plugin brings. Imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hubcore.lazy import lazy_exports

if TYPE_CHECKING:
    from hubcore.pretrain.loop import Outcome as Outcome
    from hubcore.pretrain.loop import Status as Status
    from hubcore.pretrain.loop import pretrain as pretrain
    from hubcore.pretrain.objective import Batch as Batch
    from hubcore.pretrain.objective import Figure as Figure
    from hubcore.pretrain.objective import Losses as Losses
    from hubcore.pretrain.objective import Objective as Objective
    from hubcore.pretrain.objective import Term as Term
    from hubcore.pretrain.recipe import Recipe as Recipe
    from hubcore.pretrain.recipe import read_recipe as read_recipe
    from hubcore.pretrain.recipe import shipped_recipes as shipped_recipes

__getattr__, __dir__ = lazy_exports(__name__)
