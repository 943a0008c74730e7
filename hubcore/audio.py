"""Audio files as waveforms: `load_audio`, `probe`, `find_audio`. Decoding is libsndfile's, resampling is soxr's.

Nothing is passed over in silence: a file that is cut off, empty, or not finite is an `AudioError` that names it, and a
resampling or an averaging of channels is logged once. Shapes: `T` samples, `C` channels.
"""

from __future__ import annotations

import contextlib
import logging
import os
import stat
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile
import soxr
import torch
from numpy.typing import NDArray
from torch import Tensor

from hubcore.audio_length import mpeg_samples, shortage
from hubcore.errors import AudioError
from hubcore.text import printable

_EXTENSIONS = "aif aifc aiff au caf flac mp3 nist oga ogg opus rf64 snd sph voc w64 wav wave wavex"
AUDIO_EXTENSIONS = frozenset(_EXTENSIONS.split())
"""File name endings, in lower case, that `find_audio` looks for; what decides how a file is read is its content."""

_BLOCK = 1 << 26
"""Samples decoded at a time, over an hour at 16 kHz, so that a forged length in a header cannot ask for any memory."""
_LOWEST_RATE, _HIGHEST_RATE = 1000, 768_000
_LONGEST_NAME = 300
"""Characters of a path that a message about its length shows."""
_ABSURD_FRAMES = 1 << 40
"""libsndfile's way to say that a FLAC stream does not state its length is a number far above this."""

_log = logging.getLogger("hubcore.audio")
_said: set[tuple[str, int, int]] = set()
_said_lock = threading.Lock()


@dataclass(frozen=True)
class AudioInfo:
    """What the header of an audio file says.

    Example:
        >>> AudioInfo("a.wav", seconds=2.0, sample_rate=8000, channels=1, frames=16000, format="WAV").samples_at(16000)
        32000
    """

    path: str
    """The file."""
    seconds: float
    """Its duration."""
    sample_rate: int
    """Its own rate in Hz."""
    channels: int
    """Its number of channels."""
    frames: int
    """Samples of each channel; counted, not stated, in an MP3 file without a length record."""
    format: str
    """libsndfile's name of the container, such as `WAV` or `FLAC`."""

    def samples_at(self, sample_rate: int) -> int:
        """The number of samples that `load_audio` gives at `sample_rate` Hz."""
        if sample_rate == self.sample_rate:
            return self.frames
        return int(self.frames * sample_rate / self.sample_rate + 0.5)


def load_audio(path: str | os.PathLike[str], sample_rate: int = 16000) -> Tensor:
    """The waveform of a file: `(T,)` float32, one channel, at `sample_rate` Hz, full scale being 1.0.

    Any rate is resampled (soxr, quality HQ) and any number of channels averaged; each is logged once in a process, as a
    warning of the logger `hubcore.audio`, since either may not be what was meant. Integers are divided by their full
    scale, floats are taken as they are.

    Args:
        path: any file that libsndfile reads (WAV, FLAC, OGG, MP3, AIFF, ...).
        sample_rate: the rate wanted, in Hz.

    Raises:
        AudioError: missing, a directory, not audio, empty, cut off, damaged, NaN or infinite; it names the file.

    Example:
        >>> import soundfile, tempfile, pathlib
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "a.wav"
        >>> soundfile.write(path, [0.5, -0.5, 0.25], 16000)
        >>> load_audio(path)
        tensor([ 0.5000, -0.5000,  0.2500])
    """
    if not _LOWEST_RATE <= sample_rate <= _HIGHEST_RATE:
        raise AudioError(
            f"sample_rate is {sample_rate}. It must be a rate in Hz from {_LOWEST_RATE} to {_HIGHEST_RATE}. "
            "Pass the upstream's own: model.sample_rate."
        )
    with _opened(path) as (sound, info, exact):
        samples = _decode(sound, info, exact)
    bad = np.flatnonzero(~np.isfinite(samples))
    if len(bad):
        raise AudioError(
            f"{info.path} has {len(bad)} samples that are not finite; the first is sample {bad[0]}, {samples[bad[0]]}. "
            "One such sample spoils every feature of the file. Repair the audio, or leave the file out."
        )
    if info.channels > 1:
        averaging = f"averaging {info.channels} channels to one; the first such file is {info.path}"
        _say_once("channels", info.channels, 1, averaging)
    if info.sample_rate != sample_rate:
        resampling = f"resampling {info.sample_rate} Hz to {sample_rate} Hz (soxr HQ); the first such file is {info.path}"
        _say_once("rate", info.sample_rate, sample_rate, resampling)
        samples = soxr.resample(samples, info.sample_rate, sample_rate, quality="HQ")
        if not len(samples):
            raise AudioError(
                f"{info.path} has {info.frames} samples at {info.sample_rate} Hz. "
                f"That is less than one sample at {sample_rate} Hz. Leave the file out."
            )
    return torch.from_numpy(np.ascontiguousarray(samples, dtype=np.float32))


