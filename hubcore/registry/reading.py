"""Reading a registry file: strict YAML, then `schema.json`; every error has file and line. Imports no torch.

A file says which family runs a checkpoint and never where its code is, so that no file can make anything be imported.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from hubcore.card import Card, CodebookSource, Source
from hubcore.errors import RegistryError, nearest_names
from hubcore.strict_yaml import StrictYamlError, compose_yaml

SCHEMA = Path(__file__).with_name("schema.json")
"""The JSON Schema of registry files: what this module checks, and what editors complete cards with."""
_RULES: dict[str, Any] = json.loads(SCHEMA.read_text(encoding="utf-8"))
_DEFINITIONS: dict[str, Any] = _RULES["definitions"]
NAME = re.compile(_DEFINITIONS["name"]["pattern"])
"""A name of an upstream, for `fullmatch`."""

_MAX_BYTES = 1 << 20
_MAX_DEPTH = 20
_TAG = "tag:yaml.org,2002:"
_KINDS = {"str": "string", "int": "integer", "float": "number", "bool": "boolean", "null": "null"}
"""YAML's basic types, as JSON Schema calls them."""
_WORDS = {
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "null": "null",
    "array": "a list",
    "object": "a mapping of names to values",
}
_Pair = tuple[yaml.Node | None, yaml.Node | None]
_constructor: Any = yaml.constructor.SafeConstructor()


