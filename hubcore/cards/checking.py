"""Checks of a card beyond its form: family, config, options, files and names, before anybody loads it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hubcore.card import Card
from hubcore.describe import named_configs
from hubcore.errors import HubcoreError, OptionError, RegistryError, nearest_hint
from hubcore.findings import Finding
from hubcore.loading import import_class, option_problem, reads_checkpoints
from hubcore.registry.names import Registry, canonical, choose_family
from hubcore.registry.reading import find_line, read_registry
from hubcore.text import message_text

_Found = Iterator[tuple[str, str, str]]
"""(the field of the card, what is wrong and what to do)."""


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
        mine.yaml: 'mine' is of the family 'fbnk', which no installed distribution provides. The nearest are fbank. ...
    """
    found = [*_family_problems(card, registry), *_source_problems(card), *_taken_names(card, registry)]
    return [Finding(what, fix, str(card.file), _line(card, field), card.distribution or "user") for field, what, fix in found]


def check_file(path: Path, registry: Registry) -> tuple[list[Card], list[Finding]]:
    """The cards of a registry file that are well-formed, and everything wrong in the file, by line.

    Example:
        >>> from hubcore.registry.names import current_registry, own_registry_file
        >>> cards, findings = check_file(own_registry_file(), current_registry())
        >>> "fbank" in {card.name for card in cards}
        True
    """
    owner = next((e.card.distribution for e in registry.entries if e.card and _same_file(e.card, path)), None)
    try:
        cards, broken = read_registry(path, owner)
    except RegistryError as error:
        cards, broken = [], [error]
    found = [Finding(error.what, error.fix, str(path), error.line, owner or "user") for error in broken]
    found += [finding for card in cards for finding in check_card(card, registry)]
    return cards, sorted(found, key=lambda finding: finding.line or 0)


def _line(card: Card, field: str) -> int | None:
    if card.line is None or card.file is None:
        return None
    return (find_line(Path(card.file), card.name, field) if field else None) or card.line


def _same_file(card: Card, path: str | Path | None) -> bool:
    return card.file is not None and path is not None and Path(card.file).resolve() == Path(path).resolve()


def _taken_names(card: Card, registry: Registry) -> _Found:
    """For each name of a card that somebody else has too: who, and what that means."""
    overridden = (canonical(card.overrides or ""), card.name)
    if card.overrides and not any(overridden == (canonical(e.owner), e.name) for e in registry.entries if e.card):
        yield "overrides", f"{card.overrides!r} has no card {card.name!r} to override.", "Correct its name, or leave it out."
    for name in (card.name, *card.aliases):
        for entry in registry.claims(name):
            if entry.card and (_same_file(entry.card, card.file) or overridden == (canonical(entry.owner), entry.name)):
                continue
            where = f" ({entry.card.file}, line {entry.card.line})" if entry.card else ""
            choice = f"'user:{name}' or '{entry.owner}:{name}' would pick one"
            if entry.owner == "user":
                choice = "both files are yours, so nothing could pick one"
            what = f"{name!r} is a name of {entry.owner} already{where}. Using a name with two owners is an error; {choice}."
            yield "", what, f"Choose another name, or override that of {entry.owner}."


def _family_problems(card: Card, registry: Registry) -> _Found:
    known = registry.families
    claims = known.get(card.upstream, [])
    family = choose_family(claims, card.distribution or "user")
    if not claims:
        what = (
            f"{card.name!r} is of the family {card.upstream!r}, which no installed distribution provides. "
            f"{nearest_hint(card.upstream, known)}"
        )
        yield "upstream", what, "Correct it, or install the plugin that has it."
    elif family is None:
        owners = " and ".join(sorted(family.distribution for family in claims))
        yield "upstream", f"the family {card.upstream!r} is claimed by {owners}. A card cannot choose.", "Uninstall one."
    elif not family.missing:  # if it is, nothing is wrong with the card, and nothing can be asked
        configs, _ = named_configs(family)
        if card.config is not None and configs is not None and card.config not in configs:
            hint = nearest_hint(card.config, configs)
            yield "config", f"{card.upstream!r} has no config called {card.config!r}. {hint}", "Correct the card."
            return
        try:
            yield from _class_problems(card, import_class(family))
        except HubcoreError as error:
            yield "upstream", *_said(error)


def _class_problems(card: Card, cls: type[Any]) -> _Found:
    """Finds sources and options that the card's class cannot use."""
    from hubcore.upstream import UpstreamBase

    if not card.needs_weights and reads_checkpoints(cls) and card.line is None:  # one of a file may be for `checkpoint=`
        what = f"{card.name!r} names no source, but the family {card.upstream!r} runs checkpoints. Its weights would be random."
        yield "sources", what, "Say where they are with --source: a path, https://... or hf://org/repo/file."
    if card.needs_weights and issubclass(cls, UpstreamBase) and not reads_checkpoints(cls):
        what = f"{card.name!r} names sources, but the family {card.upstream!r} computes its features without weights."
        yield "sources", what, "Leave the sources out, or name another family."
        return
    problem = option_problem(cls, card, with_weights=card.needs_weights)
    if problem:
        yield "options", *_said(problem)
    elif card.options and issubclass(cls, UpstreamBase) and (card.config is not None or not card.needs_weights):
        yield from _value_problems(cls, card)


def _value_problems(cls: type[Any], card: Card) -> _Found:
    """Builds a class without memory with a card's options and finds values that it refuses."""
    from hubcore.checkpoints.meta import without_memory
    from hubcore.options import option_names

    options = {name: value for name, value in card.options.items() if name in (option_names(cls, with_weights=False) or ())}
    try:
        with without_memory(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # loading says it again, to whoever loads
            cls.from_config(card.config, **options)
    except OptionError as error:
        what, fix = _said(error)
        yield "options", f"the options of {card.name!r} cannot be used: {what}", fix
    except Exception:  # a class that cannot be built like this says nothing about the card
        return


def _source_problems(card: Card) -> _Found:
    from hubcore.sources.resolve import fetch_source
    from hubcore.sources.schemes import scheme_of

    of_codebooks = [one.source for one in card.codebooks]
    for source in (*card.sources, *of_codebooks):
        try:
            if "://" in source.uri:
                scheme_of(source.uri).check(source.uri)
            else:
                fetch_source(source, card)
        except HubcoreError as error:
            yield "codebooks" if source in of_codebooks else "sources", *_said(error)


def _said(error: HubcoreError) -> tuple[str, str]:
    return message_text(error.what), message_text(error.fix)
