"""The built-in schemes, a class each: `https://`, `hf://`, `package://`. A new scheme is a class here. Imports no torch.

All of them are one implementation of the hook `hubcore_fetch`, by which plugins add theirs.
"""

from __future__ import annotations

import re
from pathlib import Path

from hubcore.card import Source
from hubcore.errors import DownloadError
from hubcore.hookspecs import Expectation, hookimpl
from hubcore.registry.names import package_file

_PACKAGE = re.compile(r"package://(?P<package>[A-Za-z_]\w*)/(?P<file>[\w.-]+(?:/[\w.-]+)*)")


class Scheme:
    """One kind of address; this class itself stands for those that only a plugin knows."""

    prefixes: tuple[str, ...] = ()
    remote = True
    """True if files may change at their address, so that they are pinned."""
    always_pinned = False
    """True if an address is pinned even without a card, because a cached file is found by its digest only."""
    can_ask = False
    """True if `ask` does anything."""

    def check(self, uri: str) -> None:
        """Raises `DownloadError` if an address is malformed."""

    def fetch(self, uri: str, cache_dir: Path, offline: bool, expected: Expectation) -> Path:
        """The file or folder of an address, from the cache or fetched into it.

        Raises:
            DownloadError: it cannot be obtained; `OfflineError` if only for `offline`.
        """
        raise NotImplementedError

    def find(self, uri: str) -> list[Path]:
        """The cached files of an address that are found without a digest, intact or not, or folders of a whole model."""
        return []

    def copy(self, uri: str, path: Path, folder: Path) -> Path | None:
        """Copies a fetched file or folder into the cache `folder`, to be found there; None if it needs no copy.

        Raises:
            OSError: that cache cannot be written.
            DownloadError: it cannot be copied.
        """
        raise DownloadError(f"{uri} is kept by the plugin that fetched it. Only that plugin can copy it.", "See its manual.")

    def ask(self, source: Source, cache_dir: Path) -> None:
        """Raises `DownloadError` unless a source would give the file it promises now; at most a few bytes are fetched."""


class Https(Scheme):
    """`https://...`, and `http://` on this machine; files lie in hubcore's own store."""

    prefixes = ("https://", "http://")
    always_pinned = True
    can_ask = True

    def check(self, uri: str) -> None:
        from hubcore.sources.https.addresses import check_url

        check_url(uri)

    def fetch(self, uri: str, cache_dir: Path, offline: bool, expected: Expectation) -> Path:
        from hubcore.sources.https.download import download

        return download(uri, cache_dir, offline, expected)

    def copy(self, uri: str, path: Path, folder: Path) -> Path | None:
        from hubcore.sources.store import copy_stored

        return copy_stored(path, folder)

    def ask(self, source: Source, cache_dir: Path) -> None:
        from hubcore.sources.https.download import probe

        probe(source, cache_dir)


class HuggingFace(Scheme):
    """`hf://org/repo[@revision][/file]`; files lie in huggingface_hub's own cache."""

    prefixes = ("hf://",)
    can_ask = True

    def check(self, uri: str) -> None:
        from hubcore.sources.hub.hugging_face import parse_hub_uri

        parse_hub_uri(uri)

    def fetch(self, uri: str, cache_dir: Path, offline: bool, expected: Expectation) -> Path:
        from hubcore.sources.hub.hugging_face import hub_file, parse_hub_uri
        from hubcore.sources.hub.models import hub_model

        file = parse_hub_uri(uri)
        return hub_file(file, expected, offline) if file.name else hub_model(file, expected, offline)

    def find(self, uri: str) -> list[Path]:
        from hubcore.sources.hub.cache import commit_of, hf_caches, repo_folder
        from hubcore.sources.hub.hugging_face import parse_hub_uri
        from hubcore.sources.hub.models import WEIGHTS

        file = parse_hub_uri(uri)
        commits = {cache: commit_of(file.repo, file.revision, cache) for cache in hf_caches()}
        snapshots = [repo_folder(file.repo, cache) / "snapshots" / commit for cache, commit in commits.items() if commit]
        if file.name:
            return [path for path in (folder / file.name for folder in snapshots) if path.is_file()]
        return [folder for folder in snapshots if any((folder / name).is_file() for name in WEIGHTS)]

    def copy(self, uri: str, path: Path, folder: Path) -> Path | None:
        from hubcore.sources.hub.cache import copy_snapshot
        from hubcore.sources.hub.hugging_face import parse_hub_uri

        file = parse_hub_uri(uri)
        return copy_snapshot(path, file.repo, file.revision, folder / "hub")

    def ask(self, source: Source, cache_dir: Path) -> None:
        import dataclasses

        from hubcore.sources.hub.hugging_face import ask, parse_hub_uri

        file = parse_hub_uri(source.uri)
        if file.name:
            ask(file, Expectation(source.sha256, source.size))
        else:
            ask(dataclasses.replace(file, name="config.json"), Expectation())  # a whole model has at least that one


class Package(Scheme):
    """`package://package/file`: a file that an installed package carries, found without importing it."""

    prefixes = ("package://",)
    remote = False

    def check(self, uri: str) -> None:
        self.fetch(uri, Path(), True, Expectation())

    def fetch(self, uri: str, cache_dir: Path, offline: bool, expected: Expectation) -> Path:
        match = _PACKAGE.fullmatch(uri)
        if not match or ".." in match["file"].split("/"):
            raise DownloadError(f"{uri!r} is not of the form package://package/file.", "Correct it.")
        path = package_file(match["package"], match["file"])
        if path is None:
            what = f"there is no {uri}: the package {match['package']} is missing or incomplete."
            raise DownloadError(what, "Install it again.")
        return path

    def copy(self, uri: str, path: Path, folder: Path) -> Path | None:
        return None


SCHEMES = (Https(), HuggingFace(), Package())
"""Every built-in scheme."""


def scheme_of(uri: str) -> Scheme:
    """The scheme of an address; a plain `Scheme` if only a plugin may know it.

    Example:
        >>> type(scheme_of("hf://org/repo/model.pt")).__name__, scheme_of("s3://bucket/file").can_ask
        ('HuggingFace', False)
    """
    return next((scheme for scheme in SCHEMES if uri.startswith(scheme.prefixes)), Scheme())


@hookimpl
def hubcore_fetch(uri: str, cache_dir: Path, offline: bool, expected: Expectation) -> Path | None:
    """The local file of an address of one of the built-in schemes."""
    scheme = scheme_of(uri)
    return scheme.fetch(uri, cache_dir, offline, expected) if scheme.prefixes else None
