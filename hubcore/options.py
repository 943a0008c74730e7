"""Options of an upstream class as data: name, type, default and a line of documentation; and `parse`, from text to values.

They are read from the class's own signatures and from the fields of its config, so a plugin declares nothing twice:
`hubcore info` lists them, and `hubcore extract -O name=value` reads them.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import inspect
import itertools
import re
import textwrap
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Union, get_args, get_origin

from hubcore.errors import OptionError, nearest_hint
from hubcore.fields import convert, hints_of, in_words
from hubcore.strict_yaml import StrictYamlError, parse_yaml

_NOT_OPTIONS = frozenset({"self", "cls", "path", "source", "model", "device", "dtype", "keep_layers", "wavs", "lengths"})
"""Parameters that hubcore itself fills in."""
_FIXED_KINDS = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


@dataclass(frozen=True)
class Option:
    """One option of an upstream class.

    Example:
        >>> Option("width", int, 80).type
        'a whole number'
    """

    name: str
    """Name, as written before the `=`."""
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
        """The type in words, without what no text can spell."""
        return in_words(_spelt(self.annotation))

    def read(self, text: str) -> Any:
        """The value that a text stands for.

        Raises:
            OptionError: it is not of this type.
        """
        inside = text.strip().removeprefix("[").removesuffix("]")
        for spelling in (text, f"[{inside}]"):
            with contextlib.suppress(OptionError, StrictYamlError):
                return convert(parse_yaml(spelling), self.annotation, self.name, str)
        return convert(text, _spelt(self.annotation), self.name, lambda _: f"{self.name}={text:.80}")


def options_of(cls: type[Any], *, with_weights: bool | None = None) -> tuple[Option, ...] | None:
    """The options of an upstream class, sorted by name; None where a `**kwargs` hides them.

    Args:
        cls: a class of a family; it need not inherit `UpstreamBase`.
        with_weights: whether it is loaded from a checkpoint or built from a config; as the class can do if None.

    Example:
        >>> from hubcore_fbank import FbankUpstream
        >>> option = next(option for option in options_of(FbankUpstream) if option.name == "num_mel_bins")
        >>> option.type, option.default, option.doc
        ('a whole number from 1 to 65,536', 80, 'Number of mel filters.')
    """
    found = _declared(cls, with_weights)
    calls = _parameters(cls.forward if hasattr(cls, "forward") else cls.__call__)
    calls.pop("layers", None)
    if "**" in found or "**" in calls:
        return None
    if is_based(cls):
        found["config"] = (str | None, None)  # a text can name a config, not be one
        for name in _attributes(cls):
            found.setdefault(name, _ATTRIBUTES[name][1:])
    docs = {**_field_docs(getattr(cls, "config_class", None)), **_argument_docs(cls), **_BASE_DOCS}
    return tuple(
        Option(name, annotation, default, docs.get(name, ""), at_load=name in found, at_call=name in calls)
        for name, (annotation, default) in sorted({**calls, **found}.items())
    )


def option_names(cls: type[Any], *, with_weights: bool | None = None, declared: bool = False) -> frozenset[str] | None:
    """The names of the options that `hub.load` takes for a class; None where the class does not tell.

    With `declared`, only those that the class itself declares, without what `UpstreamBase` adds. For `with_weights` see
    `options_of`.

    Example:
        >>> from hubcore_wav2vec2 import Wav2Vec2Upstream
        >>> sorted(option_names(Wav2Vec2Upstream, with_weights=True))
        ['activation_dropout', 'attention_dropout', 'config', 'dropout', 'gradient_checkpointing', 'layers']
    """
    try:
        names = frozenset(_declared(cls, with_weights))
        added = frozenset(("config", *_attributes(cls))) if is_based(cls) and not declared else frozenset()
    except Exception:  # a metaclass may answer with anything; building the upstream then says what is wrong
        return None
    return None if "**" in names else names | added


def check_options(cls: type[Any], options: Iterable[str], *, with_weights: bool) -> None:
    """Raises `OptionError` for an option that a class does not have, naming the nearest ones."""
    known = option_names(cls, with_weights=with_weights)
    for name in options if known is not None else ():
        if known is not None and name not in known:
            raise unknown_option(cls, name, known, also=("checkpoint", "device", "dtype", "train"))


def parse(cls: type[Any], pairs: Iterable[str], *, with_weights: bool | None = None) -> dict[str, Any]:
    """The options that texts of the form `name=value` give, each typed by the class; see `options_of`.

    Raises:
        OptionError: no such option, a value of another type, or an option given twice.

    Example:
        >>> from hubcore_fbank import FbankUpstream
        >>> parse(FbankUpstream, ["num_mel_bins=40", "cmvn=false"])
        {'num_mel_bins': 40, 'cmvn': False}
    """
    return once(parse_repeated(cls, pairs, with_weights=with_weights))


def once(values: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    """The only value of each option.

    Raises:
        OptionError: one was given twice.
    """
    for name, given in values.items():
        if len(given) > 1:
            raise OptionError(f"{name} is given {len(given)} times.", fix="Give it once.")
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


def unknown_option(cls: type[Any], name: str, known: Iterable[str], also: Iterable[str] = ()) -> OptionError:
    """The error for an option that a class does not have, naming the nearest ones of `known` and `also`.

    Example:
        >>> from hubcore_fbank import FbankUpstream
        >>> print(unknown_option(FbankUpstream, "mel_bins", ["num_mel_bins", "cmvn"]))
        FbankUpstream has no option called 'mel_bins'. The nearest are num_mel_bins. `hubcore info` lists its options.
    """
    if name == "gradient_checkpointing":
        return OptionError(f"{cls.__name__} has no blocks that gradient checkpointing works on.", "Leave it out.", option=name)
    hint = nearest_hint(name, {*known, *also}, f"It takes {', '.join(sorted(known)) or 'none'}.")
    return OptionError(
        f"{cls.__name__} has no option called {name!r}. {hint}", "`hubcore info` lists its options.", option=name
    )


def pop_attributes(cls: type[Any], options: dict[str, Any], declared: Iterable[str]) -> dict[str, Any]:
    """Takes out of `options` those that are attributes of a based class, and that it does not declare as parameters.

    Example:
        >>> from hubcore_fbank import FbankUpstream
        >>> options = {"layers": [0], "num_mel_bins": 40}
        >>> pop_attributes(FbankUpstream, options, ["num_mel_bins"]), options
        ({'layers': [0]}, {'num_mel_bins': 40})
    """
    return {name: options.pop(name) for name in _attributes(cls) if name in options and name not in declared}


def set_attributes(upstream: Any, values: Mapping[str, Any]) -> None:
    """Sets what `pop_attributes` took out; None leaves an attribute as it is.

    Example:
        >>> from hubcore_fbank import FbankUpstream
        >>> upstream = FbankUpstream.from_config("fbank")
        >>> set_attributes(upstream, {"layers": [0]})
        >>> upstream.default_layers
        (0,)
    """
    for name, value in values.items():
        if value is not None:
            setattr(upstream, _ATTRIBUTES[name][0], value)


# Reading a class -----------------------------------------------------------------------------------------------------

_BASE_DOCS = {
    "config": "A named config, for a file that does not carry its own.",
    "layers": "The hidden states that a call returns when it does not pass `layers=`.",
    "gradient_checkpointing": "In train mode blocks run again in the backward pass instead of keeping what they computed.",
}
_ATTRIBUTES: Mapping[str, tuple[str, Any, Any]] = {
    "layers": ("default_layers", Sequence[int] | None, None),
    "gradient_checkpointing": ("gradient_checkpointing", bool, False),
}
"""Option -> the attribute of a based class that it sets, its type, its default."""


def _attributes(cls: type[Any]) -> list[str]:
    """Options of `_ATTRIBUTES` whose attribute a based class has; a config without `num_layers` is that of no blocks."""
    found = [option for option, (attribute, _, _) in _ATTRIBUTES.items() if hasattr(cls, attribute)]
    fields = getattr(getattr(cls, "config_class", None), "__dataclass_fields__", None)
    without = set() if fields is None or "num_layers" in fields else {"gradient_checkpointing"}
    return [option for option in found if option not in without]


def _declared(cls: type[Any], with_weights: bool | None) -> dict[str, tuple[Any, Any]]:
    """Type and default of each option that a class declares itself for `hub.load`."""
    based, own = is_based(cls), own_methods(cls)
    if with_weights is None:
        with_weights = "from_file" in own if based else hasattr(cls, "from_checkpoint")
    if with_weights:
        direct = "from_checkpoint" in own or not based
        return _parameters(getattr(cls, "from_checkpoint" if direct else "from_file"), skip=int(direct))
    if "from_config" in own or (not based and hasattr(cls, "from_config")):
        return _parameters(cls.from_config)
    return {**_fields(getattr(cls, "config_class", None)), **_parameters(cls)}


def _is_base(cls: type[Any]) -> bool:
    return (cls.__module__, cls.__qualname__) == ("hubcore.upstream", "UpstreamBase")  # which imports this module


def is_based(cls: type[Any]) -> bool:
    """True if a class inherits from `UpstreamBase`."""
    return any(map(_is_base, cls.__mro__))


def reads_files(cls: type[Any]) -> bool:
    """True if a class reads checkpoints; a signal transform has no loader of its own."""
    return not own_methods(cls).isdisjoint(("from_file", "from_checkpoint"))


def own_methods(cls: type[Any]) -> set[str]:
    """Names that a class or one of its bases below `UpstreamBase` defines."""
    bases = itertools.takewhile(lambda base: not _is_base(base), (base for base in cls.__mro__ if base is not object))
    return {name for base in bases for name in vars(base)}


def _parameters(function: Callable[..., Any], skip: int = 0) -> dict[str, tuple[Any, Any]]:
    """Type and default of each named parameter that is an option; `**` stands for a parameter that takes any name."""
    hints = hints_of(getattr(function, "__init__", None) if isinstance(function, type) else function)
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
    hints = hints_of(config_class)
    return {
        field.name: (hints.get(field.name, Any), None if field.default is dataclasses.MISSING else field.default)
        for field in (dataclasses.fields(config_class) if config_class else ())
    }


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


def _spelt(hint: Any) -> Any:
    """The part of a union that a text can spell: no null, no tensor, no config."""
    if get_origin(hint) not in (Union, types.UnionType):
        return hint
    spelt = [part for part in get_args(hint) if not isinstance(part, type) or part in (int, float, bool, str)]
    return Union[tuple(spelt)] if spelt else hint  # noqa: UP007 - of a list
