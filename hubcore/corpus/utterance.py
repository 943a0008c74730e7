"""`Utterance`: a name, and where its samples are; `File` and the other sources of samples."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypedDict

from hubcore.audio import Audio, AudioBytes, AudioInfo, Embedded, load_audio, probe
from hubcore.errors import AudioError
from hubcore.text import path_text, printable

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

    def open(self) -> Audio:
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

    def open(self) -> Audio:
        """The path."""
        return self.path


@dataclass(frozen=True)
class Member:
    """An audio file inside a plain tar archive.

    Example:
        >>> Member("shard-0.tar", "en/1.flac", 512, 9000).given
        'shard-0.tar/en/1.flac'
    """

    archive: str
    """The archive's path."""
    name: str
    """Its name in the archive."""
    offset: int
    """Its first byte in the archive."""
    size: int
    """Its number of bytes."""

    @property
    def given(self) -> str:
        """The path of the archive, then the name in it."""
        return f"{path_text(self.archive)}/{self.name}"

    def stamp(self) -> tuple[int, int]:
        """Its size, and the archive's time of change."""
        size, time = stamp_of(self.archive)
        return (size, time) if size < 0 else (self.size, time)

    def open(self) -> Audio:
        """Its place in the archive."""
        return Embedded(self.given, self.archive, self.offset, self.size)


@dataclass(frozen=True)
class Command:
    """A command of the shell that writes an audio file to its standard output, as in Kaldi's `wav.scp`.

    Example:
        >>> Command("cat a.wav").given
        'cat a.wav |'
    """

    text: str
    """The command, without the `|` at its end."""

    @property
    def given(self) -> str:
        """The command as Kaldi writes it."""
        return f"{self.text} |"

    def stamp(self) -> tuple[int, int]:
        """None: nothing shows when its output changes."""
        return NO_STAMP

    def open(self) -> Audio:
        """Runs it; its output.

        Raises:
            AudioError: it fails, or a command of its pipeline does.
        """
        shell = ("bash", "-o", "pipefail", "-c") if shutil.which("bash") else ("sh", "-c")
        run = subprocess.run((*shell, self.text), stdin=subprocess.DEVNULL, capture_output=True)  # noqa: S603  # allowed by the user
        if run.returncode:
            said = run.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2]
            what = f"{printable(self.given)} ended with status {run.returncode}: {printable(said) or 'it said nothing'}."
            raise AudioError(what, fix="Run it in a shell to see why.")
        return AudioBytes(self.given, run.stdout)


class _Part(TypedDict):
    start: float
    end: float | None
    channel: int | None
    ffmpeg: bool


@dataclass(frozen=True)
class Utterance:
    """One utterance of a corpus: an audio file, or a part of one.

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
    start: float = 0.0
    """Its beginning in the file, in seconds."""
    end: float | None = None
    """Its end, in seconds; the file's end if None."""
    channel: int | None = None
    """The channel it is, from 0; the mean of all if None."""
    ffmpeg: bool = False
    """True if FFmpeg decodes what libsndfile does not read."""

    def probe(self) -> AudioInfo:
        """Length and rate, from the header.

        Raises:
            AudioError: there is no such audio; the message names it.
        """
        return probe(self.source.open(), **self._part())

    def read(self, sample_rate: int) -> Tensor:
        """The samples: `(T,)` float32 at `sample_rate` Hz; see `load_audio`.

        Raises:
            AudioError: there is no such audio; the message names it.
        """
        return load_audio(self.source.open(), sample_rate, **self._part())

    def _part(self) -> _Part:
        return {"start": self.start, "end": self.end, "channel": self.channel, "ffmpeg": self.ffmpeg}


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
