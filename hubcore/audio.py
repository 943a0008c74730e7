"""Audio files as waveforms: `load_audio`, `probe`, `find_audio`. Decoding is libsndfile's, resampling is soxr's.

Nothing is passed over in silence: a file that is cut off, empty, or not finite is an `AudioError` that names it, and a
resampling or an averaging of channels is logged once. libsndfile reads a WAV file that was cut in half as a shorter WAV
file; `shortage` reads the few header bytes that tell the difference. Shapes: `T` samples, `C` channels.
"""

from __future__ import annotations

import contextlib
import logging
import mmap
import os
import stat
import struct
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

_STREAMED = 0x7FFF0000
"""Sizes from here on are what programs write that cannot go back and fill in the true one (ffmpeg, sox into a pipe)."""
_OGG_PAGE = 65307
"""The largest Ogg page in bytes."""
_MP3_FRAME = 1152

_log = logging.getLogger("hubcore.audio")
_said: set[tuple[str, int, int]] = set()
_said_lock = threading.Lock()


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
        what = f"sample_rate is {sample_rate}. It must be a rate in Hz from {_LOWEST_RATE} to {_HIGHEST_RATE}."
        raise AudioError(what, fix="Pass the upstream's own: model.sample_rate.")
    with _opened(path) as (sound, info, exact):
        samples = _decode(sound, info, exact)
    bad = np.flatnonzero(~np.isfinite(samples))
    if len(bad):
        raise AudioError(
            f"{info.path} has {len(bad)} samples that are not finite; the first is sample {bad[0]}, {samples[bad[0]]}.",
            fix="Repair the audio, or leave the file out.",
        )
    if info.channels > 1:
        averaging = f"averaging {info.channels} channels to one; the first such file is {info.path}"
        _say_once("channels", info.channels, 1, averaging)
    if info.sample_rate != sample_rate:
        resampling = f"resampling {info.sample_rate} Hz to {sample_rate} Hz (soxr HQ); the first such file is {info.path}"
        _say_once("rate", info.sample_rate, sample_rate, resampling)
        samples = soxr.resample(samples, info.sample_rate, sample_rate, quality="HQ")
        if not len(samples):
            what = f"{info.path} has {info.frames} samples at {info.sample_rate} Hz, less than one at {sample_rate} Hz."
            raise AudioError(what, fix="Leave the file out.")
    return torch.from_numpy(np.ascontiguousarray(samples, dtype=np.float32))


def probe(path: str | os.PathLike[str]) -> AudioInfo:
    """Reads the header of an audio file without decoding it.

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
        with _reaching(path):
            is_folder = stat.S_ISDIR(os.stat(path).st_mode)
        inside = list(_walk(path)) if is_folder else [path]
        if not inside:
            raise AudioError(
                f"{printable(path)} is a folder without an audio file. Files are found by their ending: "
                f"{', '.join(sorted(AUDIO_EXTENSIONS))}.",
                fix="Name the files themselves if theirs is another.",
            )
        for file in inside:
            found.setdefault(os.path.realpath(file), file)
    return list(found.values())


def _walk(folder: Path) -> Iterator[Path]:
    def refused(error: OSError) -> None:
        # A folder passed over would be utterances missing from the features, with nothing to show for it.
        what = f"{printable(error.filename or folder)} cannot be listed: {_reason(error)} Audio in it would be left out."
        raise AudioError(what, fix="Make it readable, or name the folders that you mean one by one.") from error

    seen: set[str] = set()
    for root, folders, files in os.walk(folder, onerror=refused, followlinks=True):
        real = os.path.realpath(root)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith(".") and "." in name and name.rpartition(".")[2].lower() in AUDIO_EXTENSIONS:
                yield Path(root, name)


# Decoding ------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[tuple[soundfile.SoundFile, AudioInfo, bool]]:
    """A decoder, its checked header, and whether the header's length is exact."""
    name = printable(path)
    with _open_regular(path, name) as file:
        if os.fstat(file.fileno()).st_size == 0:
            raise AudioError(f"{name} is empty, 0 bytes.", fix="Fetch it again.")
        missing = shortage(file)
        try:
            # By descriptor, since then the content alone decides the format and names need not be UTF-8. The descriptor's
            # own position counts; a seek of the buffered file may not move it.
            os.lseek(file.fileno(), 0, os.SEEK_SET)
            sound = soundfile.SoundFile(file.fileno(), closefd=False)
        except (soundfile.SoundFileError, TypeError, ValueError, OSError) as error:
            if missing:
                raise _cut_off(name, missing) from error
            what = f"{name} cannot be opened as audio: {_reason(error)} libsndfile does not read its content or its header."
            raise AudioError(what, fix="Convert it to WAV or FLAC, or leave it out.") from error
        with sound:
            counted = mpeg_samples(file) if sound.format == "MP3" else None
            frames = sound.frames if counted is None else counted
            _check_header(name, sound, frames, missing)
            seconds = frames / sound.samplerate
            info = AudioInfo(name, seconds, sound.samplerate, sound.channels, frames, sound.format)
            yield sound, info, counted is None