def probe(path: str | os.PathLike[str]) -> AudioInfo:
    """What the header of an audio file says, without decoding it.

    Raises:
        AudioError: missing, a directory, not audio, empty, or shorter than its header promises; it names the file.

    Example:
        >>> import soundfile, tempfile, pathlib
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "a.flac"
        >>> soundfile.write(path, [0.0] * 4000, 8000)
        >>> probe(path).seconds, probe(path).samples_at(16000)
        (0.5, 8000)
    """
    with _opened(path) as (_, info, _):
        return info


def find_audio(paths: Iterable[str | os.PathLike[str]]) -> list[Path]:
    """The audio files among `paths`: files as they are, folders searched to any depth, in a fixed order, none twice.

    In a folder, files are taken by their ending (`AUDIO_EXTENSIONS`, in any case) and hidden ones are skipped; symbolic
    links are followed, once each.

    Raises:
        AudioError: a path does not exist or cannot be reached, or a folder holds no audio file or cannot be listed.

    Example:
        >>> import tempfile, pathlib
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> for name in ("b.wav", "a.FLAC", "notes.txt", ".hidden.wav"):
        ...     (folder / name).touch()
        >>> [path.name for path in find_audio([folder])]
        ['a.FLAC', 'b.wav']
    """
    found: dict[str, Path] = {}
    for given in paths:
        path = Path(given)
        if stat.S_ISDIR(_mode(path)):
            inside = list(_walk(path))
            if not inside:
                raise AudioError(
                    f"{printable(path)} is a folder without an audio file. Files are found by their ending: "
                    f"{', '.join(sorted(AUDIO_EXTENSIONS))}. Name the files themselves if theirs is another."
                )
        else:
            inside = [path]
        for file in inside:
            found.setdefault(os.path.realpath(file), file)
    return list(found.values())


def _mode(path: Path) -> int:
    """The mode of what is at `path`."""
    name = printable(path)
    try:
        return os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError) as error:
        raise AudioError(f"{name} does not exist. Nothing was read. Check the spelling and the folder.") from error
    except (OSError, ValueError) as error:
        shown = name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}... ({len(name)} characters)"
        raise AudioError(
            f"{shown} cannot be reached: {_reason(error)} Nothing was read. Check the spelling, and the permissions of its "
            "folders."
        ) from error


def _walk(folder: Path) -> Iterator[Path]:
    def refused(error: OSError) -> None:
        # A folder passed over would be utterances missing from the features, with nothing to show for it.
        where = printable(error.filename or folder)
        raise AudioError(
            f"{where} cannot be listed: {_reason(error)} Audio in it would be left out. Make the folder readable, or name "
            "the folders that you mean one by one."
        ) from error

    seen: set[str] = set()
    for root, folders, files in os.walk(folder, onerror=refused, followlinks=True):
        real = os.path.realpath(root)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            ending = name.rpartition(".")[2].lower()
            if not name.startswith(".") and "." in name and ending in AUDIO_EXTENSIONS:
                yield Path(root, name)


@contextlib.contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[tuple[soundfile.SoundFile, AudioInfo, bool]]:
    """A decoder, its checked header, and whether the header's length is exact."""
    name = printable(path)
    with _open_regular(path, name) as file:
        if os.fstat(file.fileno()).st_size == 0:
            raise AudioError(f"{name} is empty, 0 bytes. An audio file has a header and samples. Fetch it again.")
        missing = shortage(file)
        try:
            # By descriptor, since then the content alone decides the format and names need not be UTF-8. The descriptor's
            # own position counts; a seek of the buffered file may not move it.
            os.lseek(file.fileno(), 0, os.SEEK_SET)
            sound = soundfile.SoundFile(file.fileno(), closefd=False)
        except (soundfile.SoundFileError, TypeError, ValueError, OSError) as error:
            if missing:
                raise _cut_off(name, missing) from error
            raise AudioError(
                f"{name} cannot be opened as audio: {_reason(error)} Its content is not a format that libsndfile "
                "reads, or its header is damaged. Convert it to WAV or FLAC, or leave it out."
            ) from error
        with sound:
            frames, exact = sound.frames, True
            if sound.format == "MP3":
                counted = mpeg_samples(file)
                frames, exact = (frames, True) if counted is None else (counted, False)
            _check_header(name, sound, frames, missing)
            yield (
                sound,
                AudioInfo(name, frames / sound.samplerate, sound.samplerate, sound.channels, frames, sound.format),
                exact,
            )


