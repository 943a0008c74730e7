"""Options of an upstream class as data: name, type, default and a line of documentation; and `parse`, from text to values.

They are read from the class's own signatures and from the fields of its config, so a plugin declares nothing twice:
`hubcore info` lists them, and `hubcore extract -O name=value` reads them.
"""

from __future__ import annotations

import ast
import collections.abc
import dataclasses
import inspect
import itertools
import math
import re
import textwrap
import types
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from hubcore.errors import OptionError, nearest_names

_NOT_OPTIONS = frozenset({"self", "cls", "path", "source", "model", "wavs", "lengths"})
"""Parameters that hubcore itself fills in."""
_FIXED_KINDS = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


@dataclass(frozen=True)
class Option:
    """One option of an upstream class.

    Example:
        >>> Option("tail", Literal["drop", "keep"], "drop").type
        'drop or keep'
    """

    name: str
    """What to write before the `=`."""
    annotation: Any
    """The type that the class declares; `Any` where it declares none."""
    default: Any
    """Its value if it is not given; None where the class does not say."""
    doc: str = ""
    """The first sentence of its documentation."""
    at_load: bool = True
    """It is given to `hub.load`."""
    at_call: bool = False
    """It can be given to each call of the upstream."""

    @property
    def type(self) -> str:
        """The type in words."""
        return _in_words(self.annotation)

    def read(self, text: str) -> Any:
        """The value that a text stands for.

        Raises:
            OptionError: it is not of this type.
        """
        value = _read(text, self.annotation)
        if value is _WRONG:
            raise OptionError(f"{self.name} is {text!r:.80}. It must be {self.type}. Correct it.")
        return value


def options_of(cls: type[Any], *, with_weights: bool | None = None) -> tuple[Option, ...] | None:
    """The options of an upstream class, sorted by name; None where a `**kwargs` hides them.

    Args:
        cls: a class of a family; it need not inherit `UpstreamBase`.
        with_weights: whether it is loaded from a checkpoint or built from a config; as the class can do if None.

    Example:
        >>> from hubcore_fbank import FbankUpstream
        >>> option = next(option for option in options_of(FbankUpstream) if option.name == "num_mel_bins")
        >>> option.type, option.default, option.doc
        ('a whole number', 80, 'Number of mel filters.')
    """
    from hubcore.upstream import UpstreamBase

    based = issubclass(cls, UpstreamBase)
    if with_weights is None:
        with_weights = "from_file" in _own_methods(cls) if based else hasattr(cls, "from_checkpoint")
    if with_weights:
        own = "from_checkpoint" in _own_methods(cls) or not based
        found = _parameters(getattr(cls, "from_checkpoint" if own else "from_file"), skip=int(own))
    elif "from_config" in _own_methods(cls) or (not based and hasattr(cls, "from_config")):
        found = _parameters(cls.from_config)
    else:
        found = {**_fields(getattr(cls, "config_class", None)), **_parameters(cls)}
    calls = _parameters(cls.forward if hasattr(cls, "forward") else cls.__call__)
    calls.pop("layers", None)
    if "**" in found or "**" in calls:
        return None
    if based:
        found["config"] = (str | None, None)  # a text can name a config, not be one
        found.setdefault("layers", (Sequence[int] | None, None))
    docs = {**_field_docs(getattr(cls, "config_class", None)), **_argument_docs(cls), **_BASE_DOCS}
    return tuple(
        Option(name, annotation, default, docs.get(name, ""), at_load=name in found, at_call=name in calls)
        for name, (annotation, default) in sorted({**calls, **found}.items())
    )


def parse(cls: type[Any], pairs: Iterable[str], *, with_weights: bool | None = None) -> dict[str, Any]:
    """The options that texts of the form `name=value` give, each typed by the class.

    Args:
        cls: a class of a family.
        pairs: the texts.
        with_weights: see `options_of`.

    Raises:
        OptionError: no such option, a value of another type, or an option given twice.

    Example:
        >>> from hubcore_fbank import FbankUpstream
        >>> parse(FbankUpstream, ["num_mel_bins=40", "cmvn=false"])
        {'num_mel_bins': 40, 'cmvn': False}
    """
    values = parse_repeated(cls, pairs, with_weights=with_weights)
    for name, given in values.items():
        if len(given) > 1:
            raise OptionError(f"{name} is given {len(given)} times. Give each option once.")
    return {name: given[0] for name, given in values.items()}


