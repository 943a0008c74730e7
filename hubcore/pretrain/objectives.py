"""`find_objective`: the class that a recipe's `upstream` names, by the entry points of the group `hubcore.objectives`."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from hubcore.errors import OptionError, PluginError, nearest_hint
from hubcore.guests import as_guest
from hubcore.registry.names import OBJECTIVES_GROUP, TARGET, Family, canonical, entry_points, target_of
from hubcore.text import error_text

if TYPE_CHECKING:
    from hubcore.pretrain.objective import Objective


def objective_entries() -> list[Family]:
    """Every objective that is installed and not turned off, hubcore's own first; imports none.

    Example:
        >>> [entry.target for entry in objective_entries() if entry.name == "wav2vec2"]
        ['hubcore_wav2vec2.pretrain:Wav2Vec2Pretraining']
    """
    found: dict[tuple[str, str], Family] = {}
    for owner, version, point in entry_points([]):
        if point.group == OBJECTIVES_GROUP:
            found.setdefault((canonical(owner), point.name), Family(point.name, target_of(point), owner, version))
    return sorted(found.values(), key=lambda entry: (entry.distribution != "hubcore", entry.distribution, entry.name))


def find_objective(name: str) -> type[Objective]:
    """The class of an entry point, by its name, or by `distribution:name` where two distributions claim one.

    Raises:
        OptionError: no such name, or two owners.
        PluginError: its package is broken.

    Example:
        >>> find_objective("wav2vec2").__name__
        'Wav2Vec2Pretraining'
    """
    owner, _, plain = name.rpartition(":")
    entries = objective_entries()
    claims = [entry for entry in entries if entry.name == plain and owner in ("", entry.distribution)]
    if not claims:
        hint = nearest_hint(plain, [entry.name for entry in entries])
        raise OptionError(f"no objective is called {name!r}. {hint} Correct `upstream` in the recipe, or install the plugin.")
    if len(claims) > 1:
        choices = " or ".join(repr(f"{entry.distribution}:{plain}") for entry in claims)
        raise OptionError(f"the objective {plain!r} has {len(claims)} owners. Neither is preferred. Say which one: {choices}.")
    [entry] = claims
    return objective_class(plain, entry.target, f"Fix or update its distribution, {entry.distribution} {entry.version}.")


def objective_class(name: str, target: str, fix: str) -> type[Objective]:
    """The class that an entry point names as `module:Class`, once it has been examined.

    Raises:
        PluginError: it cannot be imported, or is no objective.
    """
    from hubcore.pretrain.objective import Objective

    if TARGET.fullmatch(target) is None:
        raise PluginError(f"the objective {name!r} is {target!r}, which is not module:Class.", fix)
    module, _, attribute = target.partition(":")
    with as_guest(lambda error: PluginError(f"the objective {target} cannot be imported: {error_text(error)}.", fix)):
        found = getattr(importlib.import_module(module), attribute)
    lacking = [part for part in ("upstream", "model_configs", "config_class", "forward") if not hasattr(found, part)]
    if lacking or not (isinstance(found, type) and issubclass(found, Objective)):
        what = f"lacks {', '.join(lacking)}" if lacking else "is no subclass of it"
        raise PluginError(f"the objective {target} {what}. hubcore.pretrain.Objective says what is needed.", fix)
    return found
