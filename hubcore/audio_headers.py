"""Headers of audio files compared with the files: `shortage`, `unread`, `stated_frames`, `fill_in`, `kind_of`.

libsndfile believes a header. These functions compare it with the file: samples that are missing or that nothing would read, a
length that was never filled in or includes the padding of a codec, and formats that are not read at all.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from io import BytesIO
from typing import NamedTuple, Protocol, overload

from hubcore.files import stand_in


class Data(Protocol):
    """A file's bytes, of which only those that are looked at need to be read; `bytes` are such."""

    def __len__(self) -> int: ...
    @overload
    def __getitem__(self, place: int, /) -> int: ...
    @overload
    def __getitem__(self, place: slice, /) -> bytes: ...
    def find(self, wanted: bytes, start: int, end: int | None = None, /) -> int:
        """The first byte from `start` on where `wanted` begins; -1 if there is none before `end`."""
        ...


class WritableData(Data, Protocol):
    """Bytes that can be changed."""

    def __setitem__(self, place: slice, value: bytes, /) -> None: ...


_LIMITS = {"I": (0x80000000, 0xFFFFFFFF), "Q": (2**63, 2**64 - 1), "q": (2**63 - 1,)}
"""Sizes up to 64 KiB below one of these, and 0, are what programs write that cannot go back and fill in the true one."""
_TAGS = (b"ID3", b"TAG", b"APETAGEX", b"LYRICSBEGIN")
"""First bytes of the titles and names that music players add to the end of any file."""
_BEGINNINGS = (b"RIFF", b"RIFX", b"RF64", b"BW64", b"FORM", b"caff", b"riff", b".snd", b"dns.", b"NIST", b"data", b"SSND")
_FLAC = b"fLaC\0\0\0\x22"
_SECTOR = 4096
"""Fewer zeros than this after the samples are padding."""
_OGG_PAGE = 65307
"""The largest Ogg page in bytes."""
_MIRRORED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
"""Each byte with its bits in the other order."""
_FLAC_TAIL = 1 << 16
"""Bytes at the end of a FLAC file that the header of the last frame is searched in."""
_SMALL = 1 << 17
"""Bytes of a compressed file that are few enough to be searched whenever its header is read."""
_W64_NAME = b"\xf3\xac\xd3\x11\x8c\xd1\x00\xc0\x4f\x8e\xdb\x8a"
"""Bytes after the four letters in the name of a W64 chunk."""


class _Chunks(NamedTuple):
    """Form of a container's chunks: a name, a size, then the bytes."""

    name: int
    """Bytes of a name."""
    size: str
    """Format of a size, for `struct`."""
    align: int
    """Of what number of bytes each chunk is a multiple."""
    counted: int = 0
    """Bytes of a chunk's header that are part of its size."""


_WAV = _Chunks(4, "<I", 2)
_W64 = _Chunks(16, "<Q", 8, counted=24)


@dataclass(frozen=True)
class _Span:
    """Place of the samples, as a header states it."""

    start: int
    """Their first byte."""
    size: int
    """Their number of bytes, which may not be true."""
    field: int
    """Byte at which the header states the size; -1 if it states it in words."""
    code: str
    """Format of that size, for `struct`."""
    after: _Chunks | None = None
    """Form of the chunks after the samples; None if nothing should follow."""
    counted: int = 0
    """Bytes of the header that are part of the number stated."""


def shortage(data: Data) -> str | None:
    """Says in half a sentence how much is missing at the end of an audio file; None if nothing is known to be missing.

    Example:
        >>> header = b"RIFF" + (36 + 100).to_bytes(4, "little") + b"WAVEfmt " + (16).to_bytes(4, "little") + bytes(16)
        >>> shortage(header + b"data" + (100).to_bytes(4, "little") + bytes(60))
        'its header promises 100 bytes of samples, but it has 60'
    """
    if data[:4] == b"OggS":
        return _ogg_shortage(data)
    span = _data_span(data)
    there = max(0, len(data) - span.start) if span else 0
    if span is None or span.size <= there or _is_unstated(data, span):
        return None
    return f"its header promises {span.size} bytes of samples, but it has {there}"


