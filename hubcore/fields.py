"""Checks of dataclasses from their annotations: `check_fields` in a `__post_init__`, `build` for plain data from YAML or JSON.

```python
@dataclass(frozen=True)
class Config:
    dim: Size = 768
    dropout: Probability = 0.0
    power: Annotated[float, AtLeast(0)] = 1.0
    norm: Literal["group", "layer"] = "group"

    def __post_init__(self) -> None:
        check_fields(self)
        require(self.dim % 2 == 0, "dim", "even", self.dim)
```
"""

from __future__ import annotations

import dataclasses
import functools
import math
import reprlib
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from hubcore.errors import OptionError, nearest_hint

Record = TypeVar("Record")
Where = Callable[[str], str]
"""Says where a dotted key was set, such as `tiny.yaml`."""


@dataclass(frozen=True)
class Between:
    """Limits of a number, or of how many items a tuple has, written into its annotation.

    Example:
        >>> print(Between(0, 1, "[)"), 1 in Between(0, 1, "[)"), 1 in AtLeast(1))
        from 0 to below 1 False True
    """

    low: float
    high: float = math.inf
    ends: Literal["[]", "[)", "(]", "()"] = "[]"
    """Brackets as in mathematics: a square one includes the end, a round one does not."""

    def __contains__(self, value: Any) -> bool:
        number = len(value) if isinstance(value, tuple) else value
        above = number > self.low if self.ends[0] == "(" else number >= self.low
        return above and (number < self.high if self.ends[1] == ")" else number <= self.high)

    def __str__(self) -> str:
        open_low, open_high = self.ends[0] == "(", self.ends[1] == ")"
        if self.high == math.inf:
            return f"{'above' if open_low else 'of at least'} {self.low:,}"
        low = f"above {self.low:,} and" if open_low else f"from {self.low:,} to"
        return f"{low}{' below' if open_high else ' at most' if open_low else ''} {self.high:,}"


AtLeast = Between
Above = functools.partial(Between, ends="()")
Size = Annotated[int, Between(1, 65536)]
"""A width, a kernel or a number of heads. The upper limit stops a hostile config before anything is built from it."""
Depth = Annotated[int, Between(1, 1000)]
"""A number of layers."""
Rate = Annotated[int, Between(1, 1_000_000)]
"""Samples per second."""
Probability = Annotated[float, Between(0, 1, "[)")]
"""Of a dropout: 1 would leave nothing."""


def check_fields(record: Any) -> None:
    """Checks each field of a dataclass against its annotation; call it first in `__post_init__`.

    Lists become tuples, and whole numbers floats, where the annotation says so. A number must be finite.

    Raises:
        OptionError: a field has another type, or a value outside its limits.

    Example:
        >>> @dataclass(frozen=True)
        ... class Config:
        ...     dim: Size = 768
        ...     def __post_init__(self) -> None:
        ...         check_fields(self)
        >>> Config(dim=0)
        Traceback (most recent call last):
        hubcore.errors.OptionError: dim must be a whole number from 1 to 65,536, but is 0 instead.
    """
    hints = hints_of(type(record))
    for field in dataclasses.fields(record):
        value, hint = getattr(record, field.name), hints.get(field.name, Any)
        found = _convert(value, hint, field.name, None)
        if found is _WRONG:
            raise _must_be(field.name, in_words(hint), value)
        if found is not value:
            object.__setattr__(record, field.name, found)


def require(holds: bool, name: str, wanted: str, value: object) -> None:
    """Refuses the value of a field where its annotation alone cannot tell.

    Raises:
        OptionError: `holds` is false.

    Example:
        >>> require(7 % 2 == 0, "dim", "even", 7)
        Traceback (most recent call last):
        hubcore.errors.OptionError: dim must be even, but is 7 instead.
    """
    if not holds:
        raise _must_be(name, wanted, value)


def _must_be(name: str, wanted: str, value: object) -> OptionError:
    return OptionError(f"{name} must be {wanted}, but is {reprlib.repr(value)} instead.")


def build(cls: type[Record], values: object, *, prefix: str, where: Where, start: Record | None = None) -> Record:
    """An instance of a dataclass from a mapping, strictly.

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
        >>> @dataclass(frozen=True)
        ... class Point:
        ...     x: float = 0.0
        >>> build(Point, {"x": "5e-4"}, prefix="point", where=lambda key: "a.yaml")
        Point(x=0.0005)
    """
    if not isinstance(values, Mapping):
        raise OptionError(f"{where(prefix)}: {prefix or 'the file'} must be keys with values, but is {values!r:.60} instead.")
    hints = hints_of(cls)
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
    inside, dotted = (f"{prefix} has", f"{prefix}.{key}") if prefix else ("there is", key)
    return OptionError(f"{where}: {dotted} is unknown; {inside} no key {key!r}. {nearest_hint(key, known)} Correct it.")


