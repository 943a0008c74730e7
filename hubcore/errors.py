"""Every exception hubcore raises on purpose.

```text
HubcoreError
├── UnknownUpstreamError        no upstream has this name
├── DuplicateUpstreamError      two distributions own this name
├── UnavailableUpstreamError    known, but a package it needs is not installed
├── RegistryError               a registry file is malformed
├── OptionError                 an option has an impossible value (also a ValueError)
├── CheckpointError             a checkpoint file cannot be used
│   ├── UnsafeCheckpointError   it asks for more than plain data
│   ├── CheckpointLayoutError   it is well-formed, but not a layout this class reads
│   └── MissingWeightsError     a tensor the model needs is not in it
├── DownloadError               bytes could not be obtained
│   ├── ChecksumError           bytes were obtained, but they are not the published ones
│   └── OfflineError            offline mode forbids the download
├── AudioError                  a waveform or an audio file cannot be used
├── ExtractionError             a bulk extraction cannot start or continue
└── PluginError                 a third-party plugin is broken
    └── BrokenFetchError        its hubcore_fetch failed (also a DownloadError)
```

Each says `what` happened and how to `fix` it. The parts that a program may want are attributes.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

from hubcore.text import message_text


class HubcoreError(Exception):
    """The root of every error hubcore raises on purpose; the command line prints it without a traceback.

    `what` happened and how to `fix` it are attributes, and `str()` joins them, safe to be shown (`hubcore.text.message_text`).

    Example:
        >>> print(HubcoreError("the cache is full.", fix="Free some space."))
        the cache is full. Free some space.
    """

    def __init__(self, what: str = "", fix: str = "") -> None:
        self.what = what
        self.fix = fix
        super().__init__(f"{what} {fix}" if fix else what)

    def __str__(self) -> str:
        return message_text(super().__str__())


class UnknownUpstreamError(HubcoreError, AttributeError):
    """No upstream has this name.

    It is an `AttributeError` too, so that `getattr(hub, name, default)` and `hasattr(hub, name)` behave.
    """

    def __init__(self, name: str, known: Iterable[str], hint: str = "") -> None:
        self.upstream_name = name
        self.nearest = nearest_names(name, known)
        parts = [f"no upstream is called {name!r}."]
        if self.nearest:
            parts.append(f"The nearest names are {', '.join(self.nearest)}.")
        parts.append(hint or "`hubcore list` shows every name.")
        super().__init__(" ".join(parts))


class DuplicateUpstreamError(HubcoreError):
    """Two installed distributions claim one name; each `dist:name` in `choices` picks one."""

    def __init__(self, name: str, owners: Sequence[str], files: Sequence[str] = ()) -> None:
        self.upstream_name = name
        self.owners = tuple(owners)
        self.choices = tuple(f"{owner}:{name}" for owner in owners)
        super().__init__(
            f"{name!r} is claimed by {' and by '.join(owners)}. Neither is preferred over the other. "
            + (
                f"Say which one you mean: {' or '.join(repr(c) for c in self.choices)}; or uninstall one of them, or write "
                "`overrides:` into your own card."
                if len(set(owners)) == len(owners)
                else f"Remove it from one of these: {'; '.join(files)}."
            )
        )


class UnavailableUpstreamError(HubcoreError):
    """The upstream is known, but a package that it needs is not installed."""


class RegistryError(HubcoreError):
    """A registry file is malformed; `file` and `line` are the place, where there is one, and `str()` begins with it.

    Example:
        >>> print(RegistryError("'ours' has no 'license'.", "Add it.", "a/registry.yaml", 3))
        a/registry.yaml, line 3: 'ours' has no 'license'. Add it.
    """

    def __init__(self, what: str, fix: str = "", file: str | None = None, line: int | None = None) -> None:
        super().__init__(what, fix)
        self.file = file
        self.line = line

    def __str__(self) -> str:
        place = f"{self.file}, line {self.line}: " if self.line else f"{self.file}: " if self.file else ""
        return message_text(place) + super().__str__()


class OptionError(HubcoreError, ValueError):
    """An option's name or value is impossible; `option` is its name, where the class has no option of that name."""

    def __init__(self, what: str = "", fix: str = "", option: str | None = None) -> None:
        self.option = option
        super().__init__(what, fix)


class CheckpointError(HubcoreError):
    """A checkpoint file cannot be used: it is damaged, truncated, or not a checkpoint at all."""


class UnsafeCheckpointError(CheckpointError):
    """A checkpoint file asks for more than plain data (a call, a hostile geometry, a resource bomb)."""


class CheckpointLayoutError(CheckpointError):
    """A checkpoint is well-formed, but not a layout or an architecture that this class reads."""


class MissingWeightsError(CheckpointError):
    """Tensors that the model needs are not in the checkpoint, or have another shape than the model's."""

    def __init__(self, message: str, names: Sequence[str] = ()) -> None:
        self.names = tuple(names)
        super().__init__(message)


class DownloadError(HubcoreError):
    """A file could not be obtained from any of its sources."""


class ChecksumError(DownloadError):
    """A file was obtained, but its bytes are not the published ones; `found` is the SHA-256 it has, if that is what differs."""

    def __init__(self, what: str = "", fix: str = "", found: str | None = None) -> None:
        self.found = found
        super().__init__(what, fix)


class OfflineError(DownloadError):
    """A file is not cached and offline mode forbids the download."""


class AudioError(HubcoreError, ValueError):
    """A waveform or an audio file cannot be used; the message names the item."""


class ExtractionError(HubcoreError):
    """A bulk extraction cannot start or cannot continue."""


class PluginError(HubcoreError):
    """A third-party plugin is broken; the message names its distribution."""


class BrokenFetchError(PluginError, DownloadError):
    """A plugin broke while it fetched. It is a `DownloadError` too, so that a card's next source is tried."""


def nearest_names(name: str, known: Iterable[str], count: int = 3) -> list[str]:
    """The `count` names of `known` that look most like `name`, best first.

    Example:
        >>> nearest_names("wav2vec2_bse", ["fbank", "wav2vec2_base", "wav2vec2_large"], count=1)
        ['wav2vec2_base']
        >>> nearest_names("WavLM", ["fbank", "wavlm"])
        ['wavlm']
    """
    known = sorted(set(known))
    near = difflib.get_close_matches(name, known, n=count, cutoff=0.5)
    return near or difflib.get_close_matches(name.lower(), known, n=count, cutoff=0.5)


def nearest_hint(name: str, known: Iterable[str], otherwise: str | None = None) -> str:
    """The sentence for a name that is none of `known`: the nearest ones; if none is near, `otherwise`, or all.

    Example:
        >>> nearest_hint("lr", ["seed", "lr_end"]), nearest_hint("x", ["seed"]), nearest_hint("x", ["seed"], "See above.")
        ('The nearest are lr_end.', 'There are seed.', 'See above.')
    """
    known = sorted(set(known))
    near = nearest_names(name, known)
    if near:
        return f"The nearest are {', '.join(near)}."
    return f"There are {', '.join(known) or 'none'}." if otherwise is None else otherwise