def unread(data: Data, *, whole: bool = False) -> int | None:
    """The byte from which on a file has more audio than a decoder would read; None if nothing shows that it has.

    Args:
        data: the file.
        whole: search compressed files to their end too, which takes reading them. Without, one of more than 128 KiB is not
            seen to be joined if its parts are of one length (FLAC) or have one serial number (Ogg).

    Example:
        >>> au = b".snd" + (24).to_bytes(4, "big") + (100).to_bytes(4, "big") + bytes(12 + 100)
        >>> unread(au), unread(au + au)
        (None, 124)
    """
    span = _data_span(data)
    if span is not None:
        return _unread_after(data, span)
    whole = whole or len(data) <= _SMALL
    if data[:4] == b"OggS":
        return _next_ogg(data) if whole or _last_ogg_page(data)[14:18] != data[14:18] else None
    if data[:3] == b"ID3" or data[:1] == b"\xff":
        return _next_mpeg(data)
    at = data.find(_FLAC, 8) if data[:8] == _FLAC and (whole or _flac_differs(data)) else -1
    return at if at >= 0 else None


def damage(data: Data, *, whole: bool = False) -> str | None:
    """Says in half a sentence what is wrong inside a compressed file that a decoder would pass over; None if nothing is known.

    With `whole`, every Ogg page is checked, which takes reading them.
    """
    if data[:4] == b"OggS":
        return _ogg_damage(data) if whole else None
    total, end = _flac_lengths(data) if data[:8] == _FLAC else (0, 0)  # decoders stop at what the header states
    return f"its header states {total} samples, but its last frame ends at sample {end}" if 0 < total < end else None


def fill_in(data: WritableData) -> bool:
    r"""Writes the true size of the samples into a header that has none, or returns False.

    Args:
        data: bytes that are not those of the file itself.

    Example:
        >>> au = bytearray(b".snd" + (24).to_bytes(4, "big") + b"\xff\xff\xff\xff" + bytes(112))
        >>> fill_in(au), bytes(au[8:12])
        (True, b'\x00\x00\x00d')
    """
    span = _data_span(data)
    if span is None or span.field < 0 or not _is_unstated(data, span):
        return False
    size = len(data) - span.start + span.counted
    if size > max(_LIMITS[span.code[-1]]):
        return False
    field = struct.pack(span.code, size)
    data[span.field : span.field + len(field)] = field
    return True


def stated_frames(data: Data, frames: int) -> int:
    """The samples per channel without the padding of the last block, where a header says how many they are.

    A decoder gives `frames`.
    """
    if data[:7] == b"NIST_1A":
        return min(frames, _sphere(data).get("sample_count", frames) or frames)
    if data[:4] not in (b"RIFF", b"riff"):
        return frames
    at, chunks, ending, code = (12, _WAV, b"", "<I") if data[:4] == b"RIFF" else (40, _W64, _W64_NAME, "<Q")
    found = {name: data[start : start + 20] for name, start, _ in _walk(data, at, chunks, before=b"data" + ending)}
    codec, block = struct.unpack("<H16xH", found.get(b"fmt " + ending, b"").ljust(20, b"\0"))
    stated: int = struct.unpack_from(code, found.get(b"fact" + ending, b"").ljust(20, b"\0"))[0]
    plain = codec in (0, 1, 3, 6, 7, 0xFFFE)  # one sample after the other: no blocks, and `fact` is often wrong
    return stated if not plain and stated > 0 and 0 <= frames - stated < 2 * max(320, block) else frames


def begins_audio(head: bytes) -> bool:
    """True if bytes are the beginning of an audio file.

    Example:
        >>> begins_audio(b"RIFF" + bytes(12)), begins_audio(bytes(16))
        (True, False)
    """
    return head.startswith((*_BEGINNINGS, b"OggS", b"fLaC", b"ID3", b"\xff"))


# Containers that state a size --------------------------------------------------------------------------------------------


