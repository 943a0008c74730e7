"""YAML from elsewhere as plain values, with none of its surprises. Imports no torch.

No anchors, aliases, merge keys or tags, since a short text may unfold to anything; no key twice; no deep nesting. Configs that
other programs wrote may have aliases, as long as they repeat little. Numbers are decimal: YAML 1.1 reads 010 as 8, 1:30 as 90,
and a base-60 number of some kilobytes for seconds.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

_TAG = "tag:yaml.org,2002:"
_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class StrictYamlError(ValueError):
    """A text is not YAML, or asks for more than plain values; `line` counts from 1, where it is known."""

    def __init__(self, what: str, fix: str, line: int | None) -> None:
        self.what, self.fix, self.line = what, fix, line
        super().__init__(f"{f'line {line}: ' if line else ''}{what} {fix}")


def parse_yaml(text: str, *, depth: int = 50, repeated: int = 0) -> Any:
    """The value of a YAML document; None for an empty one.

    Args:
        text: the document.
        depth: most levels of nesting.
        repeated: most values that aliases may repeat; 0 for none at all.

    Raises:
        StrictYamlError: it is anything but plain values, or more of them.

    Example:
        >>> parse_yaml("{lr: 1e-4, layers: [1, 2], start: 1:30, name: 010, yes: no}")
        {'lr': 0.0001, 'layers': [1, 2], 'start': '1:30', 'name': '010', 'yes': 'no'}
    """
    _check_events(text, depth, repeated)
    try:
        return _Loader(text).get_single_data()
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise _not_yaml(error) from error


def compose_yaml(text: str, *, depth: int = 50) -> yaml.Node | None:
    """The nodes of a YAML document, which know their lines, for a reader that builds the values of `parse_yaml` itself.

    Raises:
        StrictYamlError: see `parse_yaml`.

    Example:
        >>> compose_yaml("a: no").value[0][1].tag
        'tag:yaml.org,2002:str'
    """
    _check_events(text, depth)
    try:
        node: yaml.Node | None = _Loader(text).get_single_node()
    except (yaml.YAMLError, RecursionError) as error:
        raise _not_yaml(error) from error
    return node


def _check_events(text: str, depth: int, repeated: int = 0) -> None:
    """Reads a YAML text without building anything from it.

    Raises:
        StrictYamlError: it is not YAML, has tags, is nested deeper than `depth`, or has anchors, while aliases may repeat no
            values, or more than those.
    """
    inside: list[tuple[str | None, int]] = []  # the anchor of each open collection, and the values counted before it
    sizes: dict[str | None, int] = {}  # values under each anchor, those that aliases repeat among them
    values = left = 0
    try:
        for event in yaml.parse(text, Loader=_Base):
            line = event.start_mark.line + 1 if event.start_mark else None
            anchor = getattr(event, "anchor", None)
            if anchor and not repeated:
                raise StrictYamlError("anchors and aliases are not allowed.", "Write the value out.", line)
            if (tag := getattr(event, "tag", None)) is not None:
                raise StrictYamlError(f"tags such as {tag} are not allowed.", "Leave it out, or put text in quotes.", line)
            if isinstance(event, yaml.AliasEvent):
                size = sizes.get(anchor, repeated + 1)  # one that stands within its own value never ends
                values, left = values + size, left + size
                if left > repeated:
                    raise StrictYamlError(f"aliases repeat more than {repeated} values.", "Write the values out.", line)
            elif isinstance(event, yaml.ScalarEvent):
                values += 1
                sizes[anchor] = 1
            elif isinstance(event, yaml.CollectionStartEvent):
                inside.append((anchor, values))
                values += 1
                if len(inside) > depth:
                    raise StrictYamlError(f"it is nested deeper than {depth}.", "Correct it.", line)
            elif isinstance(event, yaml.CollectionEndEvent):
                name, before = inside.pop()
                sizes[name] = values - before
    except (yaml.YAMLError, RecursionError) as error:
        raise _not_yaml(error) from error


def _not_yaml(error: Exception) -> StrictYamlError:
    mark = getattr(error, "problem_mark", None)
    what = f"it is not valid YAML ({' '.join(str(error).split())})."
    return StrictYamlError(what, "Correct that line.", mark.line + 1 if mark else None)


class _Loader(_Base):  # type: ignore[misc]
    """PyYAML's safe loader with the scalars below, which refuses a key that stands twice or is no plain text."""

    yaml_implicit_resolvers: dict[Any, Any] = {}  # noqa: RUF012 - as in the class above

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """The mapping of a node."""
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key is no plain text", key.start_mark)
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key.value!r} stands twice", key.start_mark)
            seen.add(key.value)
        made: dict[Any, Any] = super().construct_mapping(node, deep)
        return made


_SCALARS = (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?(0|[1-9][0-9]{0,40})", list("-+0123456789")),
    ("float", r"[-+]?([0-9]{1,40}\.[0-9]*|\.[0-9]+|[0-9]{1,40}(?=[eE]))([eE][-+]?[0-9]{1,4})?", list("-+.0123456789")),
    ("float", r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", list("-+.")),
)


def know_scalars(cls: Any) -> None:
    """Makes a loader or dumper of PyYAML tell numbers from text as `parse_yaml` does, beside what it knows already."""
    for name, pattern, first in _SCALARS:
        cls.add_implicit_resolver(f"{_TAG}{name}", re.compile(f"({pattern})$"), first)


know_scalars(_Loader)
