"""Audio files as waveforms: `load_audio`, `probe`, `find_audio`. Decoding is libsndfile's, resampling is soxr's.

Nothing is passed over in silence: a file that is cut off, joined to another, empty, or not finite is an `AudioError` that
names it, and a resampling or an averaging of channels is logged once. libsndfile reads a WAV file that was cut in half as a
shorter WAV file, and of joined files the first; `shortage` and `unread` compare what a header says with what is there.
Parts of a file are read without the rest where libsndfile can seek. Shapes: `T` samples, `C` channels.
"""

from __future__ import annotations

import contextlib
import os
import stat
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, overload

import numpy as np
import soundfile
import soxr
import torch
from numpy.typing import NDArray
from torch import Tensor

from hubcore.audio_ffmpeg import decode_with_ffmpeg
from hubcore.audio_headers import (
    Data,
    begins_audio,
    damage,
    fill_in,
    kind_of,
    mpeg_samples,
    mpeg_with_length,
    shortage,
    stated_frames,
    unread,
)
from hubcore.errors import AudioError
from hubcore.text import format_duration, listed, logger, plural, printable

_EXTENSIONS = "aif aifc aiff au caf flac mp3 nist oga ogg opus rf64 snd sph voc w64 wav wave wavex"
AUDIO_EXTENSIONS = frozenset(_EXTENSIONS.split())
"""File name endings, in lower case, that `find_audio` looks for; what decides how a file is read is its content."""
_FOREIGN = """3gp aac ac3 alac amr ape awb dff dsf eac3 g722 gsm m4a m4b mka mkv mov mp1 mp2 mp4 mpc pcm ra raw shn spx tta weba
    webm wma wv wv1 wv2"""
_NOT_READ = frozenset(_FOREIGN.split())
"""Endings of audio that is mostly not read; such files are told, since nobody would miss them otherwise."""
_PACKED = frozenset(("gz", "bz2", "xz", "zst", "zip", "part", "crdownload"))
_MOST_AGAIN = 10_000
"""Times that links may lead to folders searched before; links into one another could do so without end."""
_SHOWN = 20
"""Files that a message names; it counts all."""

_MOST_SAMPLES = 1 << 30
"""Samples of one channel that a file may have to be decoded, 18 hours at 16 kHz, which take 4 GiB, and twice that for a
moment; the few megabytes of FLAC that days of silence take would end the process instead."""
_FIND = 1 << 16
"""Bytes searched at a time."""
_BLOCK = 1 << 26
"""Samples decoded at a time, over an hour at 16 kHz, so that a forged length in a header cannot ask for any memory."""
_LOWEST_RATE, _HIGHEST_RATE = 1000, 768_000
_LONGEST_NAME = 300
"""Characters of a path that a message about its length shows."""
_ABSURD_FRAMES = 1 << 40
"""libsndfile's way to say that a FLAC stream does not state its length is a number far above this."""

_OVERSHOOT = 0.5
"""Seconds that the end of a part may lie beyond the file, as times in lists are rounded. Kaldi: `--max-overshoot`."""
_MP3_FRAME = 1152
_LEAD = dict.fromkeys(("MPEG_LAYER_III", "OPUS"), 32 * _MP3_FRAME)
"""Samples before a part that are decoded too, for codecs whose frames refer to earlier ones: up to 511 bytes back in MP3.
Every read of soundfile ends with a seek, so that what follows in the same file is such a part."""
_CANCELLED = 0.01
"""Share of the energy of channels that averaging leaves at least, compared with unrelated ones; less is opposite phase."""

_log = logger("audio")
_said: set[tuple[object, ...]] = set()
_said_lock = threading.Lock()
_searched: set[tuple[str, int, int]] = set()
"""Name, size and time of change of files of which parts are read, and that were searched to their end."""