def _data_span(data: Data) -> _Span | None:
    form, kind = data[:4], data[8:12]
    if form in (b"RIFF", b"RIFX") and kind == b"WAVE":
        return _find_chunk(data, 12, b"data", _WAV if form == b"RIFF" else _Chunks(4, ">I", 2))
    if form in (b"RF64", b"BW64") and data[12:16] == b"ds64" and len(data) >= 36:
        found = _find_chunk(data, 12, b"data", _WAV)
        return found and replace(found, size=struct.unpack("<Q", data[28:36])[0], field=28, code="<Q")
    if form == b"FORM" and kind in (b"AIFF", b"AIFC", b"8SVX", b"16SV"):
        return _find_chunk(data, 12, b"SSND" if kind.startswith(b"AIF") else b"BODY", _Chunks(4, ">I", 2))
    if form == b"caff":
        return _find_chunk(data, 8, b"data", _Chunks(4, ">q", 1))
    if data[:16] == b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\x00\x00":
        return _find_chunk(data, 40, b"data" + _W64_NAME, _W64)
    if form in (b".snd", b"dns.") and len(data) >= 12:
        code = ">I" if form == b".snd" else "<I"
        start, size = struct.unpack(f"{code}I", data[4:12])
        return _Span(start, size, 8, code)
    return _sphere_span(data) if data[:7] == b"NIST_1A" else None


def _walk(data: Data, at: int, chunks: _Chunks, before: bytes = b"") -> Iterator[tuple[bytes, int, int]]:
    """Name, first byte and size of each chunk from byte `at`, up to one that is called `before`."""
    header = chunks.name + struct.calcsize(chunks.size)
    for _ in range(10_000):
        name, size_field = data[at : at + chunks.name], data[at + chunks.name : at + header]
        if at + header > len(data) or name == before:
            return
        size: int = struct.unpack(chunks.size, size_field)[0] - chunks.counted
        yield name, at + header, size
        at += header + size + -size % chunks.align
        if size < 0:
            return


def _find_chunk(data: Data, at: int, name: bytes, chunks: _Chunks) -> _Span | None:
    """The first chunk called `name`, from byte `at` on."""
    for found, start, size in _walk(data, at, chunks):
        if found == name:
            return _Span(start, size, start - struct.calcsize(chunks.size), chunks.size, chunks, chunks.counted)
    return None


def _sphere(data: Data) -> dict[str, int]:
    """The numbers in the header of a NIST Sphere file, which is lines of `name -type value`."""
    lines = [line.split() for line in data[:1024].decode("ascii", "replace").splitlines()]
    return {parts[0]: int(parts[2]) for parts in lines if len(parts) == 3 and re.fullmatch("[0-9]{1,18}", parts[2])}


def _sphere_span(data: Data) -> _Span | None:
    values, start = _sphere(data), data[8:16].strip()
    if not {"sample_count", "sample_n_bytes"} <= set(values) or not start.isdigit():
        return None
    return _Span(int(start), values["sample_count"] * values["sample_n_bytes"] * values.get("channel_count", 1), -1, "")


def _is_unstated(data: Data, span: _Span) -> bool:
    """True if a header states no size, as that of a stream that was never filled in."""
    if span.size <= 0:
        return _metadata_end(data, span.start, span.after) < len(data)
    limits = _LIMITS.get(span.code[-1:], ())
    return span.size > len(data) - span.start and any(limit - 0x10000 <= span.size <= limit for limit in limits)


def _unread_after(data: Data, span: _Span) -> int | None:
    """First byte of samples after those that the header states; None if there are none."""
    if _is_unstated(data, span):
        at = span.start + max(_LIMITS.get(span.code[-1:], (len(data),)))  # more than any header could state
        return at if at < len(data) else None
    at = span.start + span.size
    padded = at + (-span.size % span.after.align if span.after else 0)
    end = max(_metadata_end(data, start, span.after) for start in (at, padded))
    return end if end < len(data) else None


def _metadata_end(data: Data, at: int, chunks: _Chunks | None) -> int:
    """First byte from `at` on that is not part of chunks, tags or padding; the end of the file if there is none."""
    end = len(data)
    for name, start, size in _walk(data, at, chunks) if chunks else ():
        letters = name[:4]
        if not all(32 <= letter < 127 for letter in letters) or letters in _BEGINNINGS or not 0 <= size <= end - start:
            break
        at = start + size + -size % chunks.align if chunks else end
    rest = data[at : at + _SECTOR]
    padding = end - at < 8 or (end - at < _SECTOR and not rest.strip(b"\0"))
    return end if padding or rest.startswith(_TAGS) else at


# Ogg and FLAC -------------------------------------------------------------------------------------------------------------


