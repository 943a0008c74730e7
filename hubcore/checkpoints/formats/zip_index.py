"""The directory of a zip archive as `torch.save` writes it, read strictly: stored records that do not overlap.

Every reader of zip files has an opinion on contradictory ones, so a contradiction anywhere is an error here: between the
two copies of a name, between a size and the room there is for it, or between the end of the directory and its start.
"""

from __future__ import annotations

import itertools
import struct
import zlib
from dataclasses import dataclass

from hubcore.checkpoints.formats.file_bytes import CheckpointBytes, Span
from hubcore.checkpoints.formats.tensor_ref import damaged, unsafe
from hubcore.errors import CheckpointError

MAX_DIRECTORY = 32 << 20
MAX_RECORDS = 100_000

# An `x` is a byte that nothing depends on: versions, times, attributes.
_LOCAL = struct.Struct("<4s2x2H4x3I2H")
_CENTRAL = struct.Struct("<4s4x2H4x3I4H6xI")
_END = struct.Struct("<4s4H2IH")
_END64_LOCATOR = struct.Struct("<4sIQI")
_END64 = struct.Struct("<4sQ4x2I4Q")
_SIZES_FOLLOW = 0x0008
_KNOWN_FLAGS = _SIZES_FOLLOW | 0x0800
_IN_EXTRA_16 = 0xFFFF
_IN_EXTRA_32 = 0xFFFFFFFF


@dataclass(slots=True)
class _Record:
    raw_name: bytes
    flags: int
    crc: int
    size: int
    header: int  # where the local header starts
    limit: int = 0  # where the next record or the directory starts