def parse_repeated(cls: type[Any], pairs: Iterable[str], *, with_weights: bool | None = None) -> dict[str, list[Any]]:
    """As `parse`, but an option may be given several times; its values keep their order.

    Example:
        >>> from hubcore_fbank import FbankUpstream
        >>> parse_repeated(FbankUpstream, ["num_mel_bins=40", "num_mel_bins=80"])
        {'num_mel_bins': [40, 80]}
    """
    options = options_of(cls, with_weights=with_weights)
    known = None if options is None else {option.name: option for option in options}
    values: dict[str, list[Any]] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name.isidentifier():
            raise OptionError(f"the option {pair!r:.80} is not of the form name=value. Write it as name=value.")
        if known is not None and name not in known:
            raise unknown_option(cls, name, known)
        option = Option(name, Any, None) if known is None else known[name]
        values.setdefault(name, []).append(option.read(text))
    return values


def unknown_option(cls: type[Any], name: str, known: Iterable[str]) -> OptionError:
    """The error for an option that a class does not have, naming the nearest ones.

    Example:
        >>> from hubcore_fbank import FbankUpstream
        >>> print(unknown_option(FbankUpstream, "mel_bins", ["num_mel_bins", "cmvn"]))
        FbankUpstream has no option called 'mel_bins'. The nearest are num_mel_bins. `hubcore info` lists its options.
    """
    near = nearest_names(name, known)
    hint = f"The nearest are {', '.join(near)}." if near else f"It takes {', '.join(sorted(known)) or 'none'}."
    return OptionError(f"{cls.__name__} has no option called {name!r}. {hint} `hubcore info` lists its options.")


# Reading a class -----------------------------------------------------------------------------------------------------

_BASE_DOCS = {
    "config": "A named config, for a file that does not carry its own.",
    "layers": "The hidden states that a call returns when it does not pass `layers=`.",
}


def _own_methods(cls: type[Any]) -> set[str]:
    """Names that a class or one of its bases below `UpstreamBase` defines."""
    from hubcore.upstream import UpstreamBase

    return {name for base in cls.__mro__ if not issubclass(UpstreamBase, base) for name in vars(base)}


def _parameters(function: Callable[..., Any], skip: int = 0) -> dict[str, tuple[Any, Any]]:
    """Type and default of each named parameter that is an option; `**` stands for a parameter that takes any name."""
    hints = _hints(getattr(function, "__init__", None) if isinstance(function, type) else function)
    found: dict[str, tuple[Any, Any]] = {}
    for parameter in [*inspect.signature(function).parameters.values()][skip:]:
        if parameter.kind is parameter.VAR_KEYWORD:
            found["**"] = (Any, None)
        elif parameter.kind in _FIXED_KINDS and parameter.name not in _NOT_OPTIONS:
            default = None if parameter.default is parameter.empty else parameter.default
            found[parameter.name] = (hints.get(parameter.name, Any), default)
    return found


def _fields(config_class: Any) -> dict[str, tuple[Any, Any]]:
    """Type and default of each field of a config."""
    hints = _hints(config_class)
    return {
        field.name: (hints.get(field.name, Any), None if field.default is dataclasses.MISSING else field.default)
        for field in (dataclasses.fields(config_class) if config_class else ())
    }


def _hints(thing: Any) -> dict[str, Any]:
    """Annotations as types; none where one of them cannot be resolved, as below `if TYPE_CHECKING:`."""
    try:
        return get_type_hints(thing)
    except Exception:  # a plugin's annotation may be anything
        return {}