def _ogg_shortage(data: Data) -> str | None:
    """Says in half a sentence what the last Ogg page lacks; None if it is whole and marked as the last one."""
    page = _last_ogg_page(data)
    if len(page) < 27 or len(page) < 27 + page[26] or len(page) < 27 + page[26] + sum(page[27 : 27 + page[26]]):
        return "its last page is cut off"
    if not page[5] & 4:
        return "its last page is not marked as the end of the stream"
    return None


def _last_ogg_page(data: Data) -> bytes:
    tail = data[max(0, len(data) - 2 * _OGG_PAGE) :]
    at = tail.rfind(b"OggS\x00")
    return tail[at:] if at >= 0 else b""


def _next_ogg(data: Data) -> int | None:
    """First byte of streams that begin after others have ended; those of one file begin together. None if there are none."""
    begun = False
    for at, length in _ogg_pages(data):
        first = length > 5 and bool(data[at + 5] & 2)
        if first and begun:
            return at
        begun = begun or not first
    return None


def _ogg_pages(data: Data) -> Iterator[tuple[int, int]]:
    """First byte and length of each Ogg page."""
    at = 0
    while (at := data.find(b"OggS\0", at)) >= 0 and at + 27 <= len(data):
        segments = data[at + 26]
        length = 27 + segments + sum(data[at + 27 : at + 27 + segments])
        yield at, length
        at += length


def _ogg_damage(data: Data) -> str | None:
    """A page whose checksum is wrong, or before which pages are missing: decoders play silence or nothing instead."""
    next_number: dict[bytes, int] = {}
    for at, length in _ogg_pages(data):
        page = data[at : at + length]
        stream, number, checksum = page[14:18], *struct.unpack("<II", page[18:26])
        # The checksum is zlib's with the bits of each byte and of the sum in the other order, and nothing inverted.
        mirrored = zlib.crc32((page[:22] + bytes(4) + page[26:]).translate(_MIRRORED), 0xFFFFFFFF) ^ 0xFFFFFFFF
        if int(f"{mirrored:032b}"[::-1], 2) != checksum:
            return f"the checksum of its Ogg page at byte {at} is wrong"
        if number != next_number.get(stream, number):
            return f"Ogg pages are missing before byte {at}"
        next_number[stream] = number + 1 & 0xFFFFFFFF
    return None


def _flac_differs(data: Data) -> bool:
    """True if the last frame does not end where the header says."""
    total, end = _flac_lengths(data)
    return 0 < total != end > 0


def _flac_lengths(data: Data) -> tuple[int, int]:
    """The samples that the header states, and those up to the end of the last frame; 0 if nothing tells."""
    block, total = int.from_bytes(data[10:12], "big"), int.from_bytes(data[21:26], "big") & 0xFFFFFFFFF
    first, last = 4, False
    while not last and first + 4 <= len(data):
        last = data[first] >= 0x80
        first += 4 + int.from_bytes(data[first + 1 : first + 4], "big")
    tail, like = data[max(first, len(data) - _FLAC_TAIL) :], data[first : first + 4].ljust(4)
    heads = (tail[match.start() : match.start() + 20].ljust(20, b"\0") for match in re.finditer(b"\xff[\xf8\xf9]", tail))
    frames = [_flac_frame(head, block) for head in heads if head[1] == like[1] and head[2] & 15 == like[2] & 15]
    ends = {0} | {end for _, end in frames}
    # Chance bytes may look like a header, but not like that of a frame which follows another.
    return total, [0, *(end for start, end in frames if start in ends)][-1]


def _flac_frame(head: bytes, block: int) -> tuple[int, int]:
    """The first sample of a FLAC frame and the one after it, from its header; (-1, -1) if its checksum is wrong.

    A frame has `block` samples where frames are counted and not samples.
    """
    lead, code = head[4], head[2] >> 4
    more = f"{lead:08b}0".index("0")  # how many bytes a number takes that is spelt as in UTF-8
    number, at = lead & 0x7F >> more, 4 + max(1, more)
    for byte in head[5:at]:
        number = number << 6 | byte & 0x3F
    wide = {6: 1, 7: 2}.get(code, 0)
    if wide:
        size = int.from_bytes(head[at : at + wide], "big") + 1
    else:
        size = 192 if code == 1 else 576 << code - 2 if 2 <= code < 6 else 256 << max(0, code - 8)
    at += wide + {12: 1, 13: 2, 14: 2}.get(head[2] & 15, 0)
    checksum = 0
    for byte in head[:at]:
        checksum ^= byte
        for _ in range(8):
            checksum = checksum << 1 ^ (0x107 if checksum & 0x80 else 0)
    start = number if head[1] & 1 else number * block
    return (start, start + size) if checksum == head[at] else (-1, -1)


