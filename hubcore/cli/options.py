"""Parts that commands share: `-O name=value`, an option of the upstream, typed by its class; and lines about downloads."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import click

from hubcore.progress import is_terminal

_Command = TypeVar("_Command", bound=Callable[..., Any])


def option_flag(
    help: str = "An option of the upstream, as `hubcore info` lists them; repeatable.",
) -> Callable[[_Command], _Command]:
    """Adds `-O` to a command, which gets the texts as `pairs`."""
    return click.option("-O", "--option", "pairs", multiple=True, metavar="NAME=VALUE", help=help)


@contextlib.contextmanager
def download_lines() -> Iterator[None]:
    """Shows, where standard error is no terminal, the lines of the log that tell how far a download is."""
    logger = logging.getLogger("hubcore.checkpoints")
    level = logger.level
    logger.setLevel(level if is_terminal(sys.stderr) else logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(level)


def typed_options(
    name: str, checkpoint: str | None, pairs: Iterable[str], *, compare: bool = False
) -> tuple[dict[str, Any], dict[str, list[Any]]]:
    """The options to load an upstream with, and those of its calls, with all the values of each.

    Of the calls is what cannot be given when the upstream is loaded. With `compare`, it is everything that a call takes, and
    may be given several times.

    Raises:
        OptionError: no such option, or a value of another type.
    """
    from hubcore.loading import import_class
    from hubcore.options import once, options_of, parse_repeated
    from hubcore.registry.names import current_registry

    entry = current_registry().find(name)
    if not pairs or entry.family is None or entry.family.missing:
        return {}, {}  # the error about the family is that of `hub.load`
    cls = import_class(entry.family)
    with_weights = checkpoint is not None or (entry.card.needs_weights if entry.card else None)
    values = parse_repeated(cls, pairs, with_weights=with_weights)
    options = options_of(cls, with_weights=with_weights) or ()
    of_calls = {option.name for option in options if option.at_call and (compare or not option.at_load)}
    calls = {name: given for name, given in values.items() if name in of_calls}
    return once({name: given for name, given in values.items() if name not in of_calls}), calls
