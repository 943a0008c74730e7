"""The hub's verbs: `list`, `info`, `load`, `fetch`; and every name as an attribute, `hub.fbank()`.

Importing this module, and `list`, import no torch and no plugin.

Example:
    >>> from hubcore import hub
    >>> "wav2vec2_base_960" in hub.list()
    True
    >>> type(hub.load("fbank")).__name__
    'FbankUpstream'
"""

from __future__ import annotations

import builtins
import importlib
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hubcore.errors import CheckpointError, OptionError
from hubcore.registry import names as registry
from hubcore.registry.names import current_registry
from hubcore.sources.resolve import fetch_card, resolve

if TYPE_CHECKING:
    import torch

    from hubcore.describe import UpstreamInfo
    from hubcore.protocol import Upstream

__all__ = ["fetch", "info", "list", "load", "refresh"]


_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+(?<!\.pt)(?<!\.pth)(?<!\.ckpt)(?<!\.safetensors)")
"""`org/model`, as transformers spells it."""


def list(pattern: str | None = None) -> builtins.list[str]:
    """The sorted names of every upstream known here, aliases included; imports no torch and no plugin.

    A name that two distributions claim is followed by both `distribution:name` forms.

    Args:
        pattern: only names that it matches, `*` standing for any text.

    Example:
        >>> from hubcore import hub
        >>> hub.list("fbank*")
        ['fbank', 'fbank_no_cmvn']
    """
    return current_registry().names() if pattern is None else current_registry().matching(pattern)


def info(name: str) -> UpstreamInfo:
    """Everything known about a name: class, file and line, config, sources, licence, paper, the cached file.

    Raises:
        UnknownUpstreamError: no such name.
        DuplicateUpstreamError: two distributions claim it.

    Example:
        >>> from hubcore import hub
        >>> print(hub.info("fbank").class_path)
        hubcore_fbank.upstream:FbankUpstream
    """
    from hubcore.describe import describe

    return describe(current_registry().find(_checked(name)))


def load(
    name: str,
    checkpoint: str | os.PathLike[str] | None = None,
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    train: bool = False,
    **options: Any,
) -> Upstream:
    """The upstream that a name means, with its weights: an object of exactly the class `info` shows.

    It is in eval mode, without dropout, and stays so: a trainer such as Lightning does not change the mode of a part that is
    in eval mode when training begins. To fine-tune, load it with `train=True`.

    Args:
        name: a name of `list()`.
        checkpoint: your own weights instead of the card's: a path, `https://...` or `hf://org/repo[@revision][/file]`.
        device: where the weights go; the CPU if None.
        dtype: their type, such as `torch.float16`; float32 if None.
        train: in train mode, with the dropouts of its config or of `options`.
        **options: options of that class; an unknown one is an error.

    Raises:
        UnknownUpstreamError: no such name; the message names the nearest.
        UnavailableUpstreamError: a package it needs is not installed; the message says which.
        DownloadError: the checkpoint cannot be obtained.
        CheckpointError: the checkpoint cannot be used.
        OptionError: no such option.

    Example:
        >>> from hubcore import hub
        >>> hub.load("fbank", num_mel_bins=40).hidden_sizes
        (120,)
    """
    from hubcore.hooks import current_hooks
    from hubcore.loading import build_upstream

    if not isinstance(train, bool):
        raise OptionError(f"train is {train!r:.200}. It must be True or False.")
    entry = current_registry().find(_checked(name))
    upstream: Upstream = build_upstream(entry, checkpoint, options, device=device, dtype=dtype)
    if train and hasattr(upstream, "train"):
        upstream.train()
    current_hooks().upstream_loaded(upstream, entry.card)
    return upstream


def fetch(name: str) -> Path | None:
    """The local file of a name's checkpoint, downloaded and verified if need be; None if it needs no weights.

    Also takes a URI, so that a cluster's cache can be filled with anything.

    Raises:
        UnknownUpstreamError: no such name.
        DownloadError: it cannot be obtained.
    """
    if isinstance(name, str) and "://" in name:
        return resolve(name)
    card = current_registry().find(_checked(name)).card
    return fetch_card(card) if card and card.sources else None


def refresh() -> None:
    """Forgets what was discovered, so that a plugin or a registry file that was added meanwhile is found.

    Example:
        >>> from hubcore import hub
        >>> hub.refresh()
    """
    importlib.invalidate_caches()
    registry.refresh()
    hooks = sys.modules.get("hubcore.hooks")
    if hooks is not None:
        hooks.refresh()


def _checked(name: str) -> str:
    if not isinstance(name, str):
        raise OptionError(f"hub.load() takes a name (str), got {type(name).__name__}.", "Example: hub.load('fbank').")
    if _REPOSITORY.fullmatch(name):
        raise OptionError(
            f"{name!r} is not the name of an upstream. A model on the Hugging Face Hub is loaded by its family.",
            current_registry().lead(name)
            or f"Use hub.load(FAMILY, checkpoint='hf://{name}'); `hubcore list` shows the families.",
        )
    if (os.sep in name and "://" not in name) or name.endswith((".pt", ".pth", ".ckpt", ".safetensors")):
        raise CheckpointError(
            f"{name!r} looks like a file, but hub.load() takes the name of an upstream.",
            f"Use hub.load('wav2vec2', checkpoint={name!r}), or Wav2Vec2Upstream.from_checkpoint({name!r}).",
        )
    return name


def __getattr__(name: str) -> Callable[..., Any]:
    if name.startswith("__"):
        raise AttributeError(f"module 'hubcore.hub' has no attribute {name!r}")
    if name not in current_registry().names():
        current_registry().find(name)  # raises, naming the nearest

    def load_by_attribute(checkpoint: str | os.PathLike[str] | None = None, **options: Any) -> Any:
        return load(name, checkpoint, **options)

    load_by_attribute.__name__ = load_by_attribute.__qualname__ = name
    load_by_attribute.__doc__ = f"`hub.load({name!r}, ...)`."
    return load_by_attribute


def __dir__() -> builtins.list[str]:
    return [*__all__, *list()]
