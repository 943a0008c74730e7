"""One record of a registry: `Card`, everything known about one checkpoint. Imports no torch."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_COMMERCIAL_OK = ("mit", "apache-2.0", "bsd-*-clause", "cc0-1.0", "cc-by-[0-9]*", "cc-by-sa-[0-9]*", "none needed")
"""Licences that allow commercial use, in lower case."""


@dataclass(frozen=True)
class Source:
    """One place that holds a checkpoint.

    Example:
        >>> Source("https://example.org/model.pt").uri
        'https://example.org/model.pt'
    """

    uri: str
    """`https://...`, `hf://org/repo[@revision]/file`, `package://package/file` or a path."""
    sha256: str | None = None
    """64 hex digits of the file's SHA-256; None until somebody has published or pinned it."""
    size: int | None = None
    """The file's size in bytes; None if unknown."""


@dataclass(frozen=True)
class CodebookSource:
    """A file of centroids that belongs to a checkpoint; `hubcore.units.load(NAME, layer=6)` fetches it.

    Example:
        >>> CodebookSource("https://example.org/km100.safetensors", layer=6, clusters=100).layer
        6
    """

    uri: str
    """As that of a `Source`."""
    layer: int
    """The index of the layer that it is for."""
    sha256: str | None = None
    """64 hex digits of the file's SHA-256; None until somebody has published or pinned it."""
    size: int | None = None
    """The file's size in bytes; None if unknown."""
    clusters: int | None = None
    """The number of its centroids; needed only where a layer has several codebooks."""

    @property
    def source(self) -> Source:
        """The place of the file."""
        return Source(self.uri, self.sha256, self.size)


@dataclass(frozen=True)
class UpstreamShape:
    """Layers, widths and frame rate of an upstream, known from its config alone; `hubcore info` shows them.

    Example:
        >>> from hubcore_fbank import CONFIGS
        >>> CONFIGS["fbank"].upstream_shape
        UpstreamShape(layer_names=('features',), hidden_sizes=(240,), frame_stride=160, sample_rate=16000)
    """

    layer_names: tuple[str, ...]
    """One name for each hidden state."""
    hidden_sizes: tuple[int, ...]
    """The width `D` of each hidden state."""
    frame_stride: int | None
    """Samples from one frame to the next; None where that depends on the input."""
    sample_rate: int
    """Samples per second of the waveforms, in Hz."""


@dataclass(frozen=True)
class Card:
    """Record of one checkpoint: its name, its class, its sources and its licence.

    Example:
        >>> Card(name="fbank", upstream="fbank", license="none needed").needs_weights
        False
    """

    name: str
    """The name `hub.load` takes: lower-case letters, digits, `_`, `-`, `.`."""
    upstream: str
    """Entry-point name of the family, hence the class."""
    license: str
    """Licence of the weights, `unknown` if it was never stated."""
    config: str | None = None
    """A named config of the family; the checkpoint's own config is checked against it."""
    parameters: int | None = None
    """Number of weights of the encoder; None if unknown."""
    aliases: tuple[str, ...] = ()
    """Other names of the same record."""
    sources: tuple[Source, ...] = ()
    """Addresses of the checkpoint, tried in order; none if the family needs no weights."""
    codebooks: tuple[CodebookSource, ...] = ()
    """Files of centroids of its layers, for discrete units."""
    training_data: str | None = None
    """Data that the weights were trained on."""
    languages: tuple[str, ...] = ()
    """Languages of these data, as codes such as `en`; `mul` stands for many that are not listed."""
    hours: float | None = None
    """Hours of speech in these data, of pre-training where there was one; None if unknown."""
    frame_stride: int | None = None
    """Samples from one frame to the next; None if unknown, or where it depends on the input."""
    paper: str | None = None
    """The paper's address."""
    note: str | None = None
    """Remark that a user should read before using it."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Default options of `hub.load`, overridden by the caller's; `layers` is what `forward` returns by default."""
    overrides: str | None = None
    """The distribution whose card of this name a user's own takes the place of, such as `hubcore`."""
    file: str | None = None
    """The registry file that holds this record."""
    line: int | None = None
    """The record's line in that file."""
    distribution: str | None = None
    """The installed distribution that the registry file belongs to; None for a user's own file."""

    @property
    def needs_weights(self) -> bool:
        """True if a checkpoint must be fetched before this upstream can run."""
        return bool(self.sources)

    @property
    def commercial_ok(self) -> bool:
        """True if the licence is known to allow commercial use; an unknown or a non-commercial one is not.

        Example:
            >>> [Card(name="a", upstream="b", license=x).commercial_ok for x in ("Apache-2.0", "CC-BY-NC-4.0", "unknown")]
            [True, False, False]
        """
        return any(fnmatch.fnmatchcase(self.license.lower(), pattern) for pattern in _COMMERCIAL_OK)

    def has_language(self, code: str) -> bool:
        """True if a language is among those of the training data, or may be, where they are `mul`.

        Example:
            >>> [Card(name="a", upstream="b", license="c", languages=x).has_language("zh") for x in (("en",), ("mul",), ())]
            [False, True, False]
        """
        return not {code.lower(), "mul"}.isdisjoint(self.languages)
