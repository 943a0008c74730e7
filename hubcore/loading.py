"""One way to load: a name or a source is found, options are checked, the checkpoint is fetched, the class builds from the file.

`hub.load` and `hubcore extract` come in by `build_upstream`, `from_checkpoint` and `hubcore convert` by `load_checkpoint`.
Imports no torch.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from hubcore.card import Card, Source, UpstreamShape
from hubcore.errors import ChecksumError, HubcoreError, OptionError, PluginError, UnavailableUpstreamError
from hubcore.guests import as_guest
from hubcore.options import check_options, is_based, option_names, own_methods, pop_attributes, set_attributes
from hubcore.registry.names import Entry, Family
from hubcore.registry.reading import find_line
from hubcore.sources.resolve import fetch, find_checkpoint
from hubcore.sources.stamps import file_sha256
from hubcore.text import error_text

if TYPE_CHECKING:
    import torch

_INHERIT = "Its authors can inherit hubcore.UpstreamBase, which has it."
_BUILD = "Its authors can give it from_config, or a constructor that works with its card's options."
_UPDATE = "Update or fix that distribution; `hubcore doctor` shows where it fails. All other upstreams still work."
_NO_OPTIONS: Mapping[str, Any] = MappingProxyType({})


@contextlib.contextmanager
def on_cpu() -> Iterator[None]:
    """Within it, and in a function that it decorates, tensors are made on the CPU, whatever default device was set."""
    import torch

    with contextlib.nullcontext() if torch.empty(0).device.type == "cpu" else torch.device("cpu"):
        yield


@on_cpu()
def build_upstream(
    entry: Entry,
    checkpoint: str | os.PathLike[str] | None = None,
    options: Mapping[str, Any] = _NO_OPTIONS,
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> Any:
    """The upstream of an entry, in eval mode, with its card attached; see `hubcore.hub.load`."""
    from hubcore.protocol import missing_parts  # imports torch

    family, card = entry.family, entry.card
    if family is None or family.missing:
        raise UnavailableUpstreamError(f"{entry.name!r} cannot run here: {entry.unavailable}.", "`hubcore doctor` shows more.")
    cls = import_class(family)
    ways = _ways(cls, family)
    if checkpoint is not None or (card is not None and card.sources):
        if not ways & {"from_file", "from_checkpoint"}:
            raise _plugin_error(family, "has no from_checkpoint, so it cannot load weights", _INHERIT)
        found = card if checkpoint is None and card is not None else find_checkpoint(checkpoint or "")
        upstream = load_checkpoint(cls, found, options, card=card, device=device, dtype=dtype)
    else:
        upstream = _without_weights(cls, card, family, ways, options, device, dtype)
    lacking = missing_parts(upstream)
    if lacking:
        raise _plugin_error(family, f"lacks {', '.join(lacking)}, so it is no upstream", _INHERIT)
    return upstream.eval() if hasattr(upstream, "eval") else upstream


@on_cpu()
def load_checkpoint(
    cls: type[Any],
    found: Path | Source | Card,
    options: Mapping[str, Any],
    *,
    card: Card | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> Any:
    """An upstream with the weights of a checkpoint: checks the options, fetches the file, builds.

    Where the caller gives no option, that of `card` holds (`found` if that is a card).
    """
    from hubcore.checkpoints.runs import run_card  # its package imports torch

    card = found if isinstance(found, Card) else card
    chosen = {**(card.options if card else {}), **options}
    if isinstance(found, Card) and found.config is not None and hasattr(cls, "configs"):
        chosen.setdefault("config", found.config)  # for a file without a config; one that has its own is checked
    with naming_the_card(card, options):
        check_options(cls, chosen, with_weights=True)
        _check_place(device, dtype)
        _check_layers(cls, chosen)
        path = fetch(found)
        upstream = _from_file(cls, path, chosen, _place(device, dtype), options.get("layers"))
    upstream.card = found if isinstance(found, Card) else run_card(path)
    if isinstance(found, Card):
        _check_not_replaced(found, path)
    return upstream


def _check_layers(cls: type[Any], options: Mapping[str, Any]) -> None:
    """Raises `OptionError` for layers that the named config has not, before anything is fetched for them."""
    from hubcore.ragged import layer_indices  # imports torch

    configs = getattr(cls, "configs", None)
    config = configs.get(options.get("config")) if isinstance(configs, Mapping) else None
    shape = getattr(config, "upstream_shape", None)
    if isinstance(shape, UpstreamShape) and options.get("layers") is not None:
        layer_indices(options["layers"], shape.layer_names, cls.__name__)


def _from_file(cls: type[Any], path: Path, options: Mapping[str, Any], place: dict[str, Any], keep_layers: Any) -> Any:
    """Calls the class's own loader with the options; what it does not take is set on the upstream afterwards.

    A card's `layers` are a default alone; the caller's are all that will be asked for, so a loader may read no more.
    """
    direct = is_based(cls) and "from_checkpoint" not in own_methods(cls)
    load = cls.from_file if direct else cls.from_checkpoint
    given = dict(options)
    attributes = pop_attributes(cls, given, option_names(cls, with_weights=True, declared=True) or ()) if direct else {}
    taken = {name: place.pop(name) for name in [*place] if name in inspect.signature(load).parameters}
    if keep_layers is not None and "layers" in attributes and "keep_layers" in inspect.signature(load).parameters:
        taken["keep_layers"] = keep_layers
    with as_guest():
        upstream = load(path, **given, **taken)
    set_attributes(upstream, attributes)
    return _moved(upstream, place)


def _without_weights(
    cls: type[Any],
    card: Card | None,
    family: Family,
    ways: set[str],
    options: Mapping[str, Any],
    device: torch.device | str | None,
    dtype: torch.dtype | None,
) -> Any:
    """An upstream that needs no checkpoint, built from the card's config and options."""
    chosen = {**(card.options if card else {}), **options}
    with naming_the_card(card, options):
        check_options(cls, chosen, with_weights=False)
        _check_place(device, dtype)
        if reads_checkpoints(cls):
            raise _random_weights(cls, card, family)
        try:
            with as_guest():
                if "from_config" in ways:
                    upstream = cls.from_config(**{"config": card.config if card else None, **chosen})
                else:
                    upstream = cls(**chosen)
        except HubcoreError:
            raise
        except Exception as error:
            if "from_config" in ways:
                raise
            raise _plugin_error(family, f"could not be built: {error_text(error)}", _BUILD) from error
    upstream.card = card
    return _moved(upstream, _place(device, dtype))


