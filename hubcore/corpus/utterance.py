"""`Utterance`: a name, and where its samples are; `File` and the other sources of samples."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from hubcore.audio import AudioInfo, load_audio, probe
from hubcore.text import path_text

if TYPE_CHECKING:
    from torch import Tensor

NO_STAMP = (-1, -1)
"""The stamp of a source that has none: it is missing, or a command."""


class Source(Protocol):
    """The place of an audio file: on the disk, or inside of another file."""

    @property
    def given(self) -> str:
        """Its name in messages and manifests, as the user or the list gave it."""
        ...

    def stamp(self) -> tuple[int, int]:
        """Size in bytes and time of change in ns of the file that it is in; `NO_STAMP` if there is none."""
        ...

    def open(self) -> str:
        """The argument of `load_audio` and `probe` that means it."""
        ...


@dataclass(frozen=True)
class File:
    """An audio file.

    Example:
        >>> File("en/1.flac").given
        'en/1.flac'
    """

    path: str
    """Its path."""

    @property
    def given(self) -> str:
        """The path, as UTF-8."""
        return path_text(self.path)

    def stamp(self) -> tuple[int, int]:
        """Size and time of change; of the file it leads to if it is a link."""
        return stamp_of(self.path)

    def open(self) -> str:
        """The path."""
        return self.path


@dataclass(frozen=True)
class Utterance:
    """One utterance of a corpus.

    Example:
        >>> import soundfile, tempfile
        >>> path = os.path.join(tempfile.mkdtemp(), "a.wav")
        >>> soundfile.write(path, [0.5, -0.5], 16000)
        >>> utterance = Utterance("a", File(path))
        >>> utterance.probe().frames, utterance.read(16000)
        (2, tensor([ 0.5000, -0.5000]))
    """

    name: str
    """Its name, unique in its corpus: that of its list, or its path below the folder it was found in, without the ending."""
    source: Source
    """The audio file."""

    def probe(self) -> AudioInfo:
        """Length and rate, from the header.

        Raises:
            AudioError: there is no such audio; the message names it.
        """
        return probe(self.source.open())

    def read(self, sample_rate: int) -> Tensor:
        """The samples: `(T,)` float32 at `sample_rate` Hz; see `load_audio`.

        Raises:
            AudioError: there is no such audio; the message names it.
        """
        return load_audio(self.source.open(), sample_rate)


def stamp_of(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Size in bytes and time of modification in ns of a file; `NO_STAMP` if there is none.

    Example:
        >>> stamp_of("/no/such/file")
        (-1, -1)
    """
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return NO_STAMP
    return status.st_size, status.st_mtime_ns
