"""`UpstreamInfo`: what `hub.info` and `hubcore info` print about a name. Finds class and line without importing them."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import importlib.util
from pathlib import Path
from typing import Any

from hubcore.card import Card
from hubcore.checkpoints.sources import find_cached
from hubcore.registry import Entry, Family


@dataclasses.dataclass(frozen=True)
class UpstreamInfo:
    """Everything known about one name; printed, it is a table.

    Example:
        >>> from hubcore import hub
        >>> hub.info("wav2vec2_tiny_untrained").config_name
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
    """That config's values, if the plugin could be asked."""
    cached: str | None
    """The local file of its checkpoint, if it is here."""
    card: Card | None
    """The registry's record."""

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return dataclasses.asdict(self)

    def __str__(self) -> str:
        card = self.card
        rows: list[tuple[str, str]] = [("name", self.name)]
        if self.aliases:
            rows.append(("aliases", ", ".join(self.aliases)))
        rows.append(("class", self.class_path or "none installed"))
        if self.file:
            rows.append(("file", f"{self.file}:{self.line}"))
        rows.append(("from", self.distribution))
        if self.unavailable:
            rows.append(("unavailable", self.unavailable))
        if self.config_name:
            values = ", ".join(f"{key}={value}" for key, value in (self.config or {}).items())
            rows.append(("config", f"{self.config_name}" + (f": {values}" if values else "")))
        if card is not None:
            for source in card.sources:
                rows.append(("source", source.uri))
                rows.append(("  sha256", source.sha256 or "not published; pinned on first use"))
                rows.append(("  size", f"{source.size:,} bytes" if source.size else "not published"))
            if card.sources:
                rows.append(("cached", self.cached or f"no; `hubcore fetch {self.name}` gets it"))
            rows.append(("licence", card.license))
            for label, value in (("trained on", card.training_data), ("paper", card.paper), ("note", card.note)):
                if value:
                    rows.append((label, value))
            rows.append(("card", f"{card.file}:{card.line}"))
        width = max(len(label) for label, _ in rows)
        return "\n".join(f"{label:<{width}}  {value}" for label, value in rows)


def describe(entry: Entry) -> UpstreamInfo:
    """The `UpstreamInfo` of a registry entry."""
    card, family = entry.card, entry.family
    file, line = locate(family) if family else (None, None)
    cached = next(filter(None, (find_cached(source, card) for source in card.sources)), None) if card else None
    return UpstreamInfo(
        name=entry.name,
        aliases=entry.aliases,
        class_path=family.target if family else None,
        file=file,
        line=line,
        distribution=entry.owner,
        unavailable=entry.unavailable,
        config_name=card.config if card else None,
        config=_config(family, card.config) if card and card.config and family and not family.missing else None,
        cached=str(cached) if cached else None,
        card=card,
    )


def locate(family: Family) -> tuple[str | None, int | None]:
    """File and line of a family's class, read from its source without importing it."""
    package, *rest = family.module.split(".")
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        spec = None
    if spec is None:
        return None, None
    if rest:
        roots = [Path(root, *rest) for root in spec.submodule_search_locations or ()]
        files = [file for root in roots for file in (root.with_suffix(".py"), root / "__init__.py")]
    else:
        files = [Path(spec.origin)] if spec.origin else []
    for file in files:
        if file.is_file():
            try:
                tree = ast.parse(file.read_bytes())
            except (SyntaxError, ValueError, RecursionError):
                return str(file), None
            for node in ast.walk(tree):
                if isinstance(node, ast.ClassDef) and node.name == family.class_name:
                    return str(file), node.lineno
            return str(file), None
    return None, None


def _config(family: Family, name: str) -> dict[str, Any] | None:
    """The values of a named config, or None where the plugin cannot be asked."""
    try:
        configs = importlib.import_module(family.module.partition(".")[0]).CONFIGS
        return dataclasses.asdict(configs[name])
    except Exception:  # a broken plugin must not keep `info` from saying the rest
        return None
