"""`hubcore registry ...`: adds, removes, checks and pins the cards of registry files, and prints their schema."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

if TYPE_CHECKING:
    from hubcore.card import Card

_EXAMPLE = """\b
Example:
  hubcore registry add our_wav2vec2 --upstream wav2vec2 --source weights/ours.safetensors --license MIT
  hubcore registry check
  hubcore registry pin my_cards.yaml"""
_ADD_EXAMPLE = """\b
Example:
  hubcore registry add our_wav2vec2 --upstream wav2vec2 --source weights/ours.safetensors --license MIT
  hubcore registry add ofa_fast --upstream ofa_wav2vec2 --source https://example.org/ofa.pt --option lambd=0.7
  hubcore registry add fbank40 --upstream fbank --config fbank --option num_mel_bins=40 --license "none needed\""""
_REMOVE_EXAMPLE = """\b
Example:
  hubcore registry remove our_wav2vec2
  hubcore registry remove our_wav2vec2 --file my_cards.yaml"""
_CHECK_EXAMPLE = """\b
Example:
  hubcore registry check
  hubcore registry check my_cards.yaml --json"""
_SCHEMA_EXAMPLE = """\b
Example:
  hubcore registry schema --out schema.json"""
_PIN_EXAMPLE = """\b
Example:
  hubcore registry pin my_cards.yaml
  hubcore registry pin my_cards.yaml our_wav2vec2 --fetch"""
_FILE_HELP = "The registry file; registry.yaml in the configuration folder if left out."


@click.group(epilog=_EXAMPLE)
def command() -> None:
    """Work on registry files, which hold the cards of checkpoints."""


@command.command("add", epilog=_ADD_EXAMPLE)
@click.argument("name")
@click.option("--upstream", "-u", required=True, metavar="FAMILY", help="The family that runs it, such as wav2vec2.")
@click.option("--source", "sources", multiple=True, metavar="URI", help="Where the checkpoint is; again for another place.")
@click.option("--sha256", "digests", multiple=True, metavar="HEX", help="The file's SHA-256; again for each --source.")
@click.option(
    "--size", "sizes", multiple=True, type=click.IntRange(min=0), metavar="N", help="The file's bytes; again likewise."
)
@click.option("--config", metavar="NAME", help="A named config of the family.")
@click.option("--license", "licence", metavar="TEXT", help="Licence of the weights, as their publisher states it.")
@click.option("--alias", "aliases", multiple=True, metavar="NAME", help="Another name; may be given again.")
@click.option("--option", "options", multiple=True, metavar="KEY=VALUE", help="A default of hub.load; may be given again.")
@click.option("--training-data", metavar="TEXT", help="What the weights were trained on.")
@click.option("--paper", metavar="URL", help="The paper's address.")
@click.option("--note", metavar="TEXT", help="What a user should know first.")
@click.option("--file", "-f", type=click.Path(dir_okay=False, path_type=Path), metavar="F", help=_FILE_HELP)
@click.option("--replace", "replacing", is_flag=True, help="Replace the whole record of this name, if there is one.")
def add(
    name: str,
    upstream: str,
    sources: tuple[str, ...],
    digests: tuple[str, ...],
    sizes: tuple[int, ...],
    config: str | None,
    licence: str | None,
    aliases: tuple[str, ...],
    options: tuple[str, ...],
    training_data: str | None,
    paper: str | None,
    note: str | None,
    file: Path | None,
    replacing: bool,
) -> None:
    """Write a card for NAME into a registry file of your own, without a line of YAML.

    Everything is checked first: the name, the family, its config and options, local files. Of a local file SHA-256 and
    size are written too. Comments, order and every other record of the file stay as they are.
    """
    from hubcore import hub
    from hubcore.cards.adding import card_to_add, parse_options, parse_sources
    from hubcore.cards.editing import add_card, default_file

    target = file or default_file()
    card = card_to_add(
        target,
        replacing=replacing,
        name=name,
        upstream=upstream,
        sources=parse_sources(target, sources, digests, sizes),
        config=config,
        license=licence or "unknown",
        aliases=aliases,
        options=parse_options(options),
        training_data=training_data,
        paper=paper,
        note=note,
    )
    line = add_card(target, card, replacing=replacing)
    hub.refresh()
    click.echo(f"{name} is in {target}, line {line}")
    for source in card.sources:
        if source.sha256 is not None and not digests:
            click.echo(f"  {source.uri} has {source.size} bytes, SHA-256 {source.sha256}")
    if not licence:
        click.echo(
            "  license: unknown was written, because none was given; --license says what the publisher states "
            "(with --replace), `none needed` where there are no weights"
        )
    if not _is_read(target):
        click.echo(
            f"  hubcore reads this file once its path is in HUBCORE_REGISTRY: export HUBCORE_REGISTRY={target.absolute()}"
        )
    click.echo(f'next: `hubcore info {name}`, or hub.load("{name}") in Python')