def _open_regular(path: str | os.PathLike[str], name: str) -> BinaryIO:
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISDIR(mode):
            raise AudioError(f"{name} is a folder. One file is needed here. Name a file, or list it with find_audio.")
        if not stat.S_ISREG(mode):
            raise AudioError(f"{name} is not a regular file. Its length cannot be known. Copy it into a file first.")
        return open(path, "rb")
    except FileNotFoundError as error:
        raise AudioError(f"{name} does not exist. Nothing was read. Check the spelling and the folder.") from error
    except (OSError, ValueError) as error:
        if isinstance(error, AudioError):
            raise
        raise AudioError(f"{name} cannot be opened: {_reason(error)} Check its permissions and its name.") from error


def _check_header(name: str, sound: soundfile.SoundFile, frames: int, missing: str | None) -> None:
    if missing:
        raise _cut_off(name, missing)
    if frames <= 0:
        raise AudioError(f"{name} has a header and no samples. There is nothing to compute. Leave it out.")
    if frames > _ABSURD_FRAMES:
        raise AudioError(
            f"{name} does not state its length. It was written as a stream, so nothing shows whether it is whole. "
            "Write it again into a file, as `sox` or `ffmpeg` do."
        )
    if not _LOWEST_RATE <= sound.samplerate <= _HIGHEST_RATE:
        raise AudioError(
            f"{name} has a sample rate of {sound.samplerate} Hz. Rates from {_LOWEST_RATE} to {_HIGHEST_RATE} Hz are "
            "read. Its header is probably damaged: fetch or make it again."
        )


def _cut_off(name: str, missing: str) -> AudioError:
    return AudioError(
        f"{name} is cut off: {missing}. What is left would be a shorter utterance than the one recorded. "
        "Fetch or make it again; if you know it to be whole, convert it to FLAC."
    )


def _decode(sound: soundfile.SoundFile, info: AudioInfo, exact: bool) -> NDArray[np.float32]:
    """`(T,)` samples, the mean of the channels, at the file's own rate."""
    blocks: list[NDArray[np.float32]] = []
    count = 0
    try:
        while True:
            block = sound.read(max(1, _BLOCK // info.channels), dtype="float32", always_2d=True)  # (T, C)
            if not len(block):
                break
            count += len(block)
            with np.errstate(invalid="ignore", over="ignore"):
                blocks.append(block[:, 0] if info.channels == 1 else block.mean(axis=1, dtype=np.float32))
    except (soundfile.SoundFileError, RuntimeError, ValueError) as error:
        raise AudioError(
            f"{info.path} is damaged: its {info.frames} samples could not all be decoded. {_reason(error)} "
            "What is left would not be the utterance recorded. Fetch or make it again."
        ) from error
    # A count of MPEG frames may differ from what is decoded by a first frame that refers to audio before the file.
    tolerated = 0 if exact else 2 * 1152
    if count < info.frames - tolerated:
        raise _cut_off(info.path, f"{info.frames} samples are promised, {count} could be decoded")
    return np.concatenate(blocks)


def _reason(error: Exception) -> str:
    """What a library said, as one sentence."""
    if isinstance(error, soundfile.LibsndfileError):
        # Code 7 is "not a regular file", which an MP3 cut within its first second gets too.
        text = "no audio could be found in it" if error.code == 7 else error.error_string
    elif isinstance(error, OSError) and error.strerror:
        text = error.strerror
    else:
        text = str(error)
    return f"{text.strip().rstrip('.') or type(error).__name__}."


def _say_once(what: str, found: int, wanted: int, message: str) -> None:
    with _said_lock:
        new = (what, found, wanted) not in _said
        _said.add((what, found, wanted))
    if new:
        _log.warning("%s", message)