def _open_regular(path: str | os.PathLike[str], name: str) -> BinaryIO:
    with _reaching(path, "opened"):
        mode = os.stat(path).st_mode
        if not stat.S_ISDIR(mode) and stat.S_ISREG(mode):
            return open(path, "rb")
    if stat.S_ISDIR(mode):
        raise AudioError(f"{name} is a folder, not one file.", fix="Name a file, or list it with find_audio.")
    raise AudioError(f"{name} is not a regular file, so its length is not known.", fix="Copy it into a file first.")


@contextlib.contextmanager
def _reaching(path: str | os.PathLike[str], done: str = "reached") -> Iterator[None]:
    """Turns an answer of the file system into an `AudioError` that names `path`."""
    name = printable(path)
    try:
        yield
    except (FileNotFoundError, NotADirectoryError) as error:
        raise AudioError(f"{name} does not exist.", fix="Check the spelling and the folder.") from error
    except (OSError, ValueError) as error:
        shown = name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}... ({len(name)} characters)"
        what = f"{shown} cannot be {done}: {_reason(error)}"
        raise AudioError(what, fix="Check the spelling, and the permissions of it and its folders.") from error


def _check_header(name: str, sound: soundfile.SoundFile, frames: int, missing: str | None) -> None:
    if missing:
        raise _cut_off(name, missing)
    if frames <= 0:
        raise AudioError(f"{name} has a header and no samples.", fix="Leave it out.")
    if frames > _ABSURD_FRAMES:
        what = f"{name} does not state its length. It was written as a stream, so nothing shows whether it is whole."
        raise AudioError(what, fix="Write it again into a file, as `sox` or `ffmpeg` do.")
    if not _LOWEST_RATE <= sound.samplerate <= _HIGHEST_RATE:
        what = f"{name} has a sample rate of {sound.samplerate} Hz. Rates from {_LOWEST_RATE} to {_HIGHEST_RATE} Hz are read."
        raise AudioError(what, fix="Its header is probably damaged: fetch or make it again.")


