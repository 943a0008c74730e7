"""Plain data from YAML as frozen dataclasses, strictly: an unknown key or a wrong type is an error that names the place."""

from __future__ import annotations

import dataclasses
import math
import types
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from hubcore.errors import OptionError, nearest_names

Record = TypeVar("Record")
Where = Callable[[str], str]
"""Says where a dotted key was set, such as `tiny.yaml`."""


def build(cls: type[Record], values: object, *, prefix: str, where: Where, start: Record | None = None) -> Record:
    """An instance of a dataclass from a mapping.

    Args:
        cls: the dataclass.
        values: keys and values as YAML gives them.
        prefix: the dotted key of the mapping itself, for messages; empty at the top.
        where: says where a key was set.
        start: what the keys that are not given are taken from, instead of the class's defaults.

    Raises:
        OptionError: no such key, a value of another type, a key that must be there and is not, or a value that the class
            itself refuses.

    Example:
        >>> @dataclasses.dataclass(frozen=True)
        ... class Point:
        ...     x: float = 0.0
        >>> build(Point, {"x": "5e-4"}, prefix="point", where=lambda key: "a.yaml")
        Point(x=0.0005)
    """
    if not isinstance(values, Mapping):
        raise OptionError(
            f"{where(prefix)}: {prefix or 'the file'} is {values!r:.60}. It must be keys with values. Write it so."
        )
    hints = _hints(cls)
    known = [field.name for field in dataclasses.fields(cls) if field.init]  # type: ignore[arg-type]
    given: dict[str, Any] = {}
    for key, value in values.items():
        dotted = f"{prefix}.{key}" if prefix else str(key)
        if key not in known:
            raise unknown_key(str(key), known, prefix, where(dotted))
        given[str(key)] = convert(value, hints.get(str(key), Any), dotted, where)
    try:
        return cls(**given) if start is None else dataclasses.replace(start, **given)  # type: ignore[type-var]
    except OptionError as error:
        raise OptionError(f"{where(prefix)}: {prefix}: {error}") from error
    except (TypeError, ValueError) as error:
        raise OptionError(f"{where(prefix)}: {prefix} cannot be used: {error}. Correct its values.") from error


def unknown_key(key: str, known: list[str], prefix: str, where: str) -> OptionError:
    """The error for a key that is none of `known`, with the nearest ones."""
    near = nearest_names(key, known)
    hint = f"The nearest are {', '.join(near)}." if near else f"There are {', '.join(known)}."
    inside = f"{prefix} has" if prefix else "there is"
    return OptionError(
        f"{where}: {f'{prefix}.{key}' if prefix else key} is unknown; {inside} no key {key!r}. {hint} Correct it."
    )


def _hints(cls: type[Any]) -> dict[str, Any]:
    """The types of a dataclass's fields; those that cannot be resolved are not checked."""
    try:
        return get_type_hints(cls)
    except (NameError, AttributeError, TypeError):
        return {}


def convert(value: Any, hint: Any, key: str, where: Where) -> Any:
    """`value` as the type `hint`, where YAML's spelling leaves no doubt.

    A whole number is a float too, `5e-4` is one although YAML takes it for text, a list is a tuple, and one value is a list
    of one.

    Raises:
        OptionError: it is of another type.

    Example:
        >>> convert([1, 2], tuple[float, float], "betas", lambda key: "a.yaml")
        (1.0, 2.0)
    """
    found = _convert(value, hint, key, where)
    if found is _WRONG:
        raise OptionError(f"{where(key)}: {key} is {value!r:.80}. It must be {_name(hint)}. Correct it.")
    return found


_WRONG: Any = object()


def _convert(value: Any, hint: Any, key: str, where: Where) -> Any:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        found = (_convert(value, argument, key, where) for argument in arguments)
        return next((one for one in found if one is not _WRONG), _WRONG)
    if origin is Literal:
        return value if any(value == choice and type(value) is type(choice) for choice in arguments) else _WRONG
    if origin is tuple:
        items = list(value) if isinstance(value, list | tuple) else [value]
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            arguments = (arguments[0],) * len(items)
        if len(items) != len(arguments) or value is None:
            return _WRONG
        converted = [_convert(item, argument, key, where) for item, argument in zip(items, arguments, strict=True)]
        return _WRONG if any(item is _WRONG for item in converted) else tuple(converted)
    if hint is type(None):
        return None if value is None else _WRONG
    if hint is bool:
        return value if isinstance(value, bool) else _WRONG
    if hint is int:
        return value if isinstance(value, int) and not isinstance(value, bool) else _WRONG
    if hint is float:
        return _float(value)
    if hint is str:
        return value if isinstance(value, str) else _WRONG
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return value if isinstance(value, hint) else build(hint, value, prefix=key, where=where)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return value if isinstance(value, Mapping) else _WRONG
    return value


def _float(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return _WRONG
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return _WRONG
    return number if math.isfinite(number) else _WRONG


def _name(hint: Any) -> str:
    """A type in words."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(_name(argument) for argument in arguments)
    if origin is Literal:
        return f"one of {', '.join(map(str, arguments))}"
    if origin is tuple:
        inside = arguments[:1] if arguments[-1] is Ellipsis else arguments
        count = "" if arguments[-1] is Ellipsis else f"{len(arguments)} values, "
        return f"a list ({count}each {' or '.join(dict.fromkeys(map(_name, inside)))})"
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return "keys with values"
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "text", type(None): "null"}
    return words.get(hint, getattr(hint, "__name__", str(hint)))
