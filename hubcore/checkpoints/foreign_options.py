"""Options of foreign configs as plain values: what each system calls our options, and its own defaults. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hubcore.errors import CheckpointLayoutError

Options = Mapping[str, tuple[str, Any]]
"""Our option -> (the system's name for it, the system's default); a value's type is that of the default."""


def read_options(model: Mapping[str, Any], options: Options) -> dict[str, Any]:
    """Our options from a foreign config; what it leaves out has the system's default.

    Raises:
        ValueError: a value is not of its option's type; the message names the option.

    Example:
        >>> read_options({"encoder_layers": "24"}, {"num_layers": ("encoder_layers", 12), "dim": ("encoder_embed_dim", 768)})
        {'num_layers': 24, 'dim': 768}
        >>> read_options({"encoder_layers": "many"}, {"num_layers": ("encoder_layers", 12)})
        Traceback (most recent call last):
        ValueError: encoder_layers: 'many' is not a whole number
    """
    kinds: Mapping[type, Any] = {bool: to_bool, int: to_int, float: to_float}
    values = {}
    for ours, (theirs, default) in options.items():
        try:
            values[ours] = kinds[type(default)](model.get(theirs, default))
        except ValueError as error:
            raise ValueError(f"{theirs}: {error}") from error
    return values


def write_options(config: Any, options: Options) -> dict[str, Any]:
    """The options of one of our configs under a system's names.

    Example:
        >>> write_options(type("Config", (), {"num_layers": 2}), {"num_layers": ("encoder_layers", 12)})
        {'encoder_layers': 2}
    """
    return {theirs: getattr(config, ours) for ours, (theirs, _) in options.items()}


def to_int(value: object) -> int:
    """An integer, also one that an old Namespace holds as a string."""
    try:
        if isinstance(value, str | int) and not isinstance(value, bool):
            return int(value)
    except ValueError:
        pass
    raise ValueError(f"{value!r} is not a whole number")


def to_float(value: object) -> float:
    """A number, also one that an old Namespace holds as a string."""
    try:
        if isinstance(value, str | int | float) and not isinstance(value, bool):
            return float(value)
    except (ValueError, OverflowError):
        pass
    raise ValueError(f"{value!r} is not a number")


def to_bool(value: object) -> bool:
    """True or false, also one that an old Namespace holds as a string.

    Example:
        >>> to_bool("True"), to_bool(False)
        (True, False)
    """
    if isinstance(value, bool):
        return value
    if str(value) in ("True", "true", "1", "False", "false", "0", "None"):
        return str(value) in ("True", "true", "1")
    raise ValueError(f"{value!r} is neither true nor false")


def demand(model: Mapping[str, Any], allowed: Mapping[str, Sequence[Any]]) -> None:
    """Raises `CheckpointLayoutError` where an option has a value that the encoder does not compute.

    `allowed` is option -> the values that are computed, the system's default first.
    """
    for option, values in allowed.items():
        value = model.get(option, values[0])
        if value not in values:
            raise CheckpointLayoutError(
                f"it has {option}={value!r}, but this encoder computes {' or '.join(map(repr, values))} only. Load it with the "
                "class of its own family."
            )


def note_defaults(model: Mapping[str, Any], keys: Iterable[str], system: str, notes: list[str]) -> None:
    """Adds a note about options that the config leaves out; both systems at times write only what is not their default.

    Example:
        >>> notes = []
        >>> note_defaults({}, ["layer_norm_first"], "fairseq", notes)
        >>> notes
        ["the config does not have layer_norm_first; fairseq's own defaults were taken"]
    """
    absent = [key for key in keys if key not in model]
    if absent:
        notes.append(f"the config does not have {', '.join(absent)}; {system}'s own defaults were taken")
