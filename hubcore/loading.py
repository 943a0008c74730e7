"""From a registry entry to a running upstream: import the class, get the weights, build, check."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hubcore.card import Card
from hubcore.errors import ChecksumError, HubcoreError, OptionError, PluginError, UnavailableUpstreamError, nearest_names
from hubcore.registry.names import Entry, Family
from hubcore.registry.reading import find_line
from hubcore.sources.resolve import fetch_card, resolve
from hubcore.sources.stamps import file_sha256
from hubcore.text import error_text


def import_class(family: Family) -> type[Any]:
    """The class of a family; a failure to import it is a `PluginError` that names its distribution.

    Example:
        >>> from hubcore.registry.names import current_registry
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
            f"{family.target}, the class of {family.name!r}, cannot be imported: {error_text(error)}. It belongs to {owner}. "
            "Update or mend that distribution; every other upstream goes on working. `hubcore doctor` shows where it fails."
        ) from error
    if not isinstance(found, type):
        raise PluginError(f"{family.target} is a {type(found).__name__}, not a class. It belongs to {owner}: tell its authors.")
    return found


def build_upstream(entry: Entry, checkpoint: str | os.PathLike[str] | None, options: Mapping[str, Any]) -> Any:
    """The upstream of an entry, in eval mode, with its card attached; see `hubcore.hub.load`."""
    from hubcore.protocol import missing_parts
    from hubcore.upstream import check_options

    family, card = entry.family, entry.card
    if family is None or family.missing:
        raise UnavailableUpstreamError(f"{entry.name!r} cannot run here: {entry.unavailable}. `hubcore doctor` shows more.")
    cls = import_class(family)
    wanted = {**(card.options if card else {}), **options}
    problem = option_problem(cls, card, with_weights=checkpoint is not None or card.needs_weights) if card else None
    if problem:
        raise OptionError(problem)
    if checkpoint is not None or (card is not None and card.sources):
        known = known_options(cls, with_weights=True)
        if known is not None:
            check_options(cls, options, known=known)  # before gigabytes are fetched
    if checkpoint is not None:
        path = resolve(checkpoint)
        with _naming_the_card(card, options):
            upstream = _method(cls, "from_checkpoint", family)(path, **wanted)
    elif card is not None and card.sources:
        if card.config is not None and _has(cls, "configs", family):
            wanted.setdefault("config", card.config)  # for a file without a config; one that has its own is checked
        path = fetch_card(card)
        with _naming_the_card(card, options):
            upstream = _method(cls, "from_checkpoint", family)(path, **wanted)
        published = {source.sha256 for source in card.sources if source.sha256}
        # The stamp tells, for the price of a stat, whether the path still holds the file that was verified.
        if len(published) == len(card.sources) and path.is_file() and file_sha256(path) not in published:
            raise ChecksumError(
                f"{path}, the checkpoint of {card.name!r}, was replaced while it was read. What was loaded may not be the file "
                "that was verified, and is thrown away. See who writes there, and load again."
            )
    else:
        with _naming_the_card(card, options):
            upstream = _without_weights(cls, card, family, wanted)
    if card is not None and checkpoint is None:
        upstream.card = card
    lacking = missing_parts(upstream)
    if lacking:
        raise PluginError(
            f"{family.target} lacks {', '.join(lacking)}, so it is no upstream. It belongs to {family.distribution} "
            f"{family.version}. Its authors can inherit hubcore.UpstreamBase, which has them."
        )
    return upstream.eval() if hasattr(upstream, "eval") else upstream


def reads_checkpoints(cls: type[Any]) -> bool:
    """Whether a class inherits from `UpstreamBase` and has a loader of its own, so that without a file its weights are random.

    Example:
        >>> from hubcore_fbank import FbankUpstream
        >>> reads_checkpoints(FbankUpstream)
        False
    """
    from hubcore.upstream import UpstreamBase

    return issubclass(cls, UpstreamBase) and any("from_file" in vars(base) for base in cls.__mro__ if base is not UpstreamBase)


def known_options(cls: type[Any], *, with_weights: bool) -> set[str] | None:
    """Names of the options that a card of this class may set; None where its signature does not tell.

    Args:
        cls: the class of a family.
        with_weights: whether it is built with `from_checkpoint`, not from a config.

    Example:
        >>> from hubcore_wav2vec2 import Wav2Vec2Upstream
        >>> "layers" in known_options(Wav2Vec2Upstream, with_weights=True)
        True
    """
    from hubcore.upstream import UpstreamBase, checkpoint_options, config_options

    name = "from_checkpoint" if with_weights else "from_config"
    try:
        method = getattr(cls, name, None if with_weights else cls)
        if getattr(method, "__func__", method) is vars(UpstreamBase)[name].__func__:
            return checkpoint_options(cls) if with_weights else config_options(cls) | {"config"}
        parameters = [*inspect.signature(method).parameters.values()][int(with_weights) :]  # type: ignore[arg-type]
    except Exception:  # a metaclass may answer with anything; building the upstream then says what is wrong
        return None
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return None
    return {p.name for p in parameters if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)}


def option_problem(cls: type[Any], card: Card, *, with_weights: bool) -> str | None:
    """What is wrong with the names of a card's options, with file and line; None if nothing is."""
    known = known_options(cls, with_weights=with_weights)
    for name in card.options if known is not None else ():
        if known is not None and name not in known:
            near = nearest_names(name, known)
            hint = f"The nearest are {', '.join(near)}." if near else f"It takes {', '.join(sorted(known)) or 'none'}."
            return (
                f"{cls.__name__} has no option called {name!r}, which the card {card.name!r} sets{_place(card, name)}. "
                f"{hint} Correct the card."
            )
    return None


def _place(card: Card, option: str | None = None) -> str:
    """The file and the line of a card, or of one of its options, in brackets; empty for a card that is not written yet."""
    if card.file is None or card.line is None:
        return ""
    line = find_line(Path(card.file), card.name, "options", option) if option else None
    return f" ({card.file}, line {line or card.line})"


@contextlib.contextmanager
def _naming_the_card(card: Card | None, options: Mapping[str, Any]) -> Iterator[None]:
    """An `OptionError` from here on also says which of the options came from the card, which the user may not know."""
    try:
        yield
    except OptionError as error:
        ours = [name for name in card.options if name not in options] if card else []
        if card is None or not ours:
            raise
        values = " and ".join(f"{name}={card.options[name]!r}{_place(card, name)}" for name in ours)
        raise OptionError(f"{error} The card {card.name!r} sets {values}; what is passed to hub.load wins over it.") from error


def _has(cls: type[Any], name: str, family: Family) -> bool:
    """Whether the class has an attribute; a metaclass may answer with any exception."""
    try:
        return hasattr(cls, name)
    except Exception as error:
        raise PluginError(
            f"{family.target} cannot be used: looking for {name} in it gives {error_text(error)}. It belongs to "
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
    if reads_checkpoints(cls):
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
            f"{family.target} could not be built: {error_text(error)}. It belongs to {family.distribution} {family.version}. "
            "Give it from_config, or a constructor that works with its card's options."
        ) from error