# MPEG ---------------------------------------------------------------------------------------------------------------------

_MP3_FRAME = 1152
_MPEG_START = 1 << 16
"""Bytes that the first frame is searched in."""
_BIT_RATES = {
    1: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    2: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
"""kbit/s of layer III, for MPEG version 1, and 2 or 2.5."""
_SAMPLE_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}
"""Hz, by the version bits of a frame header."""


def mpeg_samples(data: Data) -> int | None:
    """The number of samples per channel in MPEG layer III audio that does not state it; None if it states it.

    Such a file (no Xing, Info or VBRI record) makes decoders guess from the bit rate of the first frame, which may
    be wrong by any factor. This counts the frames, reading the whole file.
    """
    frames = _unstated_mpeg(data)
    return sum(samples for _, _, samples in frames) if frames else None


def mpeg_with_length(data: Data) -> BytesIO:
    """MPEG layer III audio that does not state its length, behind a frame that does, so that all of it is decoded.

    Args:
        data: a file of which `mpeg_samples` gives a number.
    """
    frames = _unstated_mpeg(data)
    start, _, samples = frames[0]
    stop = sum(frames[-1][:2])
    version, bits, mode = data[start + 1] | 1, data[start + 2] & 0x0C | 0x80, data[start + 3]
    head = bytes((0xFF, version, bits, mode))  # no checksum, a middle bit rate, no padding
    length = (_mpeg_frame(head) or (0, 0))[0]
    mono = mode >> 6 == 3
    side = (17 if mono else 32) if samples == _MP3_FRAME else (9 if mono else 17)
    record = head + bytes(side) + b"Xing" + struct.pack(">II", 1, len(frames))
    return BytesIO(record.ljust(length, b"\0") + data[start:stop])


def _unstated_mpeg(data: Data) -> list[tuple[int, int, int]]:
    """The frames that hold audio; none where a record states their number."""
    span = _data_span(data)
    start, stop = (span.start, span.start + span.size) if span and span.size > 0 else (0, len(data))
    frames = _mpeg_frames(data, start, min(stop, len(data)))
    first = next(frames, (0, 0, 0))
    record = _mpeg_record(data[first[0] : first[0] + first[1]])
    if not first[1] or (record and record[0]):
        return []
    return [*([] if record else [first]), *frames]


def _next_mpeg(data: Data) -> int | None:
    """First byte of frames beyond those that the record in the first one states; None if there are none."""
    start = _after_tag(data, 0)
    if not next(_mpeg_frames(data, start, min(len(data), start + _MPEG_START)), None):
        return None
    frames = _mpeg_frames(data, start, len(data))
    at, length, _ = next(frames, (0, 0, 0))
    count, size = _mpeg_record(data[at : at + length]) or (0, 0)
    if not count or (size and not _are_frames(data, at + size)):
        return None
    for at, length, _ in frames:
        count -= 1
        if not count:
            return at + length if _are_frames(data, at + length) else None
    return None


def _are_frames(data: Data, at: int) -> bool:
    """True if there are two frames at byte `at`, which may have a tag before them."""
    first, second = next(frames := _mpeg_frames(data, at, len(data)), None), next(frames, None)
    return bool(first and second and second[0] == sum(first[:2]) and (first[0] == at or data[at : at + 3] == b"ID3"))


