"""`find_objective`: the class that a recipe's `upstream` names, by the entry points of the group `hubcore.objectives`."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hubcore.errors import OptionError, PluginError, nearest_names
from hubcore.registry.names import OBJECTIVES_GROUP, TARGET, canonical, entry_points, target_of
from hubcore.text import error_text

if TYPE_CHECKING:
    from hubcore.pretrain.objective import Objective


@dataclass(frozen=True)
class ObjectiveEntry:
    """One objective as its distribution's entry point names it; not imported yet."""

    name: str
    target: str
    """`module:Class`."""
    distribution: str
    version: str


def objective_entries() -> list[ObjectiveEntry]:
    """Every objective that is installed and not turned off, hubcore's own first; imports none.

    Example:
        >>> [entry.target for entry in objective_entries() if entry.name == "wav2vec2"]
        ['hubcore_wav2vec2.pretrain:Wav2Vec2Pretraining']
    """
    found: dict[tuple[str, str], ObjectiveEntry] = {}
    for owner, version, point in entry_points([]):
        if point.group == OBJECTIVES_GROUP:
            found.setdefault((canonical(owner), point.name), ObjectiveEntry(point.name, target_of(point), owner, version))
    return sorted(found.values(), key=lambda entry: (entry.distribution != "hubcore", entry.distribution, entry.name))


def find_objective(name: str) -> type[Objective]:
    """The objective's class.

    Args:
        name: its entry point's name, or `distribution:name` where two distributions claim one.

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
        known = sorted({entry.name for entry in entries})
        near = nearest_names(plain, known)
        hint = f"The nearest are {', '.join(near)}." if near else f"There are {', '.join(known) or 'none'}."
        raise OptionError(f"no objective is called {name!r}. {hint} Correct `upstream` in the recipe, or install the plugin.")
    if len(claims) > 1:
        choices = " or ".join(repr(f"{entry.distribution}:{plain}") for entry in claims)
        raise OptionError(f"the objective {plain!r} has {len(claims)} owners. Neither is preferred. Say which one: {choices}.")
    entry = claims[0]
    blame = f"It belongs to {entry.distribution} {entry.version}. Update or mend that distribution."
    return objective_class(plain, entry.target, blame)


def objective_class(name: str, target: str, blame: str) -> type[Objective]:
    """The class that an entry point names, once it has been looked at.

    Args:
        name: the entry point's name.
        target: `module:Class`.
        blame: whose it is, for the message.

    Raises:
        PluginError: it cannot be imported, or is no objective.
    """
    if TARGET.fullmatch(target) is None:
        raise PluginError(f"the objective {name!r} is {target!r}, which is not module:Class. {blame}")
    name_of_module, _, attribute = target.partition(":")
    try:
        module = importlib.import_module(name_of_module)
        found = getattr(module, attribute)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # an import may end in anything, SystemExit included
        raise PluginError(f"the objective {target} cannot be imported: {error_text(error)}. {blame}") from error
    from hubcore.pretrain.objective import Objective

    lacking = [part for part in ("upstream", "model_configs", "config_class", "forward") if not hasattr(found, part)]
    if lacking or not (isinstance(found, type) and issubclass(found, Objective)):
        what = f"lacks {', '.join(lacking)}" if lacking else "is no subclass of Objective"
        raise PluginError(f"the objective {target} {what}. hubcore.pretrain.objective.Objective says what is needed. {blame}")
    return found