@dataclass(frozen=True)
class AudioInfo:
    """Header of an audio file: length, rate and channels.

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


@dataclass(frozen=True)
class Embedded:
    """An audio file that is a stretch of another file, such as a member of a tar archive.

    Example:
        >>> import soundfile, tempfile, pathlib
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "a.tar"
        >>> soundfile.write(path, [0.5, -0.5], 16000, format="WAV")
        >>> _ = path.write_bytes(bytes(512) + path.read_bytes() + bytes(512))
        >>> load_audio(Embedded("a.tar/a.wav", str(path), 512, 48))
        tensor([ 0.5000, -0.5000])
    """

    name: str
    """Its name in messages."""
    path: str
    """The file around it."""
    offset: int
    """Its first byte."""
    size: int
    """Its number of bytes."""


@dataclass(frozen=True)
class AudioBytes:
    """An audio file in memory.

    Example:
        >>> import io, soundfile
        >>> file = io.BytesIO()
        >>> soundfile.write(file, [0.5, -0.5], 16000, format="WAV")
        >>> load_audio(AudioBytes("a", file.getvalue()))
        tensor([ 0.5000, -0.5000])
    """

    name: str
    """Its name in messages."""
    data: bytes
    """The file."""


Audio = str | os.PathLike[str] | Embedded | AudioBytes
"""An audio file: its path, or a place that is no file of its own."""


def load_audio(
    audio: Audio,
    sample_rate: int = 16000,
    *,
    start: float = 0.0,
    end: float | None = None,
    channel: int | None = None,
    ffmpeg: bool = False,
) -> Tensor:
    """The waveform of a file, or of a part of it: `(T,)` float32, one channel, at `sample_rate` Hz, full scale being 1.0.

    Any rate is resampled (soxr, quality HQ) and any number of channels averaged; each is logged once in a process, as a
    warning of the logger `hubcore.audio`, since either may not be what was meant. Channels that cancel each other are told
    file by file. Integers are divided by their full scale, floats are taken as they are.

    A part is cut out at the file's own rate and then resampled, as if it had been a file of its own. Only it is decoded, where
    libsndfile can seek; of Opus, whose decoder starts anew there, samples may differ by 0.004.

    Args:
        audio: any file that libsndfile reads (WAV, FLAC, OGG, MP3, AIFF, ...).
        sample_rate: the rate wanted, in Hz.
        start: where the part begins, in seconds, to the nearest sample.
        end: where it ends, which may be up to half a second beyond the file; the file's end if None.
        channel: the one to read, from 0; the mean of all if None.
        ffmpeg: decode with FFmpeg what libsndfile does not read (m4a, aac, wma, g722, ...); all of it, for a part too.

    Raises:
        AudioError: missing, a directory, not audio, empty, cut off, joined, damaged, NaN or infinite; no such part or channel.
            It names the file.

    Example:
        >>> import soundfile, tempfile, pathlib
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "a.wav"
        >>> soundfile.write(path, [0.5, -0.5, 0.25], 16000)
        >>> load_audio(path), load_audio(path, start=1 / 16000)
        (tensor([ 0.5000, -0.5000,  0.2500]), tensor([-0.5000,  0.2500]))
    """
    if not _LOWEST_RATE <= sample_rate <= _HIGHEST_RATE:
        what = f"sample_rate is {sample_rate}. It must be a rate in Hz from {_LOWEST_RATE} to {_HIGHEST_RATE}."
        raise AudioError(what, fix="Pass the upstream's own: model.sample_rate.")
    try:
        if ffmpeg and _is_foreign(audio):
            samples, info, first = _decode_foreign(audio, start, end, channel)
            return _finish(samples, info, first, sample_rate, channel)
        with _opened(audio, decode=True, part=start > 0 or end is not None) as (sound, whole, exact):
            info, first = _part(whole, start, end, channel)
            if info.frames > _MOST_SAMPLES:
                what = f"{info.path} has {info.frames} samples ({format_duration(info.seconds)}), more than {_MOST_SAMPLES}."
                raise AudioError(what, fix="Cut it into shorter files.")
            # Of a whole file whose length was counted, all that can be decoded is taken.
            most = info.frames if exact or info.frames < whole.frames else _ABSURD_FRAMES
            samples = _decode(sound, info, exact, first, most, channel)
    except MemoryError as error:  # a few megabytes of FLAC may be days of silence
        raise AudioError(f"{_name(audio)} does not fit into memory.", fix="Cut it into shorter files.") from error
    return _finish(samples, info, first, sample_rate, channel)


def _finish(samples: NDArray[np.float32], info: AudioInfo, first: int, sample_rate: int, channel: int | None) -> Tensor:
    """The samples, checked and resampled."""
    bad = np.flatnonzero(~np.isfinite(samples))
    if len(bad):
        first_bad = f"the first is sample {first + bad[0]}, {samples[bad[0]]}"
        what = f"{info.path} is not finite in {plural(len(bad), 'sample')}; {first_bad}."
        raise AudioError(what, fix="Repair the audio, or leave the file out.")
    if info.channels > 1 and channel is None:
        _say_once(f"averaging {info.channels} channels to one; the first such file is {info.path}", info.channels)
    if info.sample_rate != sample_rate:
        resampling = f"resampling {info.sample_rate} Hz to {sample_rate} Hz (soxr HQ); the first such file is {info.path}"
        _say_once(resampling, info.sample_rate, sample_rate)
        samples = soxr.resample(samples, info.sample_rate, sample_rate, quality="HQ")
        if not len(samples):
            what = (
                f"{info.path} has {plural(info.frames, 'sample')} at {info.sample_rate} Hz, less than one at {sample_rate} Hz."
            )
            raise AudioError(what, fix="Leave the file out.")
    return torch.from_numpy(np.ascontiguousarray(samples, dtype=np.float32))


def probe(
    audio: Audio, *, start: float = 0.0, end: float | None = None, channel: int | None = None, ffmpeg: bool = False
) -> AudioInfo:
    """Reads the header of an audio file without decoding it; of a part, its length.

    Args:
        audio: the file.
        start: see `load_audio`.
        end: see `load_audio`.
        channel: see `load_audio`.
        ffmpeg: see `load_audio`. Such a file is decoded.

    Raises:
        AudioError: missing, a directory, not audio, empty, or shorter than its header promises; no such part or channel. It
            names the file.

    Example:
        >>> import soundfile, tempfile, pathlib
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "a.flac"
        >>> soundfile.write(path, [0.0] * 4000, 8000)
        >>> probe(path).seconds, probe(path).samples_at(16000)
        (0.5, 8000)
    """
    if ffmpeg and _is_foreign(audio):
        return _decode_foreign(audio, start, end, channel)[1]
    with _opened(audio) as (_, info, _):
        return _part(info, start, end, channel)[0]


def _is_foreign(audio: Audio) -> bool:
    """True if a file is of a format that FFmpeg reads and libsndfile does not, by its content or its ending."""
    name = _name(audio)
    with _open(audio, name) as file:
        known = kind_of(_bytes(audio, file, name))
    return (known is not None and "ffmpeg" in known[1]) or is_audio_name(os.path.basename(name)) is False


def _decode_foreign(
    audio: Audio, start: float, end: float | None, channel: int | None
) -> tuple[NDArray[np.float32], AudioInfo, int]:
    """`(T,)` samples of a part that FFmpeg decodes, its length and its first sample."""
    name = _name(audio)
    with _open(audio, name) as file:
        data = _bytes(audio, file, name)
        if not len(data):
            raise _empty(name)
        samples, rate = decode_with_ffmpeg(data, name)  # (C, T)
    channels, frames = samples.shape
    info, first = _part(AudioInfo(name, frames / rate, rate, channels, frames, "FFmpeg"), start, end, channel)
    part = samples[:, first : first + info.frames]
    return (part.mean(axis=0, dtype=np.float32) if channel is None else part[channel]), info, first


def _part(info: AudioInfo, start: float, end: float | None, channel: int | None) -> tuple[AudioInfo, int]:
    """The length of a part of a file, in its header, and its first sample."""
    first = round(start * info.sample_rate)
    last = info.frames if end is None else round(end * info.sample_rate)
    if channel is not None and channel >= info.channels:
        what = f"{info.path} has {plural(info.channels, 'channel')}, so no channel {channel}, as they are counted from 0."
        raise AudioError(what, fix="Correct the channel.")
    if first >= info.frames or last > info.frames + _OVERSHOOT * info.sample_rate:
        asked = f"from {start:g} s on" if end is None else f"from {start:g} to {end:g} s"
        what = f"{info.path} has {info.seconds:.3f} s, and the part {asked} goes beyond its end."
        raise AudioError(what, fix="Correct the times, or fetch the file again if it should be longer.")
    last = min(last, info.frames)
    if first >= last:
        raise AudioError(f"{info.path}: the part from {start:g} to {end:g} s has no sample.", fix="Correct the times.")
    return replace(info, frames=last - first, seconds=(last - first) / info.sample_rate), first


def find_audio(paths: Iterable[str | os.PathLike[str]], *, ffmpeg: bool = False) -> list[Path]:
    """The audio files among `paths`: files as they are, folders searched to any depth, in a fixed order, no name twice.

    In a folder, files are taken by their ending (`AUDIO_EXTENSIONS`, in any case) and hidden ones are skipped; symbolic
    links are followed, and a file with two names is found under both. What has the ending of audio that is not read is
    counted and named in a warning of the logger `hubcore.audio`, or found too, if it is for `ffmpeg`.

    Raises:
        AudioError: paths do not exist or cannot be reached, or a folder holds no audio file or cannot be listed.

    Example:
        >>> import tempfile, pathlib
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> for name in ("b.wav", "a.FLAC", "notes.txt", ".hidden.wav"):
        ...     (folder / name).touch()
        >>> [path.name for path in find_audio([folder])]
        ['a.FLAC', 'b.wav']
    """
    given = [Path(path) for path in paths]
    check_exist(given)
    found: dict[str, Path] = {}
    for path in given:
        inside, not_read = _search(path, ffmpeg) if _is_folder(path) else ([path], [])
        if not_read:
            what = f"{plural(len(not_read), 'file')} in {printable(path)} may be audio but cannot be read"
            _log.warning("%s: %s. `ffmpeg -i IN OUT.wav` converts most formats.", what, listed(not_read, _SHOWN))
        if not inside:
            raise AudioError(
                f"{printable(path)} is a folder without an audio file. Files are found by their ending: "
                f"{', '.join(sorted(AUDIO_EXTENSIONS))}.",
                fix="Name the files themselves if theirs is another.",
            )
        for file in inside:
            found.setdefault(full_name(file), file)
    return list(found.values())


def check_exist(paths: Iterable[Path]) -> None:
    """Raises an `AudioError` that names every one of `paths` that does not exist; a link that leads nowhere does.

    Example:
        >>> check_exist([Path("/")])
    """
    missing = [printable(path) for path in paths if _is_folder(path) is None]
    if missing:
        do = "does" if len(missing) == 1 else "do"
        raise AudioError(f"{', '.join(missing)} {do} not exist.", fix="Check the spelling and the folder.")


def full_name(path: str | os.PathLike[str]) -> str:
    """The absolute name of a file: links are not followed, as two of them to one file are two names.

    Example:
        >>> full_name("/corpus/./a.wav")
        '/corpus/a.wav'
    """
    folder, name = os.path.split(os.path.join(os.getcwd(), path))
    # Only the file system knows where `..` leads to, if what stands before it is a link.
    return os.path.join(os.path.realpath(folder) if ".." in Path(folder).parts else os.path.normpath(folder), name)


def is_audio_name(name: str) -> bool | None:
    """True if a file of this name is audio that is read, False if it may be audio that is not, None if it is none or hidden.

    Example:
        >>> is_audio_name("a.FLAC"), is_audio_name("a.m4a"), is_audio_name("a.txt")
        (True, False, None)
    """
    stem, dot, ending = name.lower().rpartition(".")
    if name.startswith(".") or not dot:
        return None
    if ending in AUDIO_EXTENSIONS:
        return True
    packed = ending in _PACKED and stem.rpartition(".")[2] in AUDIO_EXTENSIONS
    return False if ending in _NOT_READ or packed else None


def _is_folder(path: str | os.PathLike[str]) -> bool | None:
    """None if there is no such path. A link that leads nowhere is a file, to be told like any that cannot be used."""
    try:
        with _reaching(path):
            return stat.S_ISDIR(os.stat(path).st_mode)
    except AudioError as error:
        if isinstance(error.__cause__, FileNotFoundError | NotADirectoryError):
            return False if os.path.islink(path) else None
        raise


def _search(top: Path, ffmpeg: bool) -> tuple[list[Path], list[str]]:
    """The audio files in a folder, and the names of those that may be audio too but are not read."""

    def refused(error: OSError) -> None:
        # A folder passed over would be utterances missing from the features, with nothing to show for it.
        what = f"{printable(error.filename or top)} cannot be listed: {_reason(error)} Audio in it would be left out."
        raise AudioError(what, fix="Make it readable, or name the folders that you mean one by one.") from error

    found: list[Path] = []
    not_read: list[str] = []
    above: dict[str, tuple[str, ...]] = {}  # for each folder the real names of itself and of those above
    again, seen = 0, set[str]()
    for root, folders, files in os.walk(top, onerror=refused, followlinks=True):
        real, parents = os.path.realpath(root), above.get(os.path.dirname(root), ())
        if real in parents:  # a link to a folder that it is in
            folders.clear()
            continue
        above[root] = (*parents, real)
        again += real in seen
        seen.add(real)
        if again > _MOST_AGAIN:
            what = f"{printable(top)} has links that lead to the same folders more than {_MOST_AGAIN} times."
            raise AudioError(what, fix="Name the folders that you mean one by one.")
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            path = Path(root, name)
            audio = is_audio_name(name)
            if audio or (ffmpeg and audio is False and name.lower().rpartition(".")[2] in _NOT_READ):
                found.append(path)
            elif audio is False:
                not_read.append(printable(path.relative_to(top)))
            elif "." not in name and path.is_symlink() and not path.exists():  # perhaps to a folder
                not_read.append(f"{printable(path.relative_to(top))} (a link that leads nowhere)")
    return found, not_read


# Decoding ------------------------------------------------------------------------------------------------------------


class _Bytes:
    """A file's bytes by position, which a decoder may read in its place. It is not mapped, so that a file cut short meanwhile,
    or a disk that fails, is an error and no dead process. What is written to the bytes never reaches the file.
    """

    def __init__(self, file: BinaryIO, name: str, part: tuple[int, int] | None = None) -> None:
        there = file.seek(0, os.SEEK_END)
        offset, size = part or (0, there)
        self._file, self._name, self._offset, self._at = file, name, offset, 0
        self._size = max(0, min(size, there - offset))
        self._written = (0, b"")

    def __len__(self) -> int:
        return self._size

    @overload
    def __getitem__(self, place: int) -> int: ...
    @overload
    def __getitem__(self, place: slice) -> bytes: ...
    def __getitem__(self, place: int | slice) -> int | bytes:
        start, stop, _ = (place if isinstance(place, slice) else slice(place, place + 1)).indices(self._size)
        found = self._read(start, max(0, stop - start))
        if len(found) < stop - start:
            raise _cut_off(self._name, f"it had {self._size} bytes when it was opened, and then fewer")
        return found if isinstance(place, slice) else found[0]

    def __setitem__(self, place: slice, value: bytes) -> None:
        self._written = (place.start, value)

    def find(self, wanted: bytes, start: int, end: int | None = None) -> int:
        """The first byte from `start` on where `wanted` begins; -1 if there is none before `end`."""
        end = self._size if end is None else min(end, self._size)
        for at in range(start, end, _FIND):
            found = self[at : min(at + _FIND + len(wanted) - 1, end)].find(wanted)
            if found >= 0:
                return at + found
        return -1

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> None:
        """Moves to a byte, as decoders do."""
        self._at = max(0, offset + (0, self._at, self._size)[whence])

    def tell(self) -> int:
        """The byte that is read next."""
        return self._at

    def read(self, count: int) -> bytes:
        """The next bytes, fewer at the end."""
        found = self._read(self._at, count)
        self._at += len(found)
        return found

    def _read(self, start: int, count: int) -> bytes:
        try:
            self._file.seek(self._offset + start)
            found = self._file.read(max(0, min(count, self._size - start)))
        except OSError as error:
            what = f"{self._name} cannot be read: {_reason(error)}"
            raise AudioError(what, fix="Check its disk, or fetch it again.") from error
        at, new = self._written
        first, last = max(start, at), min(start + len(found), at + len(new))
        return found[: first - start] + new[first - at : last - at] + found[last - start :] if first < last else found


@contextlib.contextmanager
def _opened(audio: Audio, *, decode: bool = False, part: bool = False) -> Iterator[tuple[soundfile.SoundFile, AudioInfo, bool]]:
    """A decoder, its checked header, and whether the header's length is exact.

    Args:
        audio: the file.
        decode: whether it is to be decoded, before which all of it is searched for damage.
        part: whether only a part is; then it is searched once, and not for each of its parts.
    """
    name = _name(audio)
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(_open(audio, name))
        plain = not isinstance(audio, Embedded | AudioBytes)
        # The decoder reads from where the descriptor stands, so that what is read beside it needs one of its own.
        beside = stack.enter_context(_open(audio, name)) if plain else file
        data = _bytes(audio, beside, name)
        if not len(data):
            raise _empty(name)
        streamed = fill_in(data)
        status = os.fstat(file.fileno()) if part and not isinstance(audio, AudioBytes) else None
        stamp = status and (name, status.st_size, status.st_mtime_ns)
        whole = decode and stamp not in _searched
        try:
            # By descriptor, since then the content alone decides the format and names need not be UTF-8.
            sound = stack.enter_context(soundfile.SoundFile(file.fileno() if plain and not streamed else data, closefd=False))
        except (soundfile.SoundFileError, TypeError, ValueError, OSError) as error:
            known = kind_of(data)
            if known:
                raise AudioError(f"{name} is {known[0]}.", fix=known[1]) from error
            _check_length(name, data, whole)
            what = f"{name} cannot be opened as audio: {_reason(error)} libsndfile does not read its content or its header."
            raise AudioError(what, fix="Convert it to WAV or FLAC, or leave it out.") from error
        _check_length(name, data, whole)
        if whole and stamp:
            _searched.add(stamp)
        counted = mpeg_samples(data) if sound.subtype == "MPEG_LAYER_III" else None
        if decode and counted is not None and counted > sound.frames:
            sound = stack.enter_context(soundfile.SoundFile(mpeg_with_length(data)))
        frames = stated_frames(data, sound.frames) if counted is None else counted
        _check_header(name, sound, frames)
        if streamed:
            _say_once(f"{name} does not state its length, as a stream; it is read to its end, {plural(frames, 'sample')}", name)
        seconds = frames / sound.samplerate
        info = AudioInfo(name, seconds, sound.samplerate, sound.channels, frames, sound.format)
        yield sound, info, counted is None


def _name(audio: Audio) -> str:
    """The name of an audio file in messages."""
    return printable(audio.name if isinstance(audio, Embedded | AudioBytes) else audio)


def _bytes(audio: Audio, file: BinaryIO, name: str) -> _Bytes:
    """The bytes of the audio in its file."""
    return _Bytes(file, name, (audio.offset, audio.size) if isinstance(audio, Embedded) else None)


def _open(audio: Audio, name: str) -> BinaryIO:
    """The file that the audio is in."""
    if isinstance(audio, AudioBytes):
        return BytesIO(audio.data)
    path, outer = (audio.path, printable(audio.path)) if isinstance(audio, Embedded) else (audio, name)
    with _reaching(path, "opened"):
        mode = os.stat(path).st_mode
        if not stat.S_ISDIR(mode) and stat.S_ISREG(mode):
            return open(path, "rb")
    if stat.S_ISDIR(mode):
        raise AudioError(f"{outer} is a folder, not one file.", fix="Name a file, or list it with find_audio.")
    raise AudioError(f"{outer} is not a regular file, so its length is not known.", fix="Copy it into a file first.")


@contextlib.contextmanager
def _reaching(path: str | os.PathLike[str], done: str = "reached") -> Iterator[None]:
    """Turns an answer of the file system into an `AudioError` that names `path`."""
    name = printable(path)
    try:
        yield
    except (FileNotFoundError, NotADirectoryError) as error:
        if os.path.islink(path):
            what = f"{name} is a link to {printable(os.readlink(path))}, which does not exist."
            raise AudioError(what, fix="Fetch the file it means (`git annex get`, `dvc pull`), or mount its disk.") from error
        raise AudioError(f"{name} does not exist.", fix="Check the spelling and the folder.") from error
    except (OSError, ValueError) as error:
        shown = name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}... ({len(name)} characters)"
        what = f"{shown} cannot be {done}: {_reason(error)}"
        raise AudioError(what, fix="Check the spelling, and the permissions of it and its folders.") from error


def _check_length(name: str, data: Data, whole: bool) -> None:
    """Raises `AudioError` if a file holds less or more audio than it says."""
    missing, more, wrong = shortage(data), unread(data, whole=whole), damage(data, whole=whole)
    if missing:
        raise _cut_off(name, missing)
    if more is None and wrong:
        raise AudioError(f"{name} is damaged: {wrong}.", fix="Fetch or make it again; `ffmpeg -i IN OUT.wav` saves the rest.")
    if more is None:
        return
    count = len(data) - more
    if begins_audio(data[more : more + 4]):
        what = f"{name} is several files joined into one: the last {count} bytes, from byte {more} on, would not be read."
        fix = f"Take it apart: `head -c {more} IN` gives the first, `tail -c +{more + 1} IN` the rest."
    else:
        what = f"{name} says that its samples end at byte {more}, but {count} bytes follow that are no metadata."
        fix = "If they are audio, `sox --ignore-length IN OUT.wav` reads them too; if not, cut them off."
    raise AudioError(what, fix=fix)


def _check_header(name: str, sound: soundfile.SoundFile, frames: int) -> None:
    if frames <= 0:
        raise AudioError(f"{name} has a header and no samples.", fix="Leave it out.")
    if frames > _ABSURD_FRAMES:
        what = f"{name} does not state its length. It was written as a stream, so nothing shows whether it is whole."
        raise AudioError(what, fix="Write it again into a file, as `sox` or `ffmpeg` do.")
    if not _LOWEST_RATE <= sound.samplerate <= _HIGHEST_RATE:
        what = f"{name} has a sample rate of {sound.samplerate} Hz. Rates from {_LOWEST_RATE} to {_HIGHEST_RATE} Hz are read."
        raise AudioError(what, fix="Its header is probably damaged: fetch or make it again.")


def _decode(
    sound: soundfile.SoundFile, info: AudioInfo, exact: bool, first: int, most: int, channel: int | None
) -> NDArray[np.float32]:
    """`(T,)` samples, at most so many from the first on, of a channel or the mean of all, at the file's own rate."""
    blocks: list[NDArray[np.float32]] = []
    before = after = 0.0  # energy of the channels and of their mean
    length = max(1, min(_BLOCK // info.channels, sound.frames))
    count = 0
    try:
        while first and not sound.seekable() and (passed := len(sound.read(min(length, first), dtype="float32"))):
            first -= passed
        while len(block := _read(sound, first + count, min(length, most - count))):  # (T, C)
            count += len(block)
            with np.errstate(invalid="ignore", over="ignore"):
                if channel is not None or info.channels == 1:
                    blocks.append(block[:, channel or 0])
                    continue
                blocks.append(block.mean(axis=1, dtype=np.float32))
                before += float(np.vdot(block, block))
                after += float(np.vdot(blocks[-1], blocks[-1]))
    except (soundfile.SoundFileError, RuntimeError, ValueError, OSError) as error:
        what = f"{info.path} is damaged: not all of its {plural(info.frames, 'sample')} could be decoded. {_reason(error)}"
        raise AudioError(what, fix="Fetch or make it again.") from error
    # A count of MPEG frames may differ from what is decoded by a first frame that refers to audio before the file.
    if count < max(1, info.frames - (0 if exact else 2 * _MP3_FRAME)):
        raise _cut_off(info.path, f"it promises {plural(info.frames, 'sample')}, but {count} could be decoded")
    if after < _CANCELLED * before / info.channels**2:
        _say_once(f"{info.path} has channels that cancel each other when averaged; use one of them alone", info.path, "phase")
    return np.concatenate(blocks)


def _read(sound: soundfile.SoundFile, first: int, length: int) -> NDArray[np.float32]:
    """`(T, C)` samples, at most so many from the first on."""
    lead = min(first, _LEAD.get(sound.subtype, 0)) if sound.seekable() else 0
    if first and sound.seekable():
        sound.seek(first - lead)
    block: NDArray[np.float32] = sound.read(lead + length, dtype="float32", always_2d=True)
    return block[lead:]


def _empty(name: str) -> AudioError:
    return AudioError(f"{name} is empty, 0 bytes.", fix="Fetch it again.")


def _cut_off(name: str, missing: str) -> AudioError:
    return AudioError(
        f"{name} is cut off: {missing}.", fix="Fetch or make it again; if you know it to be whole, convert it to FLAC."
    )


def _reason(error: Exception) -> str:
    """A library's message as one sentence."""
    if isinstance(error, soundfile.LibsndfileError):
        # Code 7 is "not a regular file", which an MP3 cut within its first second gets too.
        text = "no audio could be found in it" if error.code == 7 else error.error_string
    elif isinstance(error, OSError) and error.strerror:
        text = error.strerror
    else:
        text = str(error)
    return f"{text.strip().rstrip('.') or type(error).__name__}."


def _say_once(message: str, *about: object) -> None:
    """Logs a message, unless one about the same was logged before."""
    with _said_lock:
        new = about not in _said
        _said.add(about)
    if new:
        _log.warning("%s", message)