def _mpeg_frames(data: Data, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """First byte, length and samples of each frame from byte `at` on."""
    at = _after_tag(data, at)
    while at >= 0 and at + 4 <= end:
        frame = _mpeg_frame(data[at : at + 4])
        if frame is None:
            at = data.find(b"\xff", at + 1, end)
            continue
        yield at, *frame
        at += frame[0]


def _after_tag(data: Data, at: int) -> int:
    """The end of an ID3 tag that begins at byte `at`; `at` where there is none."""
    size = data[at + 6 : at + 10]
    is_tag = data[at : at + 3] == b"ID3" and len(size) == 4
    return at + 10 + (size[0] << 21 | size[1] << 14 | size[2] << 7 | size[3]) if is_tag else at


def _mpeg_record(frame: bytes) -> tuple[int, int] | None:
    """Frames and bytes of the audio that a first frame without audio tells, each 0 if it does not; None if it has audio."""
    at = max(frame.find(b"Xing", 0, 64), frame.find(b"Info", 0, 64))
    fields = frame[max(at, 0) : at + 16].ljust(16, b"\0")
    if at >= 0:
        flags, first, second = struct.unpack(">III", fields[4:])
        return (first if flags & 1 else 0), (0 if not flags & 2 else second if flags & 1 else first)
    at = frame.find(b"VBRI", 0, 64)
    if at < 0 or at + 18 > len(frame):
        return None
    size, count = struct.unpack(">II", frame[at + 10 : at + 18])
    return count, size


def _mpeg_frame(header: bytes) -> tuple[int, int] | None:
    """Length in bytes and samples of the layer III frame with this 4-byte header; None if it is no such header."""
    version, layer = header[1] >> 3 & 3, header[1] >> 1 & 3
    rate, frequency, padding = header[2] >> 4, header[2] >> 2 & 3, header[2] >> 1 & 1
    if header[0] != 0xFF or header[1] < 0xE0 or version == 1 or layer != 1 or rate in (0, 15) or frequency == 3:
        return None
    samples = _MP3_FRAME if version == 3 else _MP3_FRAME // 2
    bits = _BIT_RATES[1 if version == 3 else 2][rate] * 1000
    return samples // 8 * bits // _SAMPLE_RATES[version][frequency] + padding, samples


# What is not read ---------------------------------------------------------------------------------------------------------

_FFMPEG = "Convert it with `ffmpeg -i IN OUT.wav`."
_KINDS = (
    (4, b"ftyp", "an MP4 file (m4a, AAC or ALAC)", _FFMPEG),
    (0, b"#!AMR", "AMR audio", _FFMPEG),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "Windows Media audio", _FFMPEG),
    (0, b"\x1a\x45\xdf\xa3", "a Matroska or WebM file", _FFMPEG),
    (0, b"MAC ", "Monkey's Audio", _FFMPEG),
    (0, b"wvpk", "WavPack audio", "Unpack it with `wvunpack IN`."),
    (0, b"ajkg", "shorten audio", "Unpack it with `shorten -x IN OUT`."),
    (0, b"PK\x03\x04", "a zip archive", "Unpack it with `unzip`."),
)
_CODECS = {0x42: "G.723", 0x50: "MPEG layer II", 0x55: "MP3", 0xFF: "AAC", 0x160: "WMA", 0x161: "WMA", 0x1610: "AAC"}
"""Codecs inside WAV, by number, that libsndfile may not read."""


def kind_of(data: Data) -> tuple[str, str] | None:
    """The kind of a file that libsndfile does not read, and the command that helps; None if that is not known.

    Example:
        >>> kind_of(b"#!AMR" + bytes(100))
        ('AMR audio', 'Convert it with `ffmpeg -i IN OUT.wav`.')
    """
    head = data[:1024]
    if head[:7] == b"NIST_1A" and b",embedded-" in head:
        coding = head.partition(b",embedded-")[2].split(b"\n")[0].decode("ascii", "replace").strip()
        return f"a NIST Sphere file compressed with {coding}", "Decode it with `sph2pipe -f wav IN OUT.wav`."
    if head[:4] == b"RIFF" and head[8:12] == b"WAVE":
        codecs = (data[start : start + 2] for name, start, _ in _walk(data, 12, _WAV, before=b"data") if name == b"fmt ")
        codec = _CODECS.get(int.from_bytes(next(codecs, b""), "little"))
        return (f"{codec} inside WAV", _FFMPEG) if codec else None
    if head[:1] == b"\xff" and head[1:2] and head[1] & 0xF6 == 0xF0:
        return "AAC audio", _FFMPEG
    return stand_in(head) or next((found[2:] for found in _KINDS if head.startswith(found[1], found[0])), None)
