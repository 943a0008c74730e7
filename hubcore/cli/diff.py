"""`hubcore diff A B`: compares two folders of features."""

from __future__ import annotations

import click

from hubcore.cli.complete import folders
from hubcore.cli.echo import echo, echo_json, json_flag
from hubcore.text import plural, printable

_SHOWN = 40
"""Differences that are printed; the JSON has all."""
_EXAMPLE = """\b
Example:
  hubcore diff features/ again/
  hubcore diff on_cpu/ on_gpu/ --tolerance 1e-3 --json"""


@click.command(epilog=_EXAMPLE)
@click.argument("one", metavar="A", shell_complete=folders)
@click.argument("other", metavar="B", shell_complete=folders)
@click.option(
    "--tolerance",
    type=click.FloatRange(min=0),
    default=2e-5,
    show_default=True,
    metavar="X",
    help="Largest difference of two numbers that counts as none.",
)
@json_flag(instead="text")
def command(one: str, other: str, tolerance: float, as_json: bool) -> None:
    """Compare the features of two folders of `hubcore extract` (A, B), utterance by utterance, in whatever formats they are.

    The exit code is 1 if an utterance differs or is in one of them only.
    """
    from hubcore import features

    found = features.compare(features.open(one), features.open(other), tolerance=tolerance)
    if as_json:
        result = {
            "same": found.same,
            "largest": found.largest,
            "different": [vars(difference) for difference in found.differences],
            "settings": found.settings,
        }
        echo_json(result)
    else:
        for difference in found.differences[:_SHOWN]:
            echo(f"{printable(difference.utterance)} {printable(difference.what)}")
        if len(found.differences) > _SHOWN:
            echo(f"... and {len(found.differences) - _SHOWN} more; --json lists all")
        for key, (here, there) in found.settings.items():
            echo(f"note: {key} is {here!r} and {there!r}")
        agree = f"{plural(found.same, 'utterance')} the same within {tolerance:g}"
        echo(f"{agree}, {len(found.differences)} different; numbers differ by up to {found.largest:.3g}")
    if found.differences:
        click.get_current_context().exit(1)
