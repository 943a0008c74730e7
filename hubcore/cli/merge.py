"""`hubcore merge DIR...`: one folder of features out of several."""

from __future__ import annotations

import click

from hubcore.cli.complete import folders
from hubcore.cli.echo import echo, echo_json, json_flag
from hubcore.text import listed, plural, printable

_EXAMPLE = """\b
Example:
  hubcore merge laptop/features cluster/features --out features/"""


@click.command(epilog=_EXAMPLE)
@click.argument("parts", nargs=-1, required=True, metavar="DIR...", shell_complete=folders)
@click.option("--out", "-o", shell_complete=folders, required=True, metavar="DIR", help="The folder for all of them.")
@click.option("--force-unlock", is_flag=True, help="Ignore the lock file of a run that died on another machine.")
@json_flag()
def command(parts: tuple[str, ...], out: str, force_unlock: bool, as_json: bool) -> None:
    """Copy the features of folders of `hubcore extract` (DIR...) into one, and check that all is there.

    They are those of machines without a disk in common, each of which made a part (--shard 0/2 and 1/2), or another corpus,
    with the same settings. The exit code is 1 if an utterance failed or is missing. The same command may be repeated.
    """
    from hubcore.extract.merge import merge

    merged = merge(parts, out, force_unlock=force_unlock)
    if as_json:
        echo_json({**vars(merged), "folder": str(merged.folder), "failures": [vars(failure) for failure in merged.failures]})
    else:
        counts = (
            f"{plural(merged.utterances, 'utterance')} in {printable(merged.folder)}, {plural(merged.copied, 'file')} copied"
        )
        echo(f"{counts}, {len(merged.failures)} failed, {len(merged.missing)} missing")
        for failure in merged.failures:
            echo(f"failed: {printable(failure.error)}", err=True)
        if merged.missing:
            echo(f"missing, of shards that are not among these or not done: {printable(listed(merged.missing))}", err=True)
    if merged.failures or merged.missing:
        click.get_current_context().exit(1)
