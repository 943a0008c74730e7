"""What is wrong with a card beyond its form: its family, config, options, files and names, found before anybody loads it."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hubcore.card import Card, Source
from hubcore.describe import named_configs
from hubcore.errors import HubcoreError, OptionError, RegistryError, nearest_names
from hubcore.loading import import_class, option_problem, reads_checkpoints
from hubcore.registry.names import Entry, Family, Registry
from hubcore.registry.reading import find_line, read_registry


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong in a registry file.

    Example:
        >>> print(Finding("mine.yaml", 3, "the family 'fbnk' is not there."))
        mine.yaml:3: the family 'fbnk' is not there.
    """

    file: str
    """The registry file."""
    line: int | None
    """The line, from 1; None where the file as a whole is meant."""
    what: str
    """What is wrong and what to do."""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.what}" if self.line else f"{self.file}: {self.what}"


def check_card(card: Card, registry: Registry) -> list[Finding]:
    """Everything wrong with one card here; empty if it can be used. Its family is imported, no weights are read.

    Args:
        card: a card of well-formed fields, its `file` being where it stands or will stand.
        registry: what is known here; it may or may not hold the card.

    Example:
        >>> from hubcore.registry.names import current_registry
        >>> registry = current_registry()
        >>> check_card(registry.find("fbank").card, registry)
        []
        >>> print(*check_card(Card(name="mine", upstream="fbnk", license="unknown", file="mine.yaml"), registry))
        mine.yaml: 'mine' is of the family 'fbnk', which no installed distribution provides. The nearest is fbank. ...
    """
    found = [(keys, what) for keys, what in _family_problems(card, registry)]
    found += [(("sources",), what) for source in card.sources for what in _source_problems(source, card)]
    found += [((), what) for what in taken_names(card, registry)]
    return [Finding(str(card.file), _line(card, keys), what) for keys, what in found]


def check_file(path: Path, registry: Registry) -> tuple[list[Card], list[Finding]]:
    """The cards of a registry file that are well-formed, and everything wrong in the file, by line.

    Example:
        >>> from hubcore.registry.names import current_registry, own_registry_file
        >>> cards, findings = check_file(own_registry_file(), current_registry())
        >>> "fbank" in {card.name for card in cards}
        True
    """
    try:
        cards, broken = read_registry(path)
    except RegistryError as error:
        cards, broken = [], [error]
    owner = next((e.card.distribution for e in registry.entries if e.card and _is_of(e, str(path))), None)
    cards = [replace(card, distribution=owner) for card in cards]
    found = [Finding(str(path), error.line, _without_place(str(error), path)) for error in broken]
    for card in cards:
        found += check_card(card, registry)
    return cards, sorted(found, key=lambda finding: finding.line or 0)


def _without_place(text: str, path: Path) -> str:
    """The message of a `RegistryError` without the place that it begins with."""
    return re.sub(rf"^{re.escape(str(path))}(, line \d+)?: ", "", text)


def taken_names(card: Card, registry: Registry) -> Iterator[str]:
    """For each name of a card that somebody else has too: who, and what that means."""
    for name in (card.name, *card.aliases):
        for entry in registry.entries:
            if name in (entry.name, *entry.aliases) and not _is_of(entry, card.file):
                where = f" ({entry.card.file}, line {entry.card.line})" if entry.card else ""
                choice = (
                    f"'user:{name}' and '{entry.owner}:{name}' would pick one"
                    if entry.owner != "user"
                    else "both files are yours, so nothing could pick one"
                )
                yield (
                    f"{name!r} is a name of {entry.owner} already{where}. Of a name with two owners neither is preferred: "
                    f"using it is an error, and {choice}. Choose another name."
                )


def families(registry: Registry) -> dict[str, list[Family]]:
    """The installed families by name; more than one where distributions share a name."""
    found: dict[str, list[Family]] = {}
    for entry in registry.entries:
        if entry.family is not None and entry.family not in found.setdefault(entry.family.name, []):
            found[entry.family.name].append(entry.family)
    return found


