"""How much audio a file promises, where libsndfile would pass over a shortage in silence.

libsndfile reads a WAV file that was cut in half as a shorter WAV file. These functions read the few header bytes that
tell the difference. Nothing here decodes; a container that is not known is not judged.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Callable
from typing import BinaryIO

_STREAMED = 0x7FFF0000
"""Sizes from here on are what programs write that cannot go back and fill in the true one (ffmpeg, sox into a pipe)."""
_OGG_PAGE = 65307
"""The largest Ogg page in bytes."""


def shortage(file: BinaryIO) -> str | None:
    """What is missing at the end of an audio file, as half a sentence, or None if nothing is known to be missing.

    Args:
        file: opened for binary reading and seekable; its position is moved.

    Example:
        >>> import io
        >>> header = b"RIFF" + (36 + 100).to_bytes(4, "little") + b"WAVEfmt " + (16).to_bytes(4, "little") + bytes(16)
        >>> shortage(io.BytesIO(header + b"data" + (100).to_bytes(4, "little") + bytes(60)))
        'its header promises 100 bytes of samples, 60 are there'
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
    return f"its header promises {promised} bytes of samples, {there} are there"


def _data_span(file: BinaryIO, head: bytes) -> tuple[int, int] | None:
    """Where the samples start and how many bytes of them the header promises; None if it does not say."""
    form, kind = head[:4], head[8:12]
    if form in (b"RIFF", b"RIFX") and kind == b"WAVE":
        order = "<" if form == b"RIFF" else ">"
        return _known(_find_chunk(file, 12, b"data", lambda raw: struct.unpack(f"{order}I", raw)[0], 4, 2))
    if form in (b"RF64", b"BW64") and head[12:16] == b"ds64" and len(head) >= 36:
        found = _find_chunk(file, 12, b"data", lambda raw: struct.unpack("<I", raw)[0], 4, 2)
        return found and (found[0], struct.unpack("<Q", head[28:36])[0])
    if form == b"FORM" and kind in (b"AIFF", b"AIFC", b"8SVX", b"16SV"):
        name = b"SSND" if kind.startswith(b"AIF") else b"BODY"
        return _known(_find_chunk(file, 12, name, lambda raw: struct.unpack(">I", raw)[0], 4, 2))
    if form == b"caff":
        found = _find_chunk(file, 8, b"data", lambda raw: struct.unpack(">q", raw)[0], 8, 1)
        return found if found and found[1] >= 0 else None
    if head[:16] == b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\x00\x00":
        name = b"data\xf3\xac\xd3\x11\x8c\xd1\x00\xc0\x4f\x8e\xdb\x8a"
        return _find_chunk(file, 40, name, lambda raw: int(struct.unpack("<Q", raw)[0]) - 24, 8, 8)
    if form in (b".snd", b"dns.") and len(head) >= 12:
        start, promised = struct.unpack(">II" if form == b".snd" else "<II", head[4:12])
        return _known((start, promised))
    if head[:7] == b"NIST_1A":
        return _sphere_span(head)
    return None


def _known(span: tuple[int, int] | None) -> tuple[int, int] | None:
    return span if span and 0 < span[1] < _STREAMED else None


def _find_chunk(
    file: BinaryIO, at: int, name: bytes, size_of: Callable[[bytes], int], size_bytes: int, align: int
) -> tuple[int, int] | None:
    """Start and size of the first chunk called `name`, walking the chunks from byte `at`."""
    header = len(name) + size_bytes
    end = file.seek(0, os.SEEK_END)
    for _ in range(10_000):
        file.seek(at)
        raw = file.read(header)
        if len(raw) < header:
            return None
        size = size_of(raw[len(name) :])
        if raw[: len(name)] == name:
            return at + header, size
        if size < 0:
            return None
        at += header + size + -size % align
        if at >= end:
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
    """Whether the last Ogg page is whole and marked as the last one."""
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
    samples = 1152 if version == 3 else 576
    bits = _BIT_RATES[1 if version == 3 else 2][rate] * 1000
    return samples // 8 * bits // _SAMPLE_RATES[version][frequency] + padding, samples