class ZipIndex:
    """The names and sizes of an archive's records, without their common root folder.

    Raises:
        UnsafeCheckpointError: The archive is compressed, encrypted, ambiguous or out of proportion.
        CheckpointError: The archive is damaged.
    """

    def __init__(self, file: CheckpointBytes) -> None:
        self._file = file
        try:
            start, size, count = self._find_directory()
            records = self._read_directory(start, size, count)
        except struct.error as error:
            raise damaged("its zip directory is malformed") from error
        ordered = sorted(records.values(), key=lambda record: record.header)
        for record, following in itertools.pairwise(ordered):
            record.limit = following.header
        if not ordered or ordered[0].header != 0:
            raise unsafe("something precedes its first zip record")
        ordered[-1].limit = start
        for record in ordered:
            if record.header + _LOCAL.size + len(record.raw_name) + record.size > record.limit:
                raise unsafe(f"its zip record {record.raw_name!r} overlaps what follows it")
        self._records = _without_root(records)

    def __contains__(self, name: object) -> bool:
        return name in self._records

    def names(self) -> list[str]:
        """The names of all records, below the root folder."""
        return list(self._records)

    def size(self, name: str) -> int:
        """The size of a record in bytes."""
        return self._records[name].size

    def span(self, name: str) -> Span:
        """Offset of a record's bytes, its local header compared with the directory."""
        record = self._records[name]
        length = _LOCAL.size + len(record.raw_name)
        head = self._file.read_at(record.header, length)
        magic, flags, method, crc, packed, size, name_length, extra = _LOCAL.unpack_from(head)
        same = magic == b"PK\x03\x04" and flags == record.flags and method == 0 and name_length == len(record.raw_name)
        if not same or head[_LOCAL.size :] != record.raw_name:
            raise unsafe(f"its zip record {name!r} and the zip directory contradict each other")
        for here, listed in ((crc, record.crc), (packed, record.size), (size, record.size)):
            later = here == 0 and flags & _SIZES_FOLLOW
            if here != listed and not later and here != _IN_EXTRA_32:
                raise unsafe(f"its zip record {name!r} and the zip directory disagree about its size or checksum")
        start = record.header + length + extra
        if start + record.size > record.limit:
            raise unsafe(f"its zip record {name!r} overlaps what follows it")
        # torch.save writes a checksum of 0 when it was told to compute none.
        return Span(name, start, record.size, record.crc or None)

    def read(self, name: str, limit: int) -> bytes:
        """The bytes of a record of at most `limit` bytes, its checksum compared.

        Raises:
            UnsafeCheckpointError: The record is larger.
            CheckpointError: The checksum differs.
        """
        if self.size(name) > limit:
            raise unsafe(f"its zip record {name!r} has {self.size(name)} bytes, more than {limit}")
        span = self.span(name)
        data = self._file.read_at(span.offset, span.nbytes)
        if span.crc is not None and zlib.crc32(data) != span.crc:
            raise damaged(f"the bytes of {name!r} are not those that were written (their CRC-32 differs)")
        return data

    def _find_directory(self) -> tuple[int, int, int]:
        file = self._file
        end = file.size - _END.size
        if end < 0:
            raise damaged("it starts like a zip archive, but is too short for one")
        magic, disk, first_disk, here, count, size, start, comment = _END.unpack(file.read_at(end, _END.size))
        if magic != b"PK\x05\x06" or comment:
            raise damaged("it starts like a zip archive, but does not end like one")
        if disk or first_disk or here != count:
            raise unsafe("its zip archive claims to be one of several parts")
        locator = end - _END64_LOCATOR.size
        if locator >= 0:
            magic, disk, end64, disks = _END64_LOCATOR.unpack(file.read_at(locator, _END64_LOCATOR.size))
            if magic == b"PK\x06\x07":
                if end64 + _END64.size != locator or disk or disks > 1:
                    raise unsafe("its zip archive has two ends that contradict each other")
                wide = _END64.unpack(file.read_at(end64, _END64.size))
                short = (count, size, start)
                sentinels = (_IN_EXTRA_16, _IN_EXTRA_32, _IN_EXTRA_32)
                magic, length, disk, first_disk, here, count, size, start = wide
                agree = all(old in (new, mark) for old, new, mark in zip(short, (count, size, start), sentinels, strict=True))
                if magic != b"PK\x06\x06" or length != _END64.size - 12 or disk or first_disk or here != count or not agree:
                    raise unsafe("its zip archive has two ends that contradict each other")
                end = end64
        if start + size != end:
            raise unsafe("its zip directory is not where its end says it is")
        if size > MAX_DIRECTORY or count > MAX_RECORDS:
            raise unsafe(f"its zip directory lists {count} records in {size} bytes")
        return start, size, count

    def _read_directory(self, start: int, size: int, count: int) -> dict[bytes, _Record]:
        data = self._file.read_at(start, size)
        records: dict[bytes, _Record] = {}
        at = 0
        for _ in range(count):
            magic, flags, method, crc, packed, full, *lengths, disk, header = _CENTRAL.unpack_from(data, at)
            name_at, extra_at, comment_at, at = itertools.accumulate(lengths, initial=at + _CENTRAL.size)
            name, extra = data[name_at:extra_at], data[extra_at:comment_at]
            if magic != b"PK\x01\x02" or at > size or disk:
                raise damaged("its zip directory is malformed")
            if method or flags & ~_KNOWN_FLAGS:
                raise unsafe(f"its zip record {name!r} is compressed or encrypted, which torch.save never does")
            full, packed, header = _widened(full, packed, header, extra)
            if full != packed:
                raise unsafe(f"its zip record {name!r} has two sizes")
            if name in records:
                raise unsafe(f"its zip archive has two records named {name!r}")
            records[name] = _Record(name, flags, crc, full, header)
        if at != size:
            raise damaged("its zip directory is malformed")
        return records


def _widened(full: int, packed: int, header: int, extra: bytes) -> tuple[int, int, int]:
    """The three numbers of a directory entry, those that are too large for 32 bits taken from its extra field."""
    values = [full, packed, header]
    wide = [index for index, value in enumerate(values) if value == _IN_EXTRA_32]
    if not wide:
        return full, packed, header
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, at)
        if kind == 1 and length >= 8 * len(wide):
            for index, value in zip(wide, struct.unpack_from(f"<{len(wide)}Q", extra, at + 4), strict=True):
                values[index] = value
            return values[0], values[1], values[2]
        at += 4 + length
    raise damaged("its zip directory announces a large record without saying how large")


def _without_root(records: dict[bytes, _Record]) -> dict[str, _Record]:
    roots: set[str] = set()
    below: dict[str, _Record] = {}
    for raw_name, record in records.items():
        # A byte that is no UTF-8 becomes a character that is not printable.
        root, slash, name = raw_name.decode("utf-8", "surrogateescape").partition("/")
        parts = [root, *name.split("/")]
        if not slash or any(part in ("", ".", "..") for part in parts) or "\\" in name or not (root + name).isprintable():
            raise unsafe(f"its zip archive has a record with the odd name {raw_name!r}")
        roots.add(root)
        below[name] = record
    if len(roots) != 1:
        raise CheckpointError(
            "its zip archive has more than one folder at its root. A file of torch.save has exactly one. "
            "If this is an archive of several files, unpack it and open the checkpoint inside."
        )
    return below