def _argument_docs(cls: type[Any]) -> dict[str, str]:
    """The first sentence on each argument in the Google docstrings of what builds, loads and calls a class."""
    found: dict[str, str] = {}
    methods = [getattr(cls, name, None) for name in ("forward", "__init__", "from_config", "from_checkpoint", "from_file")]
    for documented in [cls, *methods]:
        text = inspect.cleandoc(getattr(documented, "__doc__", None) or "")
        section = re.search(r"^Args:\n((?:[ \t]+.*\n?|\n)*)", text, re.MULTILINE)
        lines = textwrap.dedent(section[1]) if section else ""
        found |= {key: _sentence(said) for key, said in re.findall(r"^(\w+): ((?:.+\n?)(?:[ \t]+.*\n?)*)", lines, re.MULTILINE)}
    return found


def _field_docs(config_class: Any) -> dict[str, str]:
    """The first sentence of the docstring below each field of a dataclass, read from its source."""
    found: dict[str, str] = {}
    for base in reversed(config_class.__mro__ if config_class else ()):
        try:
            (body,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        except (OSError, TypeError, SyntaxError, ValueError):
            continue
        found |= dict(_documented(getattr(body, "body", [])))
    return found


def _documented(body: Sequence[ast.stmt]) -> Iterator[tuple[str, str]]:
    for field, below in itertools.pairwise(body):
        text = below.value.value if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant) else None
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(text, str):
            yield field.target.id, _sentence(text)


def _sentence(text: str) -> str:
    """The first sentence, on one line."""
    return re.split(r"(?<=[.])\s", " ".join(text.split()), maxsplit=1)[0]


# Reading a text ------------------------------------------------------------------------------------------------------

_WRONG: Any = object()
_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text", type(None): "none"}
_TRUTHS = {"true": True, "false": False}
_ANYTHING: Any = bool | None | int | float | Sequence[int | float] | str
_LISTS = (tuple, list, collections.abc.Sequence)


def _read(text: str, hint: Any) -> Any:
    """The value of type `hint` that `text` spells; `_WRONG` if it spells none."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        ordered = sorted(arguments, key=lambda argument: argument is str)  # text is what nothing else is
        return next((value for argument in ordered if (value := _read(text, argument)) is not _WRONG), _WRONG)
    if origin is Literal:
        return next((choice for choice in arguments if str(choice) == text), _WRONG)
    if origin in _LISTS:
        return _read_list(text, tuple if origin is tuple else list, arguments)
    if hint is bool:
        return _TRUTHS.get(text.strip().lower(), _WRONG)
    if hint is type(None):
        return None if text.strip().lower() in ("none", "null") else _WRONG
    if hint is str:
        return text
    if hint in (int, float):
        try:
            number = hint(text)
        except ValueError:
            return _WRONG
        return number if math.isfinite(number) else _WRONG
    return _read(text, _ANYTHING) if hint is Any else _WRONG


def _read_list(text: str, kind: type[Any], arguments: tuple[Any, ...]) -> Any:
    """Values with commas between, in brackets or not."""
    inside = re.fullmatch(r"\s*[\[(](.*)[\])]\s*", text)
    parts = [part.strip() for part in (inside[1] if inside else text).split(",")]
    item_types = [arguments[0]] * len(parts) if kind is list or arguments[-1] is Ellipsis else list(arguments)
    if len(item_types) != len(parts):
        return _WRONG
    values = [_read(part, item) for part, item in zip(parts, item_types, strict=True)]
    return _WRONG if any(value is _WRONG for value in values) else kind(values)


def _in_words(hint: Any) -> str:
    """A type in words; parts of a union that no text can spell are left out."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        spelt = [argument for argument in arguments if argument is not type(None)]
        return " or ".join(dict.fromkeys(filter(None, map(_in_words, spelt)))) or "text"
    if origin is Literal:
        return " or ".join(map(str, arguments))
    if origin in _LISTS:
        count = "values " if origin is not tuple or arguments[-1] is Ellipsis else f"{len(arguments)} values "
        return f"{count}separated by commas, each {_in_words(arguments[0])}"
    return "any value" if hint is Any else _WORDS.get(hint, "")