# Classes --------------------------------------------------------------------------------------------------------------


def import_class(family: Family) -> type[Any]:
    """The class of a family; a failure to import it is a `PluginError` that names its distribution."""
    with as_guest(lambda error: _plugin_error(family, f"cannot be imported: {error_text(error)}", _UPDATE)):
        found = getattr(importlib.import_module(family.module), family.class_name)
    if not isinstance(found, type):
        raise _plugin_error(family, f"is a {type(found).__name__}, not a class", "Tell its authors.")
    return found


def _ways(cls: type[Any], family: Family) -> set[str]:
    """Names of a class's own ways to be built; a metaclass may answer with any exception."""
    try:
        return {name for name in ("from_file", "from_checkpoint", "from_config", "configs") if hasattr(cls, name)}
    except Exception as error:
        raise _plugin_error(family, f"cannot be used: asked for its methods, it gives {error_text(error)}", _UPDATE) from error


def reads_checkpoints(cls: type[Any]) -> bool:
    """True if a class inherits from `UpstreamBase` and has its own loader, so that without a file its weights are random."""
    return is_based(cls) and "from_file" in own_methods(cls)


def option_problem(cls: type[Any], card: Card, *, with_weights: bool) -> OptionError | None:
    """The first fault in the names of a card's options, with file and line; None if there is none."""
    try:
        with naming_the_card(card, {}):
            check_options(cls, card.options, with_weights=with_weights)
    except OptionError as error:
        return error
    return None


