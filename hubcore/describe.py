"""`UpstreamInfo`: what `hub.info` and `hubcore info` print about a name. Finds class and line without importing them."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import importlib.util
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hubcore.card import Card, UpstreamShape
from hubcore.guests import as_guest
from hubcore.registry.names import Entry, Family, current_registry, package_file, spec_of
from hubcore.sources.resolve import find_source
from hubcore.text import error_text, labelled, printable

_LAYERS_SHOWN = 4
"""More layers than these are shown by the first two and the last."""


@dataclasses.dataclass(frozen=True)
class UpstreamInfo:
    """Everything known about one name; printed, it is a table.

    Example:
        >>> from hubcore import hub
        >>> hub.info("wav2vec2_tiny_prompts").config_name
        'tiny'
    """

    name: str
    """The card's name."""
    aliases: tuple[str, ...]
    """Its other names."""
    class_path: str | None
    """`module:Class`; None if no installed distribution provides the family."""
    file: str | None
    """The source file of the class."""
    line: int | None
    """The line where the class begins."""
    distribution: str
    """The distribution, or `user`, that the name comes from."""
    unavailable: str | None
    """Why it cannot run here, or None."""
    config_name: str | None
    """The named config."""
    config: dict[str, Any] | None
    """Values of the config: those of the cached file where it has a config, else those of the named one, if the plugin
    could be asked."""
    config_problem: str | None
    """Why there are none, if the plugin has no such config or is broken."""
    shape: UpstreamShape | None
    """Layers, widths, frame stride and sample rate, where the config tells them without weights."""
    cached: str | None
    """The local file of its checkpoint, if it is cached."""
    card: Card | None
    """The registry's record."""
    names: tuple[str, ...] = ()
    """Cards of a family that is no card itself."""

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return dataclasses.asdict(self)

    def __str__(self) -> str:
        return labelled((label, value) for label, value in (*self._rows(), *self._card_rows()) if value)

    def _rows(self) -> Iterator[tuple[str, str | None]]:
        yield "name", self.name
        yield "aliases", ", ".join(self.aliases)
        yield "class", self.class_path or "none installed"
        yield "file", f"{self.file}:{self.line}" if self.line else self.file
        yield "from", self.distribution
        yield "names", ", ".join(self.names)
        yield "unavailable", self.unavailable
        name, problem = self.config_name or "the file's own", f" ({self.config_problem})" if self.config_problem else ""
        if self.config_name or self.config:
            yield "config", f"{name}: {_listed(self.config)}" if self.config else name + problem
        if self.shape is not None:
            names, widths, stride = self.shape.layer_names, self.shape.hidden_sizes, self.shape.frame_stride
            some = names if len(names) <= _LAYERS_SHOWN else (*names[:2], "...", names[-1])
            yield "layers", f"{len(names)}: {', '.join(some)}"
            yield "width", ", ".join(map(str, widths if len(set(widths)) > 1 else widths[:1]))
            milliseconds = f"{stride} samples ({1000 * stride / self.shape.sample_rate:g} ms)" if stride is not None else None
            yield "frame stride", milliseconds or "depends on the input"
            yield "sample rate", f"{self.shape.sample_rate} Hz"

    def _card_rows(self) -> Iterator[tuple[str, str | None]]:
        card = self.card
        if card is None:
            return
        if self.shape is None and card.frame_stride:
            yield "frame stride", f"{card.frame_stride} samples"
        yield "parameters", f"{card.parameters:,}" if card.parameters else None
        yield "options", _listed(card.options)
        for source in card.sources:
            yield "source", source.uri
            yield "  sha256", source.sha256 or "not published; pinned on first use"
            yield "  size", f"{source.size:,} bytes" if source.size else "not published"
        if card.sources:
            yield "cached", self.cached or f"no; `hubcore fetch {self.name}` gets it"
        for one in card.codebooks:
            centroids = f", {one.clusters} centroids" if one.clusters else ""
            yield "codebook", f"layer {one.layer}{centroids}: {one.uri}"
        yield "licence", card.license
        yield "trained on", card.training_data
        yield "languages", ", ".join(card.languages)
        yield "hours", f"{card.hours:,.10g}" if card.hours else None
        yield "paper", card.paper
        yield "note", card.note
        yield "card", f"{card.file}:{card.line}"


def _listed(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in values.items())


def describe(entry: Entry) -> UpstreamInfo:
    """The `UpstreamInfo` of a registry entry."""
    card, family = entry.card, entry.family
    file, line = locate(family) if family else (None, None)
    found = find_source(card.sources, card) if card else None
    cached = found[1] if found else None
    config = problem = shape = None
    # A plugin is asked only where its answer would be shown.
    if card and family and not family.missing and (card.config or "config" in card.options or cached):
        configs, problem = named_configs(family)
        own = _own_config(family, configs or {}, cached) if cached else None
        shape = _shape(configs or {}, card, own)
        if own is not None:
            config = dataclasses.asdict(own)
        elif problem is None and configs is not None and card.config is not None:
            config, problem = _config(configs, card.config)
    return UpstreamInfo(
        name=entry.name,
        aliases=entry.aliases,
        class_path=family.target if family else None,
        file=file,
        line=line,
        distribution=entry.owner,
        unavailable=entry.unavailable,
        config_name=card.config if card else None,
        config=config,
        config_problem=problem if card and card.config else None,
        shape=shape,
        cached=str(cached) if cached else None,
        card=card,
        names=() if card or not family else _cards_of(family),
    )


