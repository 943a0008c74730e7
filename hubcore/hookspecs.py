"""The hooks there are, and the mark by which a plugin implements one. Imports nothing of the core.

A module that an entry point of the group `hubcore` names implements any of them:

```python
from hubcore import hookimpl

@hookimpl
def hubcore_fetch(uri, cache_dir, offline):
    if uri.startswith("s3://"):
        ...
        return path
```
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from hubcore.card import Card

hookspec = pluggy.HookspecMarker("hubcore")
hookimpl = pluggy.HookimplMarker("hubcore")


@dataclass(frozen=True)
class Expectation:
    """The file that a fetch must bring, for a fetcher that checks bytes as they arrive or resumes.

    Example:
        >>> Expectation(size=3).sha256 is None
        True
    """

    sha256: str | None = None
    """64 hex digits, published or of an earlier download here; None if unknown."""
    size: int | None = None
    """Bytes, or None if unknown."""
    name: str | None = None
    """The card's name; None where a user gave the address itself."""
    exclusive: bool = False
    """True if a lock keeps other processes from fetching this address now, so that a partial file may have a fixed name."""


class HookSpecs:
    """Every hook there is."""

    @hookspec(firstresult=True)
    def hubcore_fetch(self, uri: str, cache_dir: Path, offline: bool, expected: Expectation) -> Path | None:
        """The local file or folder that `uri` names, fetched into `cache_dir` if need be; None if the scheme is not yours.

        Size and SHA-256 are checked afterwards; `expected` is for a fetcher that checks bytes as they arrive, or resumes.

        Raises:
            DownloadError: the scheme is yours and the file is not available; `OfflineError` if only for `offline`.
        """

    @hookspec
    def hubcore_upstream_loaded(self, upstream: Any, card: Card | None) -> None:
        """Called by `hub.load` with every upstream just before it is returned."""

    @hookspec
    def hubcore_feature_writers(self) -> dict[str, Any] | None:
        """Further formats of `hubcore extract --format`: format name -> a class as `hubcore.extract.FeatureWriter` is.

        It is called only for a format that is not built in.
        """

    @hookspec
    def hubcore_commands(self, cli: Any) -> None:
        """Adds commands to `cli`, a click group, from which the command line takes them."""


NAMES = tuple(sorted(name for name in vars(HookSpecs) if name.startswith("hubcore_")))
"""Every hook's name."""
