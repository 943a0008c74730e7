"""`Settings`: what made a feature, weights and config as SHA-256, so that no folder holds two kinds.

Shapes: `L` layers, `F` frames, `D` dim.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, SupportsIndex

from torch import nn

from hubcore.errors import ExtractionError, OptionError
from hubcore.extract.batches import choose_layers
from hubcore.extract.reduce import POOLS, choose_mix
from hubcore.protocol import Upstream
from hubcore.sources.stamps import file_sha256
from hubcore.streaming import in_frames

DTYPES = ("float32", "float16", "bfloat16")
"""The types features can be stored in; bfloat16 only by formats that have it."""
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".index.json")
_CONFIGS = ("config.json", "preprocessor_config.json", "processor_config.json")


_IN_ROWS = (
    "upstream",
    "checkpoint_sha256",
    "layers",
    "dtype",
    "options",
    "config_sha256",
    "frame_stride",
    "sample_rate",
    "format",
    "mix",
    "pool",
)
"""The settings that every row of a manifest has."""


class Chunks(NamedTuple):
    """The way to compute what is longer than a chunk."""

    seconds: float
    """The longest chunk."""
    overlap: float | None
    """Seconds before and behind it that are computed with it; the upstream's own choice if None."""
    folder: Path
    """The folder in which features are kept until they are written."""

    def in_row(self) -> dict[str, Any]:
        """The options that a manifest row has of them."""
        return {"chunk_seconds": self.seconds, "overlap_seconds": self.overlap}


@dataclass(frozen=True)
class Settings:
    """Settings that all features of one folder share; features with other settings are never added to it."""

    upstream: str
    """The card's name, or the class's where there is no card."""
    checkpoint_sha256: str | None
    """SHA-256 of the weights; None where there are none, or the file is not known."""
    layers: tuple[int, ...]
    """Indices into the upstream's `layer_names`, in the order they are stacked."""
    stacked: bool
    """True for `(L, F, D)`, False for `(F, D)`; with `pool` `(L, D)` and `(D,)`."""
    dtype: str
    """`float32`, `float16` or `bfloat16`."""
    options: Mapping[str, Any]
    """The upstream's own options, and those of each call."""
    call_options: Mapping[str, Any]
    """Keywords of each call, which are among `options`."""
    config_sha256: str | None
    """The start of the SHA-256 of the upstream's config; None where it has none that is plain data."""
    width: int
    """The width `D` of these layers."""
    frame_stride: int | None
    """Samples from one frame to the next; None where that depends on the input."""
    sample_rate: int
    """Samples per second that the upstream is given, in Hz."""
    format: str
    """The name of the file format, such as `npy`."""
    mix: tuple[float, ...] | None = None
    """Weights of the layers, whose sum is written; None where the layers themselves are."""
    pool: str | None = None
    """`mean`, `mean+std` or `max` over the frames of an utterance; None for the frames themselves."""
    chunks: Chunks | None = None
    """The way to compute what is longer than a chunk; None to compute all in one pass."""

    def is_long(self, samples: int) -> bool:
        """True for an utterance of so many samples that is computed in chunks."""
        return self.chunks is not None and samples > self.chunks.seconds * self.sample_rate

    @property
    def itemsize(self) -> int:
        """Bytes of a number."""
        return 4 if self.dtype == "float32" else 2

    def in_row(self) -> dict[str, Any]:
        """The settings as plain data, for a manifest row."""
        values = {key: getattr(self, key) for key in _IN_ROWS} | {"layers": list(self.layers), "options": dict(self.options)}
        return values | {"mix": None if self.mix is None else list(self.mix)}

    def differences(self, row: Mapping[str, Any]) -> list[str]:
        """Lists how the settings of a manifest row differ, each as a phrase; empty if they do not."""
        here, there = self.in_row(), dict(row)
        here |= {"layers": _layers(self.layers, self.stacked), "width": self.width}
        stacked = len(row["shape"]) == (2 if row["pool"] else 3)
        there |= {"layers": _layers(row["layers"], stacked), "width": row["shape"][-1]}
        shown = {"layers": str}
        return [
            f"{key} is {shown.get(key, repr)(there[key])} there and {shown.get(key, repr)(here[key])} here"
            for key in here
            if here[key] != there[key]
        ]


def _layers(indices: Sequence[int], stacked: bool) -> str:
    return f"{','.join(map(str, indices))} ({'one array' if stacked else 'a single layer'})"