@contextlib.contextmanager
def naming_the_card(card: Card | None, options: Mapping[str, Any]) -> Iterator[None]:
    """Adds to an `OptionError` raised inside which of the options the card has set, since the user may not know."""
    try:
        yield
    except OptionError as error:
        ours = [name for name in card.options if name not in options] if card else []
        if error.option is not None:
            ours = [name for name in ours if name == error.option]
        if card is None or not ours:
            raise
        values = " and ".join(f"{name}={card.options[name]!r}{_line(card, name)}" for name in ours)
        what = f"{error.what} {error.fix}".strip()
        fix = "Correct the card, or pass another value to hub.load."
        raise OptionError(f"{what} The card {card.name!r} sets {values}.", fix, error.option) from error


def _line(card: Card, option: str) -> str:
    """The file and the line of a card's option, in brackets; empty for a card that is not written yet."""
    if card.file is None or card.line is None:
        return ""
    return f" ({card.file}, line {find_line(Path(card.file), card.name, 'options', option) or card.line})"


# Device and type ------------------------------------------------------------------------------------------------------


def _check_place(device: torch.device | str | None, dtype: torch.dtype | None) -> None:
    """Raises `OptionError` for a device that cannot be used here, or a type that is not floating-point."""
    import torch

    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise OptionError(f"dtype is {dtype!r}. It must be a floating-point type.", "Use torch.float16, say.")
    try:
        if device is not None:
            torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
        reason = str(error).partition("\n")[0].rstrip(".") + "."
        raise OptionError(f"the device {device!r} cannot be used here: {reason}", "Use another, such as 'cpu'.") from error


def _place(device: torch.device | str | None, dtype: torch.dtype | None) -> dict[str, Any]:
    """Device and dtype as keywords, those that the caller gave."""
    return {name: value for name, value in (("device", device), ("dtype", dtype)) if value is not None}


def _moved(upstream: Any, place: Mapping[str, Any]) -> Any:
    """The upstream on another device or in another type, if one is given."""
    if place and not hasattr(upstream, "to"):
        raise OptionError(f"{type(upstream).__name__} has no .to(), so it cannot be moved.", f"Leave out {', '.join(place)}.")
    return upstream.to(**place) if place else upstream


def _check_not_replaced(card: Card, path: Path) -> None:
    """Raises `ChecksumError` if the file that was verified is not the one at its path any more."""
    published = {source.sha256 for source in card.sources if source.sha256}
    # The stamp tells, for the price of a stat, whether the path still holds that file.
    if len(published) == len(card.sources) and path.is_file() and file_sha256(path) not in published:
        raise ChecksumError(
            f"{path}, the checkpoint of {card.name!r}, was replaced while it was read, so it was not loaded.",
            "See which program writes there, and load again.",
        )


# Errors ---------------------------------------------------------------------------------------------------------------


def _plugin_error(family: Family, what: str, fix: str) -> PluginError:
    return PluginError(f"{family.target} {what}. It belongs to {family.distribution} {family.version}.", fix)


def _random_weights(cls: type[Any], card: Card | None, family: Family) -> OptionError:
    if card:
        what, way = f"the card {card.name!r} names no sources", f"add sources to it ({card.file}, line {card.line})"
    else:
        what = f"{family.name!r} is a family, not a checkpoint"
        way = f"use one of its names (`hubcore list --family {family.name}`)"
    return OptionError(
        f"{what}, so the weights would be random.",
        f"Pass a checkpoint (checkpoint=, or -c on the command line), {way}, or build {cls.__name__}(config) yourself for "
        "random weights.",
    )
