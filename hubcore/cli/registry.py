"""`hubcore registry ...`: adds, removes, checks and pins the cards of registry files, and prints their schema."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from hubcore.cli.complete import families
from hubcore.cli.echo import echo, echo_error, echo_json, json_flag
from hubcore.text import plural

if TYPE_CHECKING:
    from hubcore.card import Card
    from hubcore.cards.editing import Facts

_EXAMPLE = """\b
Example:
  hubcore registry add our_wav2vec2 --upstream wav2vec2 --source weights/ours.safetensors --license MIT
  hubcore registry check
  hubcore registry pin my_cards.yaml"""
_ADD_EXAMPLE = """\b
Example:
  hubcore registry add our_wav2vec2 --upstream wav2vec2 --source weights/ours.safetensors --license MIT
  hubcore registry add ofa_fast --upstream ofa_wav2vec2 --source https://example.org/ofa.pt -O lambd=0.7
  hubcore registry add fbank40 --upstream fbank --config fbank -O num_mel_bins=40 --license "none needed\""""
_REMOVE_EXAMPLE = """\b
Example:
  hubcore registry remove our_wav2vec2
  hubcore registry remove our_wav2vec2 --folder cards"""
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
  hubcore registry pin my_cards.yaml our_wav2vec2 --fetch --out pinned.yaml"""
_file = click.Path(exists=True, dir_okay=False, path_type=Path)
_folder = click.Path(file_okay=False, path_type=Path)


@click.group(epilog=_EXAMPLE)
def command() -> None:
    """Work on registry files, which hold the cards of checkpoints."""


@command.command("add", epilog=_ADD_EXAMPLE)
@click.argument("name")
@click.option(
    "--upstream",
    "-u",
    required=True,
    shell_complete=families,
    metavar="FAMILY",
    help="The family that runs it, such as wav2vec2.",
)
@click.option("--source", "sources", multiple=True, metavar="URI", help="Where the checkpoint is; again for another place.")
@click.option("--sha256", "digests", multiple=True, metavar="HEX", help="The file's SHA-256; again for each --source.")
@click.option(
    "--size", "sizes", multiple=True, type=click.IntRange(min=0), metavar="N", help="The file's bytes; again likewise."
)
@click.option("--config", metavar="NAME", help="A named config of the family.")
@click.option("--license", "licence", metavar="TEXT", help="Licence of the weights, as their publisher states it.")
@click.option("--alias", "aliases", multiple=True, metavar="NAME", help="Another name; may be given again.")
@click.option("--option", "-O", "options", multiple=True, metavar="NAME=VALUE", help="A default of hub.load; may be repeated.")
@click.option("--overrides", metavar="OWNER", help="Take the place of the card that this distribution has under NAME.")
@click.option("--training-data", metavar="TEXT", help="What the weights were trained on.")
@click.option("--language", "languages", multiple=True, metavar="CODE", help="A language of that data, such as en; may repeat.")
@click.option("--hours", type=click.FloatRange(min=0), metavar="N", help="Hours of speech in that data.")
@click.option("--paper", metavar="URL", help="The paper's address.")
@click.option("--note", metavar="TEXT", help="What a user should know first.")
@click.option("--folder", type=_folder, metavar="DIR", help="Where to write it; hubcore's configuration folder if left out.")
@click.option("--replace", "replacing", is_flag=True, help="Replace the card of this name that was added before.")
def add(
    name: str,
    sources: tuple[str, ...],
    digests: tuple[str, ...],
    sizes: tuple[int, ...],
    licence: str | None,
    options: tuple[str, ...],
    folder: Path | None,
    replacing: bool,
    **fields: Any,
) -> None:
    """Write a card for NAME, as NAME.yaml in a folder that hubcore reads.

    Everything is checked first: the name, the family, its config and options, local files. Of a local file SHA-256 and
    size are written too.
    """
    from hubcore import hub
    from hubcore.cards.adding import card_to_add, parse_sources
    from hubcore.cards.editing import add_card
    from hubcore.registry.names import config_folder, user_files

    folder = folder or config_folder()
    found = parse_sources(folder, sources, digests, sizes)
    card = card_to_add(folder, options, name=name, sources=found, license=licence or "unknown", **fields)
    file = add_card(folder, card, replacing=replacing)
    hub.refresh()
    echo(f"{name} is in {file}")
    for source in card.sources:
        if source.sha256 is not None and not digests:
            echo(f"  {source.uri} has {source.size} bytes, SHA-256 {source.sha256}")
    if not licence:
        echo(
            "  license: unknown, because none was given; --license says what the publisher states (with --replace), "
            "`none needed` where there are no weights"
        )
    if file.resolve() not in {path.resolve() for path in user_files()}:
        echo(f"  to let hubcore read this folder: export HUBCORE_REGISTRY={folder.absolute()}")
    echo(f'next: `hubcore info {name}`, or hub.load("{name}") in Python')


@command.command("remove", epilog=_REMOVE_EXAMPLE)
@click.argument("name")
@click.option("--folder", type=_folder, metavar="DIR", help="The folder that holds the card's file.")
def remove(name: str, folder: Path | None) -> None:
    """Delete the file that `hubcore registry add` wrote for NAME. A checkpoint in the cache stays there."""
    from hubcore import hub
    from hubcore.cards.editing import remove_card

    file = remove_card(name, folder)
    hub.refresh()
    echo(f"{name} was removed; {file} is deleted")


@command.command("check", epilog=_CHECK_EXAMPLE)
@click.argument("files", nargs=-1, type=_file, metavar="[FILE]...")
@json_flag("lines")
def check(files: tuple[Path, ...], as_json: bool) -> None:
    """Check registry files, all of your own if no FILE is given; each finding begins with file:line.

    Beyond their form, the families, configs, options, local files and names of the cards are checked. Nothing is downloaded.
    The exit code is 1 if there is a finding.
    """
    from hubcore.cards.checking import check_file
    from hubcore.registry.names import build_registry, user_files

    registry = build_registry()
    results = [(file, *check_file(file, registry)) for file in files or user_files()]
    findings = [finding for _, _, found in results for finding in found]
    if as_json:
        rows = [{"file": found.file, "line": found.line, "what": found.what, "fix": found.fix} for found in findings]
        counts = [{"file": str(file), "cards": len(cards)} for file, cards, _ in results]
        echo_json({"files": counts, "findings": rows})
    else:
        for finding in findings:
            echo(str(finding))
        for file, cards, found in results:
            echo(f"{file}: {plural(len(cards), 'card')}, {plural(len(found), 'finding')}")
        if not results:
            echo("there is no registry file of your own; `hubcore registry add` makes one")
    if findings:
        click.get_current_context().exit(1)


@command.command("schema", epilog=_SCHEMA_EXAMPLE)
@click.option(
    "--out", "-o", type=click.File("w", encoding="utf-8", atomic=True), default="-", metavar="F", help="Write it there."
)
def schema(out: TextIO) -> None:
    """Print the JSON Schema of registry files, with which an editor completes and checks them."""
    from hubcore.registry.reading import SCHEMA

    out.write(SCHEMA.read_text(encoding="utf-8"))


@command.command("pin", epilog=_PIN_EXAMPLE)
@click.argument("file", type=_file)
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--fetch", is_flag=True, help="Download the files that are not here.")
@click.option("--out", "-o", type=click.Path(dir_okay=False, path_type=Path), metavar="F", help="Write there, not to FILE.")
def pin(file: Path, names: tuple[str, ...], fetch: bool, out: Path | None) -> None:
    """Write SHA-256 and size into the cards of FILE that lack them, from the cached files.

    The file is rewritten, so one that has comments needs --out. Only NAMEs are pinned if any are given.
    """
    from hubcore.cards.editing import check_rewritable, pin_cards
    from hubcore.errors import UnknownUpstreamError
    from hubcore.registry.reading import read_registry

    if out is None:
        check_rewritable(file)
    cards, broken = read_registry(file)
    if broken:
        raise broken[0]
    for name in names:
        if name not in {card.name for card in cards}:
            raise UnknownUpstreamError(name, [card.name for card in cards], f"It is not in {file}.")
    facts, missing, failed = _facts([card for card in cards if not names or card.name in names], fetch)
    written = pin_cards(file, facts, out)
    hint = ", see --fetch" if missing else ""
    echo(f"{plural(written, 'value')} written into {out or file}; {plural(missing, 'source')} not here{hint}")
    if failed:
        click.get_current_context().exit(1)


def _facts(cards: Sequence[Card], fetch: bool) -> tuple[Facts, int, int]:
    """SHA-256 and size of each source that lacks one, and how many sources are not here or failed to be fetched."""
    from hubcore.errors import DownloadError
    from hubcore.sources.resolve import fetch_source, find_cached
    from hubcore.sources.stamps import file_sha256

    facts, missing, failed = {}, 0, 0
    for card, source in [(owner, source) for owner in cards for source in owner.sources]:
        if source.sha256 is not None and source.size is not None:
            continue
        try:
            path = fetch_source(source, card) if fetch else find_cached(source, card)
        except DownloadError as error:
            echo_error(f"hubcore: error: {card.name}: {error}")
            failed += 1
            continue
        if path is None or not path.is_file():
            missing += 1
            continue
        facts[card.name, source.uri] = (file_sha256(path), path.stat().st_size)
        echo(f"{card.name}: {source.uri} has {path.stat().st_size} bytes, SHA-256 {file_sha256(path)}")
    return facts, missing, failed
