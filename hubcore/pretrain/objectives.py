"""`find_objective`: the class that a recipe's `upstream` names, by the entry points of the group `hubcore.objectives`."""

from __future__ import annotations

import importlib
import importlib.metadata
import re
from dataclasses import dataclass
from typing import Any

from hubcore.errors import OptionError, PluginError, nearest_names
from hubcore.registry import disabled_plugins

GROUP = "hubcore.objectives"
_TARGET = re.compile(r"([A-Za-z_][\w.]*):([A-Za-z_]\w*)")


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
    disabled = disabled_plugins()
    found: dict[tuple[str, str], ObjectiveEntry] = {}
    for distribution in importlib.metadata.distributions():
        try:
            points = [point for point in distribution.entry_points if point.group == GROUP]
            name, version = (str(distribution.metadata["Name"]), str(distribution.metadata["Version"])) if points else ("", "")
        except Exception:  # noqa: S112 - broken metadata of another distribution, which `hubcore doctor` reports
            continue
        plain = re.sub(r"[-_.]+", "-", name).lower()
        if plain != "hubcore" and disabled & {plain, "*"}:
            continue
        for point in points:
            target = point.value.partition("[")[0].strip()
            found.setdefault((plain, point.name), ObjectiveEntry(point.name, target, name, version))
    return sorted(found.values(), key=lambda entry: (entry.distribution != "hubcore", entry.distribution, entry.name))


def find_objective(name: str) -> type[Any]:
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
    match = _TARGET.fullmatch(entry.target)
    if match is None:
        raise PluginError(f"the objective {plain!r} is {entry.target!r}, which is not module:Class. {blame}")
    try:
        found = getattr(importlib.import_module(match[1]), match[2])
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # an import may end in anything, SystemExit included
        raise PluginError(
            f"the objective {entry.target} cannot be imported: {type(error).__name__}: {error}. {blame}"
        ) from error
    lacking = [part for part in ("upstream", "model_configs", "config_class", "forward") if not hasattr(found, part)]
    if not isinstance(found, type) or lacking:
        what = f"lacks {', '.join(lacking)}" if lacking else "is not a class"
        raise PluginError(
            f"the objective {entry.target} {what}. hubcore.pretrain.objective.Objective says what is needed. {blame}"
        )
    return found
