"""`hubcore pretrain CONFIG [key=value ...] --out RUN`: pre-training, from a recipe to a checkpoint that the hub loads."""

from __future__ import annotations

import logging
import os
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from hubcore.cli.complete import beginning, files, folders, upstreams_or_files
from hubcore.cli.echo import echo, echo_json, json_flag
from hubcore.cli.group import leave_signals
from hubcore.cli.table import format_table
from hubcore.files import output_folder
from hubcore.progress import Progress, is_terminal
from hubcore.text import format_bytes, format_duration, plural, printable

if TYPE_CHECKING:
    from hubcore.pretrain import Status

_EXAMPLE = """\b
Example:
  hubcore pretrain tiny data.train=manifest/train.tsv data.valid=manifest/valid.tsv --out runs/tiny
  hubcore pretrain ofa_tiny data.train=manifest/train.tsv data.segments=segments --init runs/tiny --out runs/ofa
  torchrun --nproc-per-node 8 -m hubcore pretrain my.yaml --out runs/mine"""


def _recipes(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from hubcore.pretrain.recipe import shipped_recipes

    return [*beginning(shipped_recipes(), incomplete), *files(ctx, parameter, incomplete)]


@click.command(epilog=_EXAMPLE)
@click.argument("config", metavar="CONFIG", shell_complete=_recipes)
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option(
    "--out",
    "-o",
    shell_complete=folders,
    required=True,
    metavar="RUN",
    help="The run's folder; a run that is in it is resumed.",
)
@click.option(
    "--init",
    shell_complete=upstreams_or_files,
    metavar="C",
    help="Weights to start from: a run, a path, https://..., hf://... or a name.",
)
@click.option("--force-unlock", is_flag=True, help="Ignore the lock file of a run that died on another machine.")
@click.option("--dry-run", is_flag=True, help="Print what the run would do, and its resolved recipe; train nothing.")
@json_flag()
def command(
    config: str, overrides: tuple[str, ...], out: str, init: str | None, force_unlock: bool, dry_run: bool, as_json: bool
) -> None:
    """Pre-train by a recipe: CONFIG is a YAML file, or the bare name of one that comes with hubcore.

    Any key of the recipe can be given as KEY=VALUE, such as optimization.lr=1e-4. The same command resumes a run that was
    interrupted, from its last checkpoint. Needs accelerate: pip install 'hubcore[train]'.

    Exit codes: 0 when the last update is done; 1 when the run stopped, with the reason; 130 or 143 when a signal did.
    """
    from hubcore.pretrain.recipe import read_recipe

    logging.getLogger("hubcore.pretrain").setLevel(logging.INFO)
    recipe = read_recipe(config, overrides)
    if dry_run:
        _print_plan(recipe, output_folder(out), init, as_json)
        return
    from hubcore.pretrain.loop import pretrain

    leave_signals()
    with Progress("update", keep=True) as bar:
        outcome = pretrain(recipe, out, init=init, report=partial(_show, bar), force_unlock=force_unlock)
    if as_json and _is_main():
        echo_json({"run": out, **vars(outcome)})
    elif outcome.status == "finished":
        if _is_main():
            echo(
                f"{printable(out)}: {plural(outcome.update, 'update')} done. "
                f"hub.load(NAME, checkpoint={printable(out)!r}) loads it."
            )
    else:
        if _is_main():
            echo(f"hubcore: {outcome.status}: {outcome.message}", err=True)
    if outcome.status != "finished":
        click.get_current_context().exit(128 + outcome.signal if outcome.signal else 1)


def _show(bar: Progress, status: Status) -> None:
    """A bar on a terminal; elsewhere a line for each row of metrics.jsonl."""
    note = f"{status.text}, {format_duration(status.seconds_left)} left"
    bar(status.update, status.max_updates, note)
    if status.row and not is_terminal(sys.stderr):
        echo(f"update {status.update} of {status.max_updates}: {note}", err=True)


def _is_main() -> bool:
    return os.environ.get("RANK", "0") == "0"


def _print_plan(recipe: Any, out: Path, init: str | None, as_json: bool) -> None:
    """Prints what a run would do, after the checks that its start makes."""
    import yaml

    from hubcore.pretrain.checkpoints import newest_checkpoint
    from hubcore.pretrain.dry_run import describe_run
    from hubcore.pretrain.prepare import prepare
    from hubcore.pretrain.provenance import check_same_recipe
    from hubcore.sources.resolve import find_checkpoint

    prepared = prepare(recipe)
    if newest_checkpoint(out) is not None:
        check_same_recipe(out, prepared.recipe)
    elif init is not None:
        find_checkpoint(init)
    plan = describe_run(prepared)
    if as_json:
        echo_json({**plan, "recipe": prepared.recipe.plain()})
        return
    shown = {name: format_bytes(value) if name.endswith("_bytes") else value for name, value in plan.items()}
    echo(format_table(["plan", ""], [(name.replace("_", " "), value) for name, value in shown.items()]))
    if recipe.optimization.warmup_updates > recipe.optimization.max_updates:
        echo("note: the warm-up is longer than the run, so the learning rate never reaches optimization.lr")
    echo()
    echo(yaml.safe_dump(prepared.recipe.plain(), sort_keys=False, default_flow_style=None, width=120), nl=False)
