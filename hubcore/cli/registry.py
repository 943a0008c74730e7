"""`hubcore registry pin FILE`: writes the checksums and sizes of fetched checkpoints into a registry file."""

from __future__ import annotations

from pathlib import Path

import click

_EXAMPLE = """\b
Example:
  hubcore registry pin my_cards.yaml
  hubcore registry pin my_cards.yaml our_wav2vec2 --fetch"""


@click.group(epilog=_EXAMPLE)
def command() -> None:
    """Work on registry files, which hold the cards of checkpoints."""


@command.command("pin", epilog=_EXAMPLE)
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--fetch", is_flag=True, help="Download the files that are not here.")
def pin(file: Path, names: tuple[str, ...], fetch: bool) -> None:
    """Write SHA-256 and size into the cards of FILE that lack them, from the files that are here.

    Comments, order and every other value stay as they are. Only NAMEs are pinned if any are given.
    """
    from hubcore.checkpoints.card_text import write_facts
    from hubcore.checkpoints.sources import fetch_source, file_sha256, find_cached
    from hubcore.errors import DownloadError, UnknownUpstreamError
    from hubcore.registry_file import read_registry

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
