"""The pieces that checkpoint files are made of, each open to lies: pickles, zip archives, older files, safetensors."""

from __future__ import annotations

import json
import pickle
import struct
import zlib
from dataclasses import dataclass, replace

P2 = b"\x80\x02"
P4 = b"\x80\x04"
STORAGE = struct.pack("<6f", *range(6))  # the six float32 of the only storage that an honest file here has


def text(value: bytes | str) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return b"X" + struct.pack("<I", len(raw)) + raw


def number(value: int) -> bytes:
    if -(1 << 31) <= value < 1 << 31:
        return b"J" + struct.pack("<i", value)
    raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


def name(module: bytes | str, attribute: bytes | str) -> bytes:
    module, attribute = (part.encode() if isinstance(part, str) else part for part in (module, attribute))
    return b"c" + module + b"\n" + attribute + b"\n"


def items(*parts: bytes) -> bytes:
    return b"(" + b"".join(parts) + b"t"


def call(function: str, *args: bytes) -> bytes:
    module, _, attribute = function.rpartition(".")
    return name(module, attribute) + items(*args) + b"R"


def storage(
    kind: str = "torch.FloatStorage", key: str = "0", numel: int = 6, *, legacy: bool = False, place: str = "cpu"
) -> bytes:
    module, _, attribute = kind.rpartition(".")
    view = [b"N"] if legacy else []
    return items(text("storage"), name(module, attribute), text(key), text(place), number(numel), *view) + b"Q"


def tensor(
    source: bytes | None = None, offset: int = 0, shape: tuple[int, ...] = (2, 3), stride: tuple[int, ...] = (3, 1)
) -> bytes:
    sizes, steps = (items(*map(number, values)) for values in (shape, stride))
    hooks = call("collections.OrderedDict")
    return call("torch._utils._rebuild_tensor_v2", source or storage(), number(offset), sizes, steps, b"\x89", hooks)


def entry(value: bytes, key: bytes = text("x")) -> bytes:
    """A whole pickle: a dict with one entry."""
    return P2 + b"}" + key + value + b"s."


# A zip archive and a file from before zip archives, both with everything in them open to lies.


@dataclass(frozen=True)
class Record:
    """One zip record; a field that is not None replaces what the archive would honestly say."""

    name: str
    data: bytes
    local_name: str | None = None
    crc: int | None = None
    size: int | None = None
    offset: int | None = None
    method: int = 0
    flags: int = 0x0800
    extra: bytes = b""
    local_extra: int = 0


def archive(*records: Record, prefix: bytes = b"", comment: bytes = b"", shift: int = 0, count: int | None = None) -> bytes:
    body, directory = bytearray(prefix), bytearray()
    for record in records:
        raw, local = record.name.encode(), (record.local_name or record.name).encode()
        crc = zlib.crc32(record.data) if record.crc is None else record.crc
        size = len(record.data) if record.size is None else record.size
        offset = len(body) if record.offset is None else record.offset
        head = (record.flags, record.method, 0, 0, crc, size & 0xFFFFFFFF, size & 0xFFFFFFFF)
        directory += struct.pack("<4s6H3I5H2I", b"PK\x01\x02", 0, 0, *head, len(raw), len(record.extra), 0, 0, 0, 0, offset)
        directory += raw + record.extra
        body += struct.pack("<4s5H3I2H", b"PK\x03\x04", 0, *head, len(local), record.local_extra) + local + record.data
    number_of = len(records) if count is None else count
    end = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, number_of, number_of, len(directory), len(body) + shift, len(comment))
    return bytes(body + directory + end + comment)


def parts(tree: bytes, data: bytes = STORAGE, **changes: object) -> list[Record]:
    """The records of an honest file with one storage; `changes` go to the record of that storage."""
    honest = Record("archive/data/0", data)
    return [Record("archive/data.pkl", tree), replace(honest, **changes), Record("archive/version", b"3\n")]  # type: ignore[arg-type]


def zipped(tree: bytes, data: bytes = STORAGE) -> bytes:
    return archive(*parts(tree, data))


MAGIC = pickle.dumps(0x1950A86A20F9469CFC6C, 2)
VERSION = pickle.dumps(1001, 2)
SYSTEM = pickle.dumps({"protocol_version": 1001, "little_endian": True, "type_sizes": {}}, 2)


def legacy(
    tree: bytes, keys: bytes = pickle.dumps(["0"], 2), data: bytes = STORAGE, numel: int = 6, tail: bytes = b""
) -> bytes:
    return MAGIC + VERSION + SYSTEM + tree + keys + struct.pack("<q", numel) + data + tail


HONEST_TREE = entry(tensor())
HONEST_LEGACY_TREE = entry(tensor(storage(legacy=True)))


def safetensors_bytes(header: object, data: bytes = bytes(24), length: int | None = None) -> bytes:
    """A safetensors file with this header, as JSON or as raw bytes."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw) if length is None else length) + raw + data