@command.command("remove", epilog=_REMOVE_EXAMPLE)
@click.argument("name")
@click.option(
    "--file", "-f", type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="F", help="The registry file."
)
def remove(name: str, file: Path | None) -> None:
    """Remove the record of NAME from a registry file of your own. A checkpoint in the cache stays there."""
    from hubcore import hub
    from hubcore.cards.adding import file_of
    from hubcore.cards.editing import remove_card

    target = file or file_of(name)
    remove_card(target, name)
    hub.refresh()
    click.echo(f"{name} was removed from {target}")


@command.command("check", epilog=_CHECK_EXAMPLE)
@click.argument("files", nargs=-1, type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="[FILE]...")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of lines.")
def check(files: tuple[Path, ...], as_json: bool) -> None:
    """Check registry files, all of your own if no FILE is given; each finding begins with file:line.

    Beyond their form, the families, configs, options, local files and names of the cards are checked. Nothing is downloaded.
    The exit code is 1 if there is a finding.
    """
    from hubcore.cards.checking import check_file
    from hubcore.registry.names import build_registry, user_files

    registry = build_registry()
    chosen = [*files] or user_files()
    results = [(file, *check_file(file, registry)) for file in chosen]
    findings = [finding for _, _, found in results for finding in found]
    if as_json:
        data: dict[str, Any] = {
            "files": [{"file": str(file), "cards": len(cards)} for file, cards, _ in results],
            "findings": [vars(finding) for finding in findings],
        }
        click.echo(json.dumps(data, indent=2))
    else:
        for finding in findings:
            click.echo(str(finding))
        for file, cards, found in results:
            click.echo(f"{file}: {_count(cards)}, {len(found) or 'no'} finding{'' if len(found) == 1 else 's'}")
        if not results:
            click.echo("there is no registry file of your own; `hubcore registry add` makes one")
    if findings:
        click.get_current_context().exit(1)


@command.command("schema", epilog=_SCHEMA_EXAMPLE)
@click.option(
    "--out", "-o", type=click.File("w", encoding="utf-8", atomic=True), default="-", metavar="F", help="Write it there."
)
def schema(out: TextIO) -> None:
    """Print the JSON Schema of registry files, with which an editor completes and checks them."""
    from hubcore.registry.reading import SCHEMA

    click.echo(SCHEMA.read_text(encoding="utf-8"), nl=False, file=out)


@command.command("pin", epilog=_PIN_EXAMPLE)
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--fetch", is_flag=True, help="Download the files that are not here.")
def pin(file: Path, names: tuple[str, ...], fetch: bool) -> None:
    """Write SHA-256 and size into the cards of FILE that lack them, from the files that are here.

    Comments, order and every other value stay as they are. Only NAMEs are pinned if any are given.
    """
    from hubcore.cards.text import write_facts
    from hubcore.errors import DownloadError, UnknownUpstreamError
    from hubcore.registry.reading import read_registry
    from hubcore.sources.resolve import fetch_source, find_cached
    from hubcore.sources.stamps import file_sha256

    cards, broken = read_registry(file)
    if broken:
        raise broken[0]
    for name in names:
        if name not in {card.name for card in cards}:
            raise UnknownUpstreamError(name, [card.name for card in cards], f"It is not in {file}.")
    facts: dict[tuple[str, str], tuple[str, int]] = {}
    missing = failed = 0
    for card in cards:
        for source in card.sources if not names or card.name in names else ():
            if source.sha256 is not None and source.size is not None:
                continue
            try:
                path = fetch_source(source, card) if fetch else find_cached(source, card)
            except DownloadError as error:
                click.echo(f"hubcore: error: {card.name}: {error}", err=True)
                failed += 1
                continue
            if path is None or not path.is_file():
                missing += 1
                continue
            facts[card.name, source.uri] = (file_sha256(path), path.stat().st_size)
            click.echo(f"{card.name}: {source.uri} has {path.stat().st_size} bytes, SHA-256 {file_sha256(path)}")
    written = write_facts(file, facts)
    click.echo(f"{written} values written into {file}; {missing} sources are not here" + (", see --fetch" if missing else ""))
    if failed:
        click.get_current_context().exit(1)


def _is_read(path: Path) -> bool:
    """Whether hubcore reads a registry file without being told to."""
    from hubcore.registry.names import user_files

    return path.resolve() in {file.resolve() for file in user_files()}


def _count(cards: list[Card]) -> str:
    return f"{len(cards)} card{'' if len(cards) == 1 else 's'}"