def read_registry(path: Path, distribution: str | None = None) -> tuple[list[Card], list[RegistryError]]:
    """The cards of a registry file, and an error for each record that is wrong; the others stay usable.

    Raises:
        RegistryError: the file as a whole cannot be read.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise RegistryError(f"it cannot be read ({error}).", "It must be a UTF-8 text file.", str(path)) from error
    return parse_registry(data, path, distribution)


def parse_registry(data: bytes, path: Path, distribution: str | None = None) -> tuple[list[Card], list[RegistryError]]:
    r"""`read_registry` for the bytes of a file, which need not be at `path` yet.

    Example:
        >>> cards, errors = parse_registry(b"version: 1\nupstreams: {a: {upstream: fbank}}", Path("mine.yaml"))
        >>> print(*errors)
        mine.yaml, line 2: 'a' has no 'license'. Add it: the licence of the weights...
    """
    file = str(path)
    fields = _fields(file, _compose(data, file), _RULES, "the file")
    _value(file, fields["version"], _RULES["properties"]["version"], "'version'")
    cards: list[Card] = []
    broken: list[RegistryError] = []
    claimed: dict[str, str] = {}
    for name, node in _fields(file, fields["upstreams"], _RULES["properties"]["upstreams"], "'upstreams'").items():
        try:
            _check(file, node, name, _DEFINITIONS["name"], "the name")
            record = _value(file, node, _DEFINITIONS["card"], repr(name))
            for label in (name, *record.get("aliases", ())):
                if label in claimed:
                    raise _error(file, node, f"{label!r} is already the name of {claimed[label]!r}.", "Rename one.")
                claimed[label] = name
        except RegistryError as error:
            broken.append(error)
        else:
            cards.append(_card(name, record, file, _line(node), distribution))
    return cards, broken


def _card(name: str, record: dict[str, Any], file: str, line: int, distribution: str | None) -> Card:
    record = {key: value for key, value in record.items() if value is not None}
    record["aliases"] = tuple(record.get("aliases", ()))
    record["languages"] = tuple(record.get("languages", ()))
    record["sources"] = tuple(Source(**source) for source in record.get("sources", ()))
    record["codebooks"] = tuple(CodebookSource(**one) for one in record.get("codebooks", ()))
    return Card(name=name, file=file, line=line, distribution=distribution, **record)


def find_line(path: Path, name: str, *keys: str) -> int | None:
    """The line of a value inside the record `name`, reached by `keys`; of the record itself without any; None if there is none.

    Example:
        >>> from hubcore.registry.names import own_registry_file
        >>> record = find_line(own_registry_file(), "fbank")
        >>> find_line(own_registry_file(), "fbank", "upstream") - record
        1
    """
    try:
        records = _records(path, path.stat().st_mtime_ns)
    except (OSError, RegistryError):
        return None
    place, node = records.get(name, (None, None))
    for key in keys:
        place, node = _children(node).get(key, (None, None))
    return _line(place) if place is not None else None


@functools.lru_cache(maxsize=2)
def _records(path: Path, changed: int) -> dict[str, _Pair]:  # noqa: ARG001 - a changed file is read again
    """Every record of a file with its key, kept since the options of many cards may be asked for."""
    return _children(_children(_compose(path.read_bytes(), str(path))).get("upstreams", (None, None))[1])


def _children(node: yaml.Node | None) -> dict[str, _Pair]:
    pairs = node.value if isinstance(node, yaml.MappingNode) else []
    return {key.value: (key, value) for key, value in pairs if isinstance(key, yaml.ScalarNode)}


# YAML -----------------------------------------------------------------------------------------------------------------


def _compose(data: bytes, file: str) -> yaml.Node:
    if len(data) > _MAX_BYTES:
        raise RegistryError(f"it has {len(data)} bytes. At most {_MAX_BYTES} are read.", "Split the file.", file)
    try:
        text = data.decode("utf-8-sig")
        node = compose_yaml(text, depth=_MAX_DEPTH)
    except UnicodeDecodeError as error:
        raise RegistryError(f"it cannot be read ({error}).", "It must be a UTF-8 text file.", file) from error
    except StrictYamlError as error:
        raise RegistryError(error.what, error.fix, file, error.line) from error
    if node is None:
        raise RegistryError("it is empty.", "A registry begins with `version: 1`: add it.", file, 1)
    return node


def _line(place: yaml.Event | yaml.Node) -> int:
    return place.start_mark.line + 1 if place.start_mark else 1


def _error(file: str, place: yaml.Event | yaml.Node, what: str, fix: str) -> RegistryError:
    return RegistryError(what, fix, file, _line(place))


# The schema, on nodes that know their lines ---------------------------------------------------------------------------


def _value(file: str, node: yaml.Node, rule: Mapping[str, Any], label: str) -> Any:
    """Plain data of a node that is as a rule of the schema says.

    Raises:
        RegistryError: it is not.
    """
    rule = _DEFINITIONS[rule["$ref"].rpartition("/")[2]] if "$ref" in rule else rule
    allowed = [rule["type"]] if isinstance(rule["type"], str) else rule["type"]
    kind = _kind(node)
    if kind not in allowed and not (kind == "integer" and "number" in allowed):
        wanted = " or ".join(_WORDS[name] for name in allowed)
        shown = repr(node.value)[:60] if isinstance(node, yaml.ScalarNode) else _WORDS[kind]
        fix = "Put it in quotes." if isinstance(node, yaml.ScalarNode) and "string" in allowed else "Correct it."
        raise _error(file, node, f"{label} must be {wanted}, but is {shown}.", fix)
    if isinstance(node, yaml.MappingNode):
        known, other = rule.get("properties", {}), rule.get("additionalProperties")
        pairs = _fields(file, node, rule, label)
        return {key: _value(file, item, known.get(key, other), f"{key!r} of {label}") for key, item in pairs.items()}
    if isinstance(node, yaml.SequenceNode):
        return [_value(file, item, rule["items"], f"an item of {label}") for item in node.value]
    try:
        value = getattr(_constructor, f"construct_yaml_{node.tag.removeprefix(_TAG)}")(node)
    except (ValueError, OverflowError) as error:  # Python reads no number of thousands of digits
        what = f"{label} is {node.value!r:.60}, which is no usable number."
        raise _error(file, node, what, "Put it in quotes.") from error
    _check(file, node, value, rule, label)
    return value


def _kind(node: yaml.Node) -> str:
    if isinstance(node, yaml.ScalarNode):
        name = node.tag.removeprefix(_TAG)
        return _KINDS.get(name, name)
    return "object" if isinstance(node, yaml.MappingNode) else "array"


def _fields(file: str, node: yaml.Node, rule: Mapping[str, Any], label: str) -> dict[str, yaml.Node]:
    """The fields of a mapping: none unknown, none twice, none missing."""
    if not isinstance(node, yaml.MappingNode):
        raise _error(file, node, f"{label} must be {_WORDS['object']}.", "Correct it.")
    known = rule.get("properties", {})
    found: dict[str, yaml.Node] = {}
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode) or key.tag != f"{_TAG}str":
            raise _error(file, key, f"the key {key.value!r:.60} of {label} is not text.", "Put it in quotes.")
        if key.value in found:
            raise _error(file, key, f"the key {key.value!r} of {label} stands twice.", "Remove one.")
        if key.value not in known and rule.get("additionalProperties") is False:
            near = nearest_names(key.value, known, count=1)
            hint = f"Did you mean {near[0]!r}?" if near else f"The fields are {', '.join(known)}."
            raise _error(file, key, f"{label} has the unknown field {key.value!r}.", hint)
        found[key.value] = value
    for key in rule.get("required", ()):
        if key not in found or found[key].tag == f"{_TAG}null":
            raise _error(file, node, f"{label} has no {key!r}.", f"Add it: {_description(known[key])}")
    return found


def _check(file: str, node: yaml.Node, value: Any, rule: Mapping[str, Any], label: str) -> None:
    """Raises `RegistryError` unless a single value is as its rule says, whose description then says what may stand there."""
    if isinstance(value, str):
        if len(value) < rule.get("minLength", 0):
            raise _error(file, node, f"{label} is empty.", "Write a text, or leave the field out.")
        good = re.search(rule.get("pattern", ""), value) is not None
    else:
        good = value is None or rule.get("minimum", value) <= value <= rule.get("maximum", value)
    if not good or rule.get("const", value) != value:
        raise _error(file, node, f"{label} is {value!r}.", f"It must be {_description(rule)}")


def _description(rule: Mapping[str, Any]) -> str:
    text: str = rule["description"]
    return text[0].lower() + text[1:]