def settings_for(
    upstream: Upstream,
    layers: str | SupportsIndex | Sequence[str | SupportsIndex],
    dtype: str,
    name: str | None,
    format: str,
    call_options: Mapping[str, Any] = MappingProxyType({}),
    mix: str | os.PathLike[str] | None = None,
    pool: str | None = None,
    chunks: Chunks | None = None,
) -> Settings:
    """Settings that the rows of an extraction share; see `extract`.

    Raises:
        OptionError: no such type or layer.
        ExtractionError: the upstream is in train mode, or the layers differ in width.

    Example:
        >>> from hubcore import hub
        >>> settings_for(hub.load("fbank"), "last", "float32", None, "npy").width
        240
    """
    if dtype not in DTYPES:
        raise OptionError(f"dtype is {dtype!r}.", fix=f"Features are stored as {' or '.join(DTYPES)}.")
    # Without parameters there is no dropout to speak of, and fresh modules are in train mode.
    if isinstance(upstream, nn.Module) and upstream.training and next(upstream.parameters(), None) is not None:
        what = "the upstream is in train mode. Its dropout would make every run's features different."
        raise ExtractionError(what, fix="Call upstream.eval() first.")
    choice, weights = choose_layers(layers, upstream.layer_names), None
    if mix is not None:
        choice, weights = choose_mix(mix, choice, upstream.layer_names)
    if pool is not None and pool not in POOLS:
        raise OptionError(f"pool is {pool!r}.", fix=f"It must be {', '.join(POOLS)}, or None.")
    widths = [upstream.hidden_sizes[index] for index in choice.indices]
    if len(set(widths)) > 1:
        what = f"the layers {','.join(map(str, choice.indices))} have the widths {', '.join(map(str, widths))}."
        same = {width: [i for i, other in zip(choice.indices, widths, strict=True) if other == width] for width in widths}
        calls = ", then ".join(f"layers={','.join(map(str, indices))}" for indices in same.values())
        raise ExtractionError(what, fix=f"Extract layers of one width at a time, each time into a new folder: {calls}.")
    if chunks is not None:
        in_frames(upstream, chunks.seconds, chunks.overlap)
    options = dict(getattr(upstream, "options", {})) | ({} if chunks is None else chunks.in_row())
    options.pop("layers", None)  # a default that the layers named here replace
    return Settings(
        upstream=name or (upstream.card.name if upstream.card else type(upstream).__name__),
        checkpoint_sha256=checkpoint_sha256(upstream),
        layers=choice.indices,
        stacked=choice.stacked,
        dtype=dtype,
        options=options | {key: list(value) if isinstance(value, tuple) else value for key, value in call_options.items()},
        call_options=call_options,
        config_sha256=config_sha256(upstream),
        width=2 * widths[0] if pool == "mean+std" else widths[0],
        frame_stride=upstream.frame_stride,
        sample_rate=upstream.sample_rate,
        format=format,
        mix=weights,
        pool=pool,
        chunks=chunks,
    )


def checkpoint_sha256(upstream: Upstream) -> str | None:
    """The SHA-256 of the checkpoint an upstream was loaded from; None where it was not loaded, or the file is gone.

    For a folder it is `folder_sha256`.

    Example:
        >>> from hubcore import hub
        >>> checkpoint_sha256(hub.load("fbank")) is None, len(checkpoint_sha256(hub.load("wav2vec2_tiny_prompts")))
        (True, 64)
    """
    report = getattr(upstream, "load_report", None)
    if report is None:
        return None
    if report.sha256:
        return str(report.sha256)
    try:
        source = Path(report.source)
        if source.is_dir():
            return folder_sha256(source)
        return file_sha256(source) if source.is_file() else None
    except (OSError, ValueError, TypeError):
        return None


def folder_sha256(folder: Path) -> str | None:
    """One SHA-256 over names and SHA-256 of the weights and configs in a Hugging Face folder; None if it has none.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = (folder / "config.json").write_text("{}")
        >>> before = folder_sha256(folder)
        >>> _ = (folder / "README.md").write_text("of no account")
        >>> folder_sha256(folder) == before
        True
    """
    files = sorted(file for file in folder.iterdir() if file.name in _CONFIGS or file.name.endswith(_WEIGHTS))
    lines = [f"{file.name} {file_sha256(file)}\n" for file in files if file.is_file()]
    return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest() if lines else None


def config_sha256(upstream: Upstream) -> str | None:
    """The first 16 digits of the SHA-256 of an upstream's config as JSON; None where it has no config of plain values.

    Example:
        >>> from hubcore import hub
        >>> config_sha256(hub.load("fbank")) == config_sha256(hub.load("fbank", num_mel_bins=40))
        False
    """
    config: Any = getattr(upstream, "config", None)
    try:
        if dataclasses.is_dataclass(config) and not isinstance(config, type):
            config = dataclasses.asdict(config)
        if not isinstance(config, dict):
            return None
        text = json.dumps(config, sort_keys=True)
    except (TypeError, ValueError):
        return None  # a text of other objects may hold their address, and differ in every run
    return hashlib.sha256(text.encode("ascii")).hexdigest()[:16]
