"""`hubcore docs [PAGE]`: the documentation, which travels with the package."""

from __future__ import annotations

from pathlib import Path

import click
from click.shell_completion import CompletionItem

from hubcore.cli.complete import beginning
from hubcore.cli.echo import echo
from hubcore.cli.table import format_table
from hubcore.errors import OptionError, nearest_hint

_EXAMPLE = """\b
Example:
  hubcore docs
  hubcore docs quickstart
  hubcore docs families/hubert | less"""


def pages() -> dict[str, Path]:
    """The pages by name, such as `families/hubert`: inside the package when installed from a wheel, else in the checkout.

    Example:
        >>> "quickstart" in pages()
        True
    """
    package = Path(__file__).parents[1]
    folder = package / "docs" if (package / "docs").is_dir() else package.parent / "docs"
    return {path.relative_to(folder).with_suffix("").as_posix(): path for path in sorted(folder.rglob("*.md"))}


def _complete(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG001
    return beginning(pages(), incomplete)


@click.command(epilog=_EXAMPLE)
@click.argument("page", required=False, metavar="[PAGE]", shell_complete=_complete)
def command(page: str | None) -> None:
    """Print a page of the documentation, as Markdown; without PAGE, the list of pages."""
    found = pages()
    if page is None:
        titles = {name: path.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ") for name, path in found.items()}
        echo(format_table(["page", "title"], titles.items(), whole=("page",)))
        return
    name = page.removeprefix("docs/").removesuffix(".md")
    if name not in found:
        raise OptionError(f"there is no page {page!r}.", nearest_hint(name, found))
    echo(found[name].read_text(encoding="utf-8"), nl=False)
