"""`echo`, `echo_error`, `echo_json`: the one way in which commands print, whatever the names in a text are made of."""

from __future__ import annotations

import contextlib
import json
import math
import sys
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from hubcore.text import LINES, printable

_Command = TypeVar("_Command", bound=Callable[..., Any])
_STDOUT = f"{__name__}.stdout"


def echo(text: object = "", *, err: bool = False, nl: bool = True) -> None:
    """Prints text, which may have several lines; what else could drive a terminal is written out."""
    click.echo(printable(str(text), keep=LINES), err=err, nl=nl)


def echo_error(text: str) -> None:
    """Prints a message of several lines on standard error; no line of it but the first can look like one of ours."""
    echo(text.replace("\n", "\n  "), err=True)


def echo_json(value: Any) -> None:
    """Prints JSON; a number that JSON does not have (NaN, infinity) is null."""
    text = json.dumps(finite(value), indent=2, allow_nan=False, default=str).replace("\x7f", "\\u007f")
    click.echo(text, file=click.get_current_context().meta.get(_STDOUT))


def finite(value: Any) -> Any:
    """Plain data with None for every number that JSON does not have.

    Example:
        >>> finite({"snr": [1.5, float("inf")]})
        {'snr': [1.5, None]}
    """
    if isinstance(value, Mapping):
        return {name: finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def json_flag(instead: str = "a table") -> Callable[[_Command], _Command]:
    """Adds `--json` to a command, which gets it as `as_json`; standard output then has the JSON and nothing else.

    Args:
        instead: what it prints otherwise.
    """
    help = f"Print JSON instead of {instead}."
    return click.option("--json", "as_json", is_flag=True, is_eager=True, callback=_keep_stdout, help=help)


def _keep_stdout(ctx: click.Context, parameter: click.Parameter, value: bool) -> bool:  # noqa: ARG001 - click's signature
    """Leads all other output to standard error, such as that of a plugin which prints."""
    if value:
        ctx.meta[_STDOUT] = sys.stdout
        ctx.with_resource(contextlib.redirect_stdout(sys.stderr))
    return value
