"""From a registry entry to a running upstream: import the class, get the weights, build, check."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from typing import Any

from hubcore.card import Card
from hubcore.checkpoints.sources import fetch_card, file_sha256, resolve
from hubcore.errors import ChecksumError, HubcoreError, OptionError, PluginError, UnavailableUpstreamError
from hubcore.registry import Entry, Family


def import_class(family: Family) -> type[Any]:
    """The class of a family; a failure to import it is a `PluginError` that names its distribution.

    Example:
        >>> from hubcore.registry import current_registry
        >>> import_class(current_registry().find("fbank").family).__name__
        'FbankUpstream'
    """
    owner = f"{family.distribution} {family.version}"
    try:
        found = getattr(importlib.import_module(family.module), family.class_name)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # an import may end in anything, SystemExit included
        raise PluginError(
            f"{family.target}, the class of {family.name!r}, cannot be imported: {_describe(error)}. It belongs to {owner}. "
            "Update or mend that distribution; every other upstream goes on working."
        ) from error
    if not isinstance(found, type):
        raise PluginError(f"{family.target} is a {type(found).__name__}, not a class. It belongs to {owner}: tell its authors.")
    return found


def _describe(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # a broken plugin's own exception may not even print
        return type(error).__name__


def build_upstream(entry: Entry, checkpoint: str | os.PathLike[str] | None, options: Mapping[str, Any]) -> Any:
    """The upstream of an entry, in eval mode, with its card attached; see `hubcore.hub.load`."""
    family, card = entry.family, entry.card
    if family is None or family.missing:
        raise UnavailableUpstreamError(f"{entry.name!r} cannot run here: {entry.unavailable}. `hubcore doctor` shows more.")
    cls = import_class(family)
    wanted = {**(card.options if card else {}), **options}
    if checkpoint is not None:
        upstream = _method(cls, "from_checkpoint", family)(resolve(checkpoint), **wanted)
    elif card is not None and card.sources:
        if card.config is not None and _has(cls, "configs", family):
            wanted.setdefault("config", card.config)  # for a file without a config; one that has its own is checked
        path = fetch_card(card)
        upstream = _method(cls, "from_checkpoint", family)(path, **wanted)
        published = {source.sha256 for source in card.sources if source.sha256}
        # The stamp tells, for the price of a stat, whether the path still holds the file that was verified.
        if len(published) == len(card.sources) and path.is_file() and file_sha256(path) not in published:
            raise ChecksumError(
                f"{path}, the checkpoint of {card.name!r}, was replaced while it was read. What was loaded may not be the file "
                "that was verified, and is thrown away. See who writes there, and load again."
            )
    else:
        upstream = _without_weights(cls, card, family, wanted)
    if card is not None and checkpoint is None:
        upstream.card = card
    return upstream.eval() if hasattr(upstream, "eval") else upstream


def _has(cls: type[Any], name: str, family: Family) -> bool:
    """Whether the class has an attribute; a metaclass may answer with any exception."""
    try:
        return hasattr(cls, name)
    except Exception as error:
        raise PluginError(
            f"{family.target} cannot be used: looking for {name} in it gives {_describe(error)}. It belongs to "
            f"{family.distribution} {family.version}. Update or mend that distribution; every other upstream goes on working."
        ) from error


def _method(cls: type[Any], name: str, family: Family) -> Any:
    if not _has(cls, name, family):
        raise PluginError(
            f"{family.target} has no {name}, so it cannot load weights. It belongs to {family.distribution}. "
            "Its authors can inherit hubcore.UpstreamBase, which has it."
        )
    return getattr(cls, name)


def _without_weights(cls: type[Any], card: Card | None, family: Family, options: Mapping[str, Any]) -> Any:
    from hubcore.upstream import UpstreamBase

    if issubclass(cls, UpstreamBase) and any("from_file" in vars(base) for base in cls.__mro__ if base is not UpstreamBase):
        what = f"the card {card.name!r} names no sources" if card else f"{family.name!r} is a family, not a checkpoint"
        where = f"add sources to it ({card.file}, line {card.line}), " if card else ""
        raise OptionError(
            f"{what}, so the weights would be random. Pass checkpoint=, {where}or build {cls.__name__}(config) yourself if "
            "random weights are what you want."
        )
    if _has(cls, "from_config", family):
        return cls.from_config(**{"config": card.config if card else None, **options})
    try:
        return cls(**options)
    except HubcoreError:
        raise
    except Exception as error:
        raise PluginError(
            f"{family.target} could not be built: {_describe(error)}. It belongs to {family.distribution} {family.version}. "
            "Give it from_config, or a constructor that works with its card's options."
        ) from error