def _cards_of(family: Family) -> tuple[str, ...]:
    entries = current_registry().entries
    return tuple(entry.name for entry in entries if entry.card and entry.card.sources and entry.family == family)


def locate(family: Family) -> tuple[str | None, int | None]:
    """File and line of a family's class, read from its source without importing it; imports of the class are followed.

    Where the class cannot be found in the source, the file is that of the module, and there is no line.

    Example:
        >>> from hubcore.registry.names import current_registry
        >>> file, line = locate(current_registry().find("fbank").family)
        >>> Path(file).name, line > 1
        ('upstream.py', True)
    """
    file = _source_of(family.module)
    if file is None:
        return None, None
    return _find_class(family.module, family.class_name, set()) or (str(file), None)


def _source_of(module: str) -> Path | None:
    """The source file of a module, found without importing it or the packages above it."""
    package, _, name = module.rpartition(".")
    if package:
        return package_file(package, f"{name}.py") or package_file(module, "__init__.py")
    spec = spec_of(module)
    return Path(spec.origin) if spec and spec.origin and Path(spec.origin).is_file() else None


def _find_class(module: str, name: str, seen: set[tuple[str, str]]) -> tuple[str, int] | None:
    """File and line of the class that `name` is in `module`, there or where the module imports it from."""
    file = _source_of(module)
    if file is None or (module, name) in seen:
        return None
    seen.add((module, name))
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError):
        return None
    nodes = list(ast.walk(tree))  # those below `if TYPE_CHECKING:` too, where lazy packages say what they have
    for node in nodes:
        if isinstance(node, ast.ClassDef) and node.name == name:
            return str(file), node.lineno
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    for node in nodes:
        if not isinstance(node, ast.ImportFrom):
            continue
        for alias in node.names:
            if name == (alias.asname or alias.name) or alias.name == "*":
                try:
                    origin = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
                except ImportError:  # above its top-level package
                    continue
                found = _find_class(origin, name if alias.name == "*" else alias.name, seen)
                if found:
                    return found
    return None


def named_configs(family: Family) -> tuple[dict[str, Any] | None, str | None]:
    """The named configs of a family (`CONFIGS` of its package), or why there are none; both None where it has none.

    Example:
        >>> from hubcore.registry.names import current_registry
        >>> "base" in named_configs(current_registry().find("wav2vec2").family)[0]
        True
    """
    try:
        package = family.module.rpartition(".")[0] or family.module
        with as_guest():
            configs = getattr(importlib.import_module(package), "CONFIGS", None)
        return (None if configs is None else {str(name): configs[name] for name in configs}), None
    except Exception as error:  # a broken plugin must not keep `info` from saying the rest
        return None, _cannot_be_asked(error)


def _cannot_be_asked(error: BaseException) -> str:
    return f"its plugin could not be asked: {printable(error_text(error))}"


def _config(configs: Mapping[str, Any], name: str) -> tuple[dict[str, Any] | None, str | None]:
    """The values of a named config, or why there are none."""
    if name not in configs:
        return None, f"unknown to this family: it has {', '.join(configs) or 'none'}"
    try:
        config = configs[name]
        return (dict(config) if isinstance(config, Mapping) else dataclasses.asdict(config)), None
    except Exception as error:  # as above
        return None, _cannot_be_asked(error)


def _shape(configs: Mapping[str, Any], card: Card, own: Any) -> UpstreamShape | None:
    """Shape of a card's upstream, if a config tells it: the cached file's own, or the card's named one."""
    try:
        config: Any = own or configs.get(card.options.get("config", card.config))
        fields = {field.name for field in dataclasses.fields(config)}
        changed = {option: value for option, value in card.options.items() if option in fields}
        shape = getattr(dataclasses.replace(config, **changed), "upstream_shape", None)
        return shape if isinstance(shape, UpstreamShape) else None
    except Exception:  # no config, or one that cannot be asked: `info` says the rest
        return None


def _own_config(family: Family, configs: Mapping[str, Any], path: Path) -> Any:
    """The config that a cached checkpoint has itself, as its family reads it; None if it has none or cannot be read."""
    try:
        native = _native_config(path)
        if native is not None and configs:  # the config of a file of ours is read without torch
            return type(next(iter(configs.values())))(**native)
        from hubcore.checkpoints import open_checkpoint

        reader = getattr(importlib.import_module(family.module), family.class_name).reader
        with open_checkpoint(path, reader.layouts) as checkpoint:
            return reader.read_config(checkpoint, None, [])
    except Exception:  # a damaged file, or a class that reads its files in another way: `info` says the rest
        return None


def _native_config(path: Path) -> dict[str, Any] | None:
    """The config in the header of hubcore's own checkpoint; None for any other file."""
    if path.suffix != ".safetensors":
        return None
    from safetensors import safe_open

    with safe_open(str(path), "numpy") as file:
        header = (file.metadata() or {}).get("hubcore")
    return None if header is None else dict(json.loads(header)["config"])
