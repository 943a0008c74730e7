"""`hubcore plugin new NAME` writes a new plugin package; `hubcore plugin check DIST` examines an installed one."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import click

from hubcore.cli.echo import echo, echo_json, json_flag
from hubcore.text import plural

_NEW = """\b
Example:
  hubcore plugin new my_model
  hubcore plugin new my_model --dir ~/src
  hubcore plugin new --package acme_ssl --family vowels --family nasals"""
_CHECK = """\b
Example:
  hubcore plugin check hubcore-my-model
  hubcore plugin check hubcore-my-model --json"""


@click.group(epilog=f"{_NEW}\n{_CHECK.split(chr(10), 2)[2]}")
def command() -> None:
    """Write and check plugins: packages that bring upstreams of their own."""


@command.command("new", epilog=_NEW)
@click.argument("name", required=False)
@click.option("--package", metavar="PACKAGE", help="Instead of NAME: a package for several families, each given by --family.")
@click.option("--family", "families", multiple=True, metavar="NAME", help="A family of PACKAGE; may be repeated.")
@click.option(
    "--dir", "folder", type=click.Path(path_type=Path), default=Path(), show_default="this folder", help="Where to make it."
)
def new(name: str | None, package: str | None, families: tuple[str, ...], folder: Path) -> None:
    """Write a complete package hubcore-NAME: a small working upstream, its cards, its tests.

    Nothing that is there is ever overwritten.
    """
    from hubcore.scaffold.new import new_plugin

    if (name is None) == (package is None) or (package is None) == bool(families):
        raise click.UsageError("Give NAME, or --package with at least one --family.")
    made = new_plugin(str(package if name is None else name), os.path.expanduser(folder), families=families)
    count = sum(path.is_file() for path in made.rglob("*"))
    first = families[0] if families else name
    echo(f"{count} files written to {made}. Next:\n")
    echo(f"  cd {shlex.quote(str(made))}\n  pip install -e '.[test]'\n  pytest\n  hubcore info {first}")
    models = made / (f"{package}/*" if package else f"hubcore_{name}") / "model.py"
    echo(f"\nYour model goes into {models}; `hubcore docs write_a_plugin` goes through it.")


@command.command("check", epilog=_CHECK)
@click.argument("distribution", metavar="DIST")
@click.option(
    "--exempt",
    multiple=True,
    metavar="[NAME/]CHECK=REASON",
    help="A check that an upstream need not pass, and why; for all upstreams, or for NAME alone.",
)
@click.option("--conformance/--no-conformance", default=True, help="Whether to load checkpoints and run the conformance kit.")
@json_flag()
def check(distribution: str, exempt: tuple[str, ...], conformance: bool, as_json: bool) -> None:
    """Examine the installed distribution DIST: entry points, cards, classes, conformance, hooks.

    Nothing is downloaded. Exits 1 if something is wrong.
    """
    from hubcore.cli.table import format_table
    from hubcore.doctor.diagnosis import check_plugin

    pairs = [text.partition("=") for text in exempt]
    for (name, equals, reason), text in zip(pairs, exempt, strict=True):
        if not (name and equals and reason):
            raise click.BadParameter(f"{text!r} is not CHECK=REASON", param_hint="--exempt")
    report = check_plugin(distribution, {name: reason for name, _, reason in pairs}, conformance=conformance)
    if as_json:
        echo_json(report.to_dict())
    else:
        rows = [(step.what, step.name, step.result, step.detail) for step in report.steps]
        echo(format_table(["checked", "name", "result", "detail"], rows))
        skipped = sum(step.result == "not checked" for step in report.steps)
        for number, finding in enumerate(report.findings, start=1):
            kind = " (warning)" if finding.warning else ""
            echo(f"\n{number}. {finding.place or report.distribution}{kind}\n   {finding.what}\n   {finding.fix}")
        count = sum(not finding.warning for finding in report.findings)
        verdict = plural(count, "finding") if count else "nothing is wrong"
        echo(f"\n{report.distribution} {report.version}: {verdict}; {skipped} not checked")
    if not report.ok:
        click.get_current_context().exit(1)