def _is_of(entry: Entry, file: str | None) -> bool:
    if entry.card is None or entry.card.file is None or file is None:
        return False
    return Path(entry.card.file).resolve() == Path(file).resolve()


def _line(card: Card, keys: Sequence[str]) -> int | None:
    if card.line is None or card.file is None:
        return None
    return find_line(Path(card.file), card.name, *keys) or card.line


def family_for(card: Card, registry: Registry) -> Family | None:
    """The family that runs a card: of its own distribution or of hubcore, else the only one of that name; None if unclear."""
    claims = families(registry).get(card.upstream, [])
    for preferred in (card.distribution, "hubcore"):
        for family in claims:
            if family.distribution == preferred:
                return family
    return claims[0] if len(claims) == 1 else None


def _family_problems(card: Card, registry: Registry) -> Iterator[tuple[tuple[str, ...], str]]:
    known = families(registry)
    claims, family = known.get(card.upstream, []), family_for(card, registry)
    if not claims:
        near = nearest_names(card.upstream, known, count=1)
        hint = f"The nearest is {near[0]}." if near else f"Installed are {', '.join(sorted(known))}."
        yield (
            ("upstream",),
            f"{card.name!r} is of the family {card.upstream!r}, which no installed distribution provides. {hint} "
            "Correct it, or install the plugin that has it.",
        )
        return
    if family is None:
        owners = " and ".join(sorted(family.distribution for family in claims))
        yield ("upstream",), f"the family {card.upstream!r} is claimed by {owners}. A card cannot choose. Uninstall one."
        return
    if family.missing:
        return  # nothing is wrong with the card, and nothing can be asked
    configs, _ = named_configs(family)
    if card.config is not None and configs is not None and card.config not in configs:
        near = nearest_names(card.config, configs, count=1)
        hint = f"The nearest is {near[0]}." if near else f"It has {', '.join(configs) or 'none'}."
        yield ("config",), f"{card.upstream!r} has no config called {card.config!r}. {hint} Correct the card."
        return
    try:
        cls = import_class(family)
    except HubcoreError as error:
        yield ("upstream",), str(error)
        return
    if card.needs_weights and _computes_without(cls):
        yield (
            ("sources",),
            f"{card.name!r} names sources, but the family {card.upstream!r} computes its features without weights. Nothing "
            "could load them. Leave the sources out, or name another family.",
        )
        return
    problem = option_problem(cls, card, with_weights=card.needs_weights)
    if problem:
        yield ("options",), problem
    elif card.options and (card.config is not None or not card.needs_weights):
        yield from _value_problems(cls, card)


def _computes_without(cls: type[Any]) -> bool:
    from hubcore.upstream import UpstreamBase

    return issubclass(cls, UpstreamBase) and not reads_checkpoints(cls)


def _value_problems(cls: type[Any], card: Card) -> Iterator[tuple[tuple[str, ...], str]]:
    """What a class says to the values of a card's options, built without memory from the card's named config or the first."""
    import torch

    from hubcore.upstream import UpstreamBase, config_options

    if not issubclass(cls, UpstreamBase):
        return
    options = {name: value for name, value in card.options.items() if name in config_options(cls)}
    try:
        with torch.device("meta"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # loading says it again, to whoever loads
            cls.from_config(card.config, **options)
    except OptionError as error:
        yield ("options",), f"the options of {card.name!r} cannot be used: {error}"
    except Exception:  # a class that cannot be built like this says nothing about the card
        return


def _source_problems(source: Source, card: Card) -> Iterator[str]:
    from hubcore.sources.https.addresses import check_url
    from hubcore.sources.hub.hugging_face import parse_hub_uri
    from hubcore.sources.resolve import fetch_source

    try:
        if source.uri.startswith("https://"):
            check_url(source.uri)
        elif source.uri.startswith("hf://"):
            parse_hub_uri(source.uri)
        elif "://" not in source.uri or source.uri.startswith("package://"):
            fetch_source(source, card)
    except HubcoreError as error:
        yield str(error)