def convert(value: Any, hint: Any, key: str, where: Where) -> Any:
    """`value` as the annotation `hint`, where YAML's spelling leaves no doubt.

    A whole number is a float too, `5e-4` is one although YAML takes it for text, a list is a tuple, and one value is a list
    of one.

    Raises:
        OptionError: it has another type, or is outside its limits.

    Example:
        >>> convert([1, 2], tuple[float, float], "betas", lambda key: "a.yaml")
        (1.0, 2.0)
    """
    found = _convert(value, hint, key, where)
    if found is _WRONG:
        raise _must_be(f"{where(key)}: {key}", in_words(hint), value)
    return found


def hints_of(thing: Any) -> Mapping[str, Any]:
    """The annotations of a class's fields or a function's parameters; none where one cannot be resolved."""
    try:
        return _evaluated(thing)
    except Exception:  # a plugin's annotation may be anything, or stand below `if TYPE_CHECKING:`
        return {}


@functools.lru_cache(maxsize=256)
def _evaluated(thing: Any) -> Mapping[str, Any]:
    return get_type_hints(thing, include_extras=True)


_WRONG: Any = object()


def _convert(value: Any, hint: Any, key: str, where: Where | None) -> Any:
    """`value` as `hint`, or `_WRONG`; without `where` it comes from Python, where text is no number and no item a list."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        limits = [limit for limit in arguments[1:] if isinstance(limit, Between)]
        if isinstance(value, list | tuple) and not all(tuple(value) in limit for limit in limits):
            return _WRONG  # before a list without end is looked at
        found = _convert(value, arguments[0], key, where)
        return found if found is not _WRONG and all(found in limit for limit in limits) else _WRONG
    if origin in (Union, types.UnionType):
        options = (_convert(value, argument, key, where) for argument in arguments)
        return next((one for one in options if one is not _WRONG), _WRONG)
    if origin is Literal:
        return value if any(value == choice and type(value) is type(choice) for choice in arguments) else _WRONG
    if origin in (tuple, Sequence):
        return _tuple(value, arguments if origin is tuple else (arguments[0], ...), key, where)
    if hint is float:
        return _float(value, text=where is not None)
    if hint is int:
        return value if isinstance(value, int) and not isinstance(value, bool) else _WRONG
    if hint in (bool, str, type(None)):
        return value if isinstance(value, hint) else _WRONG
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return value if isinstance(value, hint) else build(hint, value, prefix=key, where=where or (lambda _: "the config"))
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return value if isinstance(value, Mapping) else _WRONG
    return value if hint is Any or not isinstance(hint, type) or isinstance(value, hint) else _WRONG


def _tuple(value: Any, arguments: tuple[Any, ...], key: str, where: Where | None) -> Any:
    if not isinstance(value, list | tuple):
        if where is None or value is None:
            return _WRONG
        value = [value]
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        arguments = (arguments[0],) * len(value)
    if len(value) != len(arguments):
        return _WRONG
    items = tuple(_convert(item, argument, key, where) for item, argument in zip(value, arguments, strict=True))
    return _WRONG if any(item is _WRONG for item in items) else items


def _float(value: Any, *, text: bool) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float | str if text else int | float):
        return _WRONG
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return _WRONG
    return number if math.isfinite(number) else _WRONG


def in_words(hint: Any) -> str:
    """An annotation in words.

    Example:
        >>> in_words(tuple[int, ...]), in_words(Probability)
        ('a list (each a whole number)', 'a number from 0 to below 1')
    """
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        items = " items" if get_origin(arguments[0]) is tuple else ""
        return " ".join([in_words(arguments[0]), *(f"{limit}{items}" for limit in arguments[1:] if isinstance(limit, Between))])
    if origin in (Union, types.UnionType):
        return " or ".join(in_words(argument) for argument in arguments)
    if origin is Literal:
        return f"one of {', '.join(map(str, arguments))}"
    if origin in (tuple, Sequence):
        counted = origin is tuple and arguments[-1] is not Ellipsis
        inside, count = (arguments, f"{len(arguments)} values, ") if counted else (arguments[:1], "")
        return f"a list ({count}each {' or '.join(dict.fromkeys(map(in_words, inside)))})"
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return "keys with values"
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "text", type(None): "null"}
    return words.get(hint, getattr(hint, "__name__", str(hint)))