def _decode(sound: soundfile.SoundFile, info: AudioInfo, exact: bool) -> NDArray[np.float32]:
    """`(T,)` samples, the mean of the channels, at the file's own rate."""
    blocks: list[NDArray[np.float32]] = []
    try:
        while len(block := sound.read(max(1, _BLOCK // info.channels), dtype="float32", always_2d=True)):  # (T, C)
            with np.errstate(invalid="ignore", over="ignore"):
                blocks.append(block[:, 0] if info.channels == 1 else block.mean(axis=1, dtype=np.float32))
    except (soundfile.SoundFileError, RuntimeError, ValueError) as error:
        what = f"{info.path} is damaged: its {info.frames} samples could not all be decoded. {_reason(error)}"
        raise AudioError(what, fix="Fetch or make it again.") from error
    count = sum(map(len, blocks))
    # A count of MPEG frames may differ from what is decoded by a first frame that refers to audio before the file.
    if count < info.frames - (0 if exact else 2 * _MP3_FRAME):
        raise _cut_off(info.path, f"{info.frames} samples are promised, {count} could be decoded")
    return np.concatenate(blocks)


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


def _say_once(what: str, found: int, wanted: int, message: str) -> None:
    with _said_lock:
        new = (what, found, wanted) not in _said
        _said.add((what, found, wanted))
    if new:
        _log.warning("%s", message)


# Length --------------------------------------------------------------------------------------------------------------


def shortage(file: BinaryIO) -> str | None:
    """Says in half a sentence how much is missing at the end of an audio file; None if nothing is known to be missing.

    Args:
        file: opened for binary reading and seekable; its position is moved.

    Example:
        >>> import io
        >>> header = b"RIFF" + (36 + 100).to_bytes(4, "little") + b"WAVEfmt " + (16).to_bytes(4, "little") + bytes(16)
        >>> shortage(io.BytesIO(header + b"data" + (100).to_bytes(4, "little") + bytes(60)))
        'its header promises 100 bytes of samples, but it has 60'
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    head = file.read(1024)
    if head[:4] == b"OggS":
        return _ogg_shortage(file, size)
    span = _data_span(file, head)
    if span is None:
        return None
    start, promised = span
    there = max(0, size - start)
    if promised <= there:
        return None
    return f"its header promises {promised} bytes of samples, but it has {there}"


def _data_span(file: BinaryIO, head: bytes) -> tuple[int, int] | None:
    """Offset of the samples and their number of bytes, as the header states them; None if it does not."""
    form, kind = head[:4], head[8:12]
    if form in (b"RIFF", b"RIFX") and kind == b"WAVE":
        return _known(_find_chunk(file, 12, b"data", "<I" if form == b"RIFF" else ">I", align=2))
    if form in (b"RF64", b"BW64") and head[12:16] == b"ds64" and len(head) >= 36:
        found = _find_chunk(file, 12, b"data", "<I", align=2)
        return found and (found[0], struct.unpack("<Q", head[28:36])[0])
    if form == b"FORM" and kind in (b"AIFF", b"AIFC", b"8SVX", b"16SV"):
        return _known(_find_chunk(file, 12, b"SSND" if kind.startswith(b"AIF") else b"BODY", ">I", align=2))
    if form == b"caff":
        found = _find_chunk(file, 8, b"data", ">q", align=1)
        return found if found and found[1] >= 0 else None
    if head[:16] == b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\x00\x00":
        name = b"data\xf3\xac\xd3\x11\x8c\xd1\x00\xc0\x4f\x8e\xdb\x8a"
        return _find_chunk(file, 40, name, "<Q", align=8, counted=24)
    if form in (b".snd", b"dns.") and len(head) >= 12:
        return _known(struct.unpack(">II" if form == b".snd" else "<II", head[4:12]))
    return _sphere_span(head) if head[:7] == b"NIST_1A" else None


def _known(span: tuple[int, ...] | None) -> tuple[int, int] | None:
    return (span[0], span[1]) if span and 0 < span[1] < _STREAMED else None


def _find_chunk(file: BinaryIO, at: int, name: bytes, size: str, *, align: int, counted: int = 0) -> tuple[int, int] | None:
    """Start and size of the first chunk called `name`, walking the chunks from byte `at`.

    Args:
        file: the file.
        at: where the first chunk begins.
        name: that of the chunk, as long as all names.
        size: how a size is stored after a name, for `struct`.
        align: of what number of bytes each chunk is a multiple.
        counted: bytes of a chunk's header that are part of its size.
    """
    header = len(name) + struct.calcsize(size)
    end = file.seek(0, os.SEEK_END)
    for _ in range(10_000):
        file.seek(at)
        raw = file.read(header)
        if len(raw) < header:
            return None
        length: int = struct.unpack(size, raw[len(name) :])[0] - counted
        if raw[: len(name)] == name:
            return at + header, length
        at += header + length + -length % align
        if length < 0 or at >= end:
            return None
    return None


def _sphere_span(head: bytes) -> tuple[int, int] | None:
    """The samples of a NIST Sphere file, whose header is lines of `name -type value`."""
    lines = [line.split() for line in head.decode("ascii", "replace").splitlines()]
    values = {parts[0]: parts[2] for parts in lines if len(parts) == 3}
    try:
        count, width = int(values["sample_count"]), int(values["sample_n_bytes"])
        return int(lines[1][0]), count * width * int(values.get("channel_count", "1"))
    except (KeyError, ValueError, IndexError):
        return None


def _ogg_shortage(file: BinaryIO, size: int) -> str | None:
    """Says in half a sentence what the last Ogg page lacks; None if it is whole and marked as the last one."""
    file.seek(max(0, size - 2 * _OGG_PAGE))
    tail = file.read()
    at = tail.rfind(b"OggS\x00")
    page = tail[at:] if at >= 0 else b""
    if len(page) < 27 or len(page) < 27 + page[26] or len(page) < 27 + page[26] + sum(page[27 : 27 + page[26]]):
        return "its last page is cut off"
    if not page[5] & 4:
        return "its last page is not marked as the end of the stream"
    return None


def mpeg_samples(file: BinaryIO) -> int | None:
    """The number of samples per channel in an MPEG layer III file that does not state it; None if it states it.

    Such a file (no Xing, Info or VBRI record) makes decoders guess from the bit rate of the first frame, which may
    be wrong by any factor. This counts the frames, reading the whole file.

    Args:
        file: a real file opened for binary reading.
    """
    if os.fstat(file.fileno()).st_size == 0:
        return None
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        at = 0
        if data[:3] == b"ID3" and len(data) >= 10:
            at = 10 + (data[6] << 21 | data[7] << 14 | data[8] << 7 | data[9])
        total = 0
        while at + 4 <= len(data):
            frame = _mpeg_frame(data[at : at + 4])
            if frame is None:
                at = data.find(b"\xff", at + 1)
                if at < 0:
                    break
                continue
            length, samples = frame
            start = data[at : at + 64]
            if not total and any(tag in start for tag in (b"Xing", b"Info", b"VBRI")):
                return None
            total += samples
            at += length
    return total or None


_BIT_RATES = {
    1: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    2: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
"""kbit/s of layer III, for MPEG version 1, and 2 or 2.5."""
_SAMPLE_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}
"""Hz, by the version bits of a frame header."""


def _mpeg_frame(header: bytes) -> tuple[int, int] | None:
    """Length in bytes and samples of the layer III frame with this 4-byte header; None if it is no such header."""
    version, layer = header[1] >> 3 & 3, header[1] >> 1 & 3
    rate, frequency, padding = header[2] >> 4, header[2] >> 2 & 3, header[2] >> 1 & 1
    if header[0] != 0xFF or header[1] < 0xE0 or version == 1 or layer != 1 or rate in (0, 15) or frequency == 3:
        return None
    samples = _MP3_FRAME if version == 3 else _MP3_FRAME // 2
    bits = _BIT_RATES[1 if version == 3 else 2][rate] * 1000
    return samples // 8 * bits // _SAMPLE_RATES[version][frequency] + padding, samples
