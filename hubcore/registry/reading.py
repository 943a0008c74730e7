"""Reading one registry file: strict YAML, strict fields, every error with file and line. Imports no torch.

A file says which family runs a checkpoint and never where its code is, so that no file can make anything be imported.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from hubcore.card import Card, Source
from hubcore.errors import RegistryError, nearest_names

SCHEMA = Path(__file__).with_name("schema.json")
"""The JSON Schema of registry files, for editors. What it says is what this module checks; tests hold them together."""
_MAX_BYTES = 1 << 20
_MAX_DEPTH = 20
NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_TEXT_FIELDS = ("upstream", "license", "config", "training_data", "paper", "note")
_FIELDS = (*_TEXT_FIELDS, "aliases", "sources", "options")
_SCHEMES = ("https://", "hf://", "package://")
_REFUSED_SCHEMES = ("http:", "ftp:", "file:", "data:")
_BYTES = re.compile(r"0|[1-9][0-9]{0,15}")
_NULL = "tag:yaml.org,2002:null"

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_registry(path: Path, distribution: str | None = None) -> tuple[list[Card], list[RegistryError]]:
    """The cards of a registry file, and an error for each record that is wrong; the others stay usable.

    Args:
        path: the YAML file.
        distribution: recorded in the cards.

    Raises:
        RegistryError: the file as a whole cannot be read.
    """
    root = _compose(path)
    fields = _mapping(path, root, "the file")
    version = fields.get("version")
    if version is None or version.value != "1" or version.tag != "tag:yaml.org,2002:int":
        what = "it does not begin with `version: 1`. That is the only version there is. Add the line."
        raise RegistryError(f"{path}: {what}", str(path), _line(version or root))
    unknown = set(fields) - {"version", "upstreams"}
    if unknown or "upstreams" not in fields:
        bad = sorted(unknown) or "no `upstreams`"
        where = _line(fields[min(unknown)] if unknown else root)
        what = f"beside `version` there is {bad}. There must be `upstreams` and nothing else."
        raise RegistryError(f"{path}: {what}", str(path), where)
    records = _mapping(path, fields["upstreams"], "`upstreams`")
    cards: list[Card] = []
    broken: list[RegistryError] = []
    claimed: dict[str, str] = {}
    for name, node in records.items():
        try:
            card = _card(path, name, node, distribution)
            for label in (card.name, *card.aliases):
                if label in claimed:
                    raise _error(path, node, f"{label!r} is already the name of {claimed[label]!r}. Names must be unique")
                claimed[label] = card.name
            cards.append(card)
        except RegistryError as error:
            broken.append(error)
    return cards, broken


def _compose(path: Path) -> yaml.Node:
    try:
        data = path.read_bytes()
        if len(data) > _MAX_BYTES:
            raise RegistryError(f"{path}: it has {len(data)} bytes. At most {_MAX_BYTES} are read. Split the file.", str(path))
        text = data.decode("utf-8-sig")
        # Aliases and merge keys can make a short text explode, so they are refused before anything is built.
        depth = 0
        for event in yaml.parse(text, Loader=_Loader):
            if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
                raise _error(path, event, "anchors and aliases are not allowed. Write the value out")
            tag = getattr(event, "tag", None)
            if tag is not None:
                raise _error(path, event, f"tags such as {tag} are not allowed. Leave it out, or put text in quotes")
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > _MAX_DEPTH:
                raise _error(path, event, f"nested deeper than {_MAX_DEPTH}. Records are flat: mend it")
        node = yaml.compose(text, Loader=_Loader)
    except (OSError, UnicodeDecodeError) as error:
        raise RegistryError(f"{path}: it cannot be read ({error}). It must be a UTF-8 text file.", str(path)) from error
    except (yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        what = f"it is not valid YAML ({' '.join(str(error).split())}). Mend that line."
        raise RegistryError(f"{path}: {what}", str(path), mark.line + 1 if mark else None) from error
    if node is None:
        raise RegistryError(f"{path}: it is empty. A registry begins with `version: 1`. Add it.", str(path), 1)
    return node


def find_line(path: Path, name: str, *keys: str) -> int | None:
    """The line of a value inside the record `name`, reached by `keys`; of the record itself without any; None if there is none.

    Example:
        >>> from hubcore.registry.names import own_registry_file
        >>> record = find_line(own_registry_file(), "fbank")
        >>> find_line(own_registry_file(), "fbank", "upstream") - record
        1
    """
    try:
        node: yaml.Node | None = _compose(path)
    except RegistryError:
        return None
    place: yaml.Node | None = None
    for key in ("upstreams", name, *keys):
        pairs = node.value if isinstance(node, yaml.MappingNode) else []
        place, node = next(((k, v) for k, v in pairs if isinstance(k, yaml.ScalarNode) and k.value == key), (None, None))
    return _line(place) if place is not None else None


def _line(place: yaml.Event | yaml.Node) -> int:
    return place.start_mark.line + 1 if place.start_mark else 1


def _error(path: Path, place: yaml.Event | yaml.Node, what: str) -> RegistryError:
    text = what if what.endswith(("?", ".")) else f"{what}."
    return RegistryError(f"{path}, line {_line(place)}: {text}", str(path), _line(place))


def _mapping(path: Path, node: yaml.Node, what: str) -> dict[str, yaml.Node]:
    if not isinstance(node, yaml.MappingNode):
        raise _error(path, node, f"{what} must be a mapping of names to values, but is not. Mend it")
    out: dict[str, yaml.Node] = {}
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode) or key.tag != "tag:yaml.org,2002:str":
            raise _error(path, key, f"the key {key.value!r} of {what} is not text. Put it in quotes")
        if key.value in out:
            raise _error(path, key, f"the key {key.value!r} of {what} stands twice. Remove one")
        out[key.value] = value
    return out


def _text(path: Path, node: yaml.Node, what: str) -> str:
    if not isinstance(node, yaml.ScalarNode) or node.tag != "tag:yaml.org,2002:str":
        raise _error(path, node, f"{what} must be text, but is {getattr(node, 'value', node)!r}. Put it in quotes")
    if not node.value:
        raise _error(path, node, f"{what} is empty. Say what it is, or leave the field out")
    return str(node.value)


def _card(path: Path, name: str, node: yaml.Node, distribution: str | None) -> Card:
    if not NAME.fullmatch(name):
        raise _error(path, node, f"the name {name!r} may hold a-z, 0-9, _, . and - only, at most 64. Rename it")
    fields = _mapping(path, node, f"{name!r}")
    for key in fields:
        if key not in _FIELDS:
            near = nearest_names(key, _FIELDS, count=1)
            hint = f"Did you mean {near[0]!r}?" if near else f"The fields are {', '.join(_FIELDS)}"
            raise _error(path, fields[key], f"{name!r} has the unknown field {key!r}. {hint}")
    for key in ("upstream", "license"):
        if key not in fields or fields[key].tag == _NULL:
            raise _error(path, node, f"{name!r} has no {key!r}. Add it; a licence may be `unknown`, but not absent")
    text = {
        key: _text(path, fields[key], f"{key!r} of {name!r}")
        for key in _TEXT_FIELDS
        if key in fields and fields[key].tag != _NULL
    }
    aliases = tuple(_text(path, item, f"an alias of {name!r}") for item in _items(path, fields.get("aliases")))
    for alias in aliases:
        if not NAME.fullmatch(alias):
            raise _error(path, node, f"the alias {alias!r} may hold a-z, 0-9, _, . and - only. Rename it")
    options = _plain(path, fields["options"]) if "options" in fields else {}
    if not isinstance(options, Mapping):
        raise _error(path, fields["options"], f"'options' of {name!r} must be a mapping. Mend it")
    return Card(
        name=name,
        aliases=aliases,
        sources=tuple(_source(path, item, name) for item in _items(path, fields.get("sources"))),
        options=options,
        file=str(path),
        line=_line(node),
        distribution=distribution,
        **text,
    )


def _items(path: Path, node: yaml.Node | None) -> list[yaml.Node]:
    if node is None:
        return []
    if not isinstance(node, yaml.SequenceNode):
        raise _error(path, node, "a list is expected here. Write [a, b]")
    return list(node.value)


def _source(path: Path, node: yaml.Node, name: str) -> Source:
    fields = _mapping(path, node, f"a source of {name!r}")
    unknown = set(fields) - {"uri", "sha256", "size"}
    if unknown or "uri" not in fields:
        bad = f"has the unknown field {sorted(unknown)[0]!r}" if unknown else "has no uri"
        raise _error(path, node, f"a source of {name!r} {bad}. The fields are uri, sha256, size")
    uri = _text(path, fields["uri"], f"the uri of {name!r}")
    if "://" in uri and uri.startswith(_REFUSED_SCHEMES):
        raise _error(path, node, f"the uri {uri!r} of {name!r} must be {', '.join(_SCHEMES)} or a path. Change it")
    sha256 = size = None
    if "sha256" in fields and fields["sha256"].tag != _NULL:
        sha256 = _text(path, fields["sha256"], f"sha256 of {name!r}")
        if not _SHA256.fullmatch(sha256):
            raise _error(path, fields["sha256"], f"sha256 of {name!r} must be 64 hex digits, but is {sha256!r}. Correct it")
    if "size" in fields and fields["size"].tag != _NULL:
        # YAML reads a leading zero as octal, which nobody means by a number of bytes.
        if fields["size"].tag != "tag:yaml.org,2002:int" or not _BYTES.fullmatch(str(fields["size"].value)):
            raise _error(path, fields["size"], f"size of {name!r} must be a number of bytes. Correct it")
        size = int(fields["size"].value)
    return Source(uri=uri, sha256=sha256, size=size)


def _plain(path: Path, node: yaml.Node) -> Any:
    """Plain data of a node; tags other than YAML's own basic ones are errors."""
    if isinstance(node, yaml.MappingNode):
        return {key: _plain(path, value) for key, value in _mapping(path, node, "an option").items()}
    if isinstance(node, yaml.SequenceNode):
        return [_plain(path, item) for item in node.value]
    try:
        value = yaml.SafeLoader("").construct_object(node)
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # a date that is none, a number too long to be one
        raise _error(path, node, f"the value {node.value!r:.60} is not plain data. Use text, numbers, true or false") from error
    if not isinstance(value, str | int | float | bool | None):
        raise _error(path, node, f"the value {node.value!r} is a {type(value).__name__}. Put it in quotes")
    return value
