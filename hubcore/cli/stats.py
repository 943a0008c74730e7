"""`hubcore stats DIR`: a folder of features in numbers."""

from __future__ import annotations

import click

from hubcore.cli.complete import folders
from hubcore.cli.echo import echo, echo_json, json_flag
from hubcore.cli.table import format_table
from hubcore.text import format_bytes, labelled, listed, plural

_EXAMPLE = """\b
Example:
  hubcore stats features/
  hubcore stats features/ --json"""


@click.command(epilog=_EXAMPLE)
@click.argument("folder", metavar="DIR", shell_complete=folders)
@json_flag()
def command(folder: str, as_json: bool) -> None:
    """Count what a folder of `hubcore extract` (DIR) holds: utterances, hours, frames, size, and numbers that are suspect.

    A dead dimension has the same value in every frame of every utterance.
    """
    from hubcore import features

    opened = features.open(folder)
    found = features.statistics(opened)
    if as_json:
        echo_json(vars(found))
        return
    settings = opened.record.settings
    form = f"{settings['format']}, {found.dtype}" + "".join(
        f", {key} {settings[key]}" for key in ("pool", "mix") if settings[key]
    )
    rows = [
        ("upstream", settings["upstream"]),
        ("utterances", found.utterances),
        ("audio", f"{found.hours:.2f} hours"),
        ("frames", found.frames),
        ("width", found.width),
        ("format", form),
        ("size", f"{format_bytes(found.bytes)} in {plural(found.files, 'file')}"),
        ("not finite", listed(found.not_finite) or "none"),
    ]
    echo(labelled(rows))
    names = found.layers if len(found.layers) == len(found.mean) else ["sum of " + ", ".join(found.layers)]
    table = [
        (name, f"{mean:.4g}", f"{std:.4g}", listed(map(str, dead)) or "none")
        for name, mean, std, dead in zip(names, found.mean, found.std, found.dead, strict=True)
    ]
    echo()
    echo(format_table(["layer", "mean", "std", "dead dimensions"], table, right=("mean", "std")))
