"""Shell completion of what people type most: names, families, recipes, files and folders. Imports no torch and no plugin."""

from __future__ import annotations

from collections.abc import Iterable

import click
from click.shell_completion import CompletionItem

from hubcore.registry.names import current_registry


def upstreams(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG001
    """Names of `hubcore list`.

    Example:
        >>> [item.value for item in upstreams(None, None, "fbank_")]
        ['fbank_no_cmvn']
    """
    return beginning(current_registry().names(), incomplete)


def upstreams_or_files(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of `hubcore list`, and paths."""
    return [*upstreams(ctx, parameter, incomplete), *files(ctx, parameter, incomplete)]


def families(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG001
    """Names of installed families."""
    return beginning(sorted(current_registry().families), incomplete)


def licenses(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG001
    """Licences of the cards."""
    found = {entry.card.license for entry in current_registry().entries if entry.card}
    return [CompletionItem(name) for name in sorted(found) if name.lower().startswith(incomplete.lower())]


def languages(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG001
    """Codes of the languages of the cards."""
    return beginning(
        sorted({code for entry in current_registry().entries if entry.card for code in entry.card.languages}), incomplete
    )


def formats(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG001
    """Formats of feature files that are hubcore's own."""
    from hubcore.hooks import FORMATS

    return beginning(FORMATS, incomplete)


def files(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG001
    """Paths of files, which the shell completes."""
    return [CompletionItem(incomplete, type="file")]


def folders(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG001
    """Paths of folders, which the shell completes."""
    return [CompletionItem(incomplete, type="dir")]


def beginning(names: Iterable[str], incomplete: str) -> list[CompletionItem]:
    """Names that begin with what is typed already.

    Example:
        >>> [item.value for item in beginning(["ab", "b"], "a")]
        ['ab']
    """
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]
