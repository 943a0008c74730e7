"""A pickle reader that can only build data: it knows names, and never imports, looks up or calls one.

It is an own opcode machine for protocols 2 to 5. A class or function that a pickle names becomes a `GlobalName`; calling
one of the few names that torch itself writes builds the plain value that the call would have built; calling any other
name leaves an `Opaque` record of the attempt. Opcodes that no checkpoint needs are refused, and so is everything whose
cost is out of proportion to its size.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from hubcore.checkpoints.formats.pickle_calls import Calls
from hubcore.checkpoints.formats.records import GlobalName, Opaque, check_walk
from hubcore.checkpoints.formats.tensor_ref import StorageRef, TensorRef, damaged, unsafe
from hubcore.errors import CheckpointError

__all__ = ["GlobalName", "Opaque", "StorageRef", "TensorRef", "read_pickle", "read_pickle_prefix"]

MAX_PICKLE_BYTES = 32 << 20
MAX_OPCODES = 2_000_000
MAX_CONTAINERS = 300_000  # lists, tuples, dicts, names, records: what costs 64 bytes or more each
MAX_MARKS = 1_000
MAX_TEXT = 16 << 20
MAX_NAME = 500
MAX_INT_BYTES = 32


class TruncatedPickleError(CheckpointError):
    """A pickle needs more bytes than were read so far."""


PersistentLoad = Callable[[object], object]
InlineLoad = Callable[[Opaque, bytes, int], tuple[object, int] | None]
"""From a record that was just filled, the bytes and the position in them: the value that stands for it, and the position after
the bytes that belong to it, which are no pickle; None for an ordinary record."""


def read_pickle(data: bytes | memoryview, *, persistent_load: PersistentLoad) -> object:
    r"""The value that the pickle `data` describes; `data` holds that one pickle and nothing else.

    Values are None, bool, int, float, str, bytes, list, tuple, dict (ordered and default dicts too), `TensorRef`,
    `GlobalName`, `Opaque`, and what `persistent_load` returns. Lists, tuples and dicts do not contain themselves, are
    nested at most 100 deep, and a walk through them ends soon; records may refer to each other in circles.

    Args:
        data: The bytes.
        persistent_load: Maps a persistent id to the value that stands for it.

    Raises:
        UnsafeCheckpointError: The pickle asks for more than plain data, or for too much of it.
        CheckpointError: The pickle is malformed.

    Example:
        >>> read_pickle(b"\x80\x02}X\x01\x00\x00\x00aK\x07s.", persistent_load=lambda key: key)
        {'a': 7}
    """
    if len(data) > MAX_PICKLE_BYTES:
        raise unsafe(f"its pickle has more than {MAX_PICKLE_BYTES} bytes")
    value, end = read_pickle_prefix(data, persistent_load=persistent_load)
    if end != len(data):
        raise unsafe(f"{len(data) - end} bytes follow the end of its pickle")
    return value


def read_pickle_prefix(
    data: bytes | memoryview,
    start: int = 0,
    *,
    persistent_load: PersistentLoad,
    inline_load: InlineLoad | None = None,
    max_opcodes: int = MAX_OPCODES,
) -> tuple[object, int]:
    """The value of the pickle that starts at `start`, and the position after it. See `read_pickle`.

    Args:
        data: The bytes.
        start: The position of the first one.
        persistent_load: Maps a persistent id to the value that stands for it.
        inline_load: Reads what stands between the instructions, where a program puts arrays there.
        max_opcodes: The most instructions.

    Raises:
        TruncatedPickleError: `data` ends before the pickle does.
    """
    machine = _Machine(bytes(data), start, persistent_load, inline_load)
    try:
        value = machine.run(max_opcodes)
        check_walk(value)
    except CheckpointError:
        raise
    except (IndexError, KeyError, TypeError, ValueError, OverflowError, struct.error) as error:
        if machine.at >= len(machine.data):
            raise _truncated(len(machine.data)) from error
        raise damaged(f"its pickle is malformed at byte {machine.at} ({type(error).__name__})") from error
    except (RecursionError, MemoryError) as error:
        raise unsafe("its pickle needs more memory than there is") from error
    return value, machine.at


def _truncated(size: int) -> TruncatedPickleError:
    return TruncatedPickleError(str(damaged(f"its pickle does not end within its {size} bytes")))


class _Machine:
    """One run over one pickle: a stack, the positions of marks on it, and a memo."""

    def __init__(self, data: bytes, start: int, persistent_load: PersistentLoad, inline_load: InlineLoad | None = None) -> None:
        self.data = data
        self.at = start
        self.persistent_load = persistent_load
        self.inline_load = inline_load
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: list[Any] = []
        self.calls = Calls()
        self.containers_left = MAX_CONTAINERS

    def run(self, max_opcodes: int) -> object:
        if self.data[self.at : self.at + 1] != b"\x80":
            raise damaged("it does not start with a pickle of protocol 2 or newer")
        data, table = self.data, _OPCODES
        for _ in range(max_opcodes):
            code = data[self.at]
            self.at += 1
            if code == _STOP:
                break
            table[code](self)
        else:
            raise unsafe(f"its pickle has more than {max_opcodes} instructions")
        if len(self.stack) != 1 or self.marks:
            raise damaged(f"its pickle ends with {len(self.stack)} values instead of one")
        return self.stack[0]

    def refuse(self) -> NoReturn:
        code = self.data[self.at - 1]
        raise unsafe(f"its pickle has the instruction 0x{code:02x} at byte {self.at - 1}, which no checkpoint needs")

    def take(self, count: int) -> bytes:
        chunk = self.data[self.at : self.at + count]
        if len(chunk) != count:
            raise _truncated(len(self.data))
        self.at += count
        return chunk

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "little")

    def signed(self, size: int) -> int:
        return int.from_bytes(self.take(size), "little", signed=True)

    def long(self) -> None:
        size = self.number(1)
        if size > MAX_INT_BYTES:
            raise unsafe(f"its pickle has a number of {size} bytes")
        self.stack.append(self.signed(size))

    def protocol(self) -> None:
        version = self.number(1)
        if not 2 <= version <= 5:
            raise damaged(f"its pickle has the unknown protocol {version}")

    def frame(self) -> None:
        if self.number(8) > len(self.data) - self.at:
            raise _truncated(len(self.data))

    def text(self, size: int) -> None:
        self.stack.append(str(self.chunk(size), "utf-8"))

    def chunk(self, size: int) -> bytes:
        count = self.number(size)
        if count > MAX_TEXT:
            raise unsafe(f"its pickle has a text of {count} bytes")
        return self.take(count)

    def line(self) -> str:
        end = self.data.find(b"\n", self.at, self.at + MAX_NAME + 1)
        if end < 0:
            if self.at + MAX_NAME < len(self.data):
                raise damaged(f"its pickle has a name of more than {MAX_NAME} bytes")
            raise _truncated(len(self.data))
        name = str(self.data[self.at : end], "utf-8")
        self.at = end + 1
        return name

    def name(self, module: object, name: object) -> None:
        if not isinstance(module, str) or not isinstance(name, str) or not 0 < len(module) + len(name) <= MAX_NAME:
            raise damaged(f"its pickle names something that is no name, at byte {self.at}")
        self.contain(GlobalName(module, name))

    def contain(self, value: object) -> None:
        self.containers_left -= 1
        if self.containers_left < 0:
            raise unsafe(f"its pickle has more than {MAX_CONTAINERS} containers")
        self.stack.append(value)

    def mark(self) -> None:
        if len(self.marks) >= MAX_MARKS:
            raise unsafe(f"its pickle is nested more than {MAX_MARKS} deep")
        self.marks.append(len(self.stack))

    def since_mark(self) -> list[Any]:
        start = self.marks.pop()
        if start > len(self.stack):
            raise damaged(f"its pickle takes values from before a mark, at byte {self.at}")
        values = self.stack[start:]
        del self.stack[start:]
        return values

    def wrap(self, count: int) -> None:
        values = tuple(self.stack[-count:])
        if len(values) != count:
            raise damaged(f"its pickle takes {count} values from a stack of {len(values)}, at byte {self.at}")
        del self.stack[-count:]
        self.contain(values)

    def remember(self, index: int) -> None:
        # Every pickler numbers its values in order (Python 2's from 1 on); a list makes that the only way.
        if index == len(self.memo) + 1:
            self.memo.append(_UNSET)
        if index > len(self.memo):
            raise unsafe(f"its pickle stores a value as number {index}, out of order, at byte {self.at}")
        self.memo[index : index + 1] = [self.stack[-1]]

    def recall(self, index: int) -> None:
        if index >= len(self.memo) or self.memo[index] is _UNSET:
            raise damaged(f"its pickle refers to the value {index}, which it never stored, at byte {self.at}")
        self.stack.append(self.memo[index])

    def set_items(self, values: Sequence[Any]) -> None:
        target = self.stack[-1]
        if len(values) % 2:
            raise damaged(f"its pickle gives a dict a key without a value, at byte {self.at}")
        pairs = zip(values[::2], values[1::2], strict=True)
        if type(target) is dict:
            self.calls.fill(target, pairs)
        elif type(target) is Opaque:
            target.items = target.items if type(target.items) is list else []
            target.items.extend(pairs)
        else:
            raise unsafe(f"its pickle puts items into a {type(target).__name__}, at byte {self.at}")

    def append(self, values: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is list:
            target.extend(values)
        elif type(target) is Opaque:
            target.elements = target.elements if type(target.elements) is list else []
            target.elements.extend(values)
        else:
            raise unsafe(f"its pickle appends to a {type(target).__name__}, at byte {self.at}")

    def build(self) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        if type(target) is Opaque:
            if target.state is not None:
                raise unsafe(f"its pickle fills {target!r} twice")
            target.state = state
            found = self.inline_load(target, self.data, self.at) if self.inline_load else None
            if found is not None:
                self.stack[-1], self.at = found
        elif type(target) is not dict:
            # A dict here was an OrderedDict; its attributes (torch's `_metadata`) are not needed.
            raise unsafe(f"its pickle sets attributes of a {type(target).__name__}, at byte {self.at}")

    def call(self) -> None:
        args = self.stack.pop()
        function = self.stack.pop()
        if type(function) is not GlobalName or type(args) is not tuple:
            raise unsafe(f"its pickle calls something other than a name, at byte {self.at}")
        self.contain(self.calls.result(function, args))

    def new(self) -> None:
        args = self.stack.pop()
        kind = self.stack.pop()
        if type(kind) is not GlobalName or type(args) is not tuple:
            raise unsafe(f"its pickle makes an instance of something other than a name, at byte {self.at}")
        known = kind.dotted in ("collections.OrderedDict", "collections.defaultdict")
        self.contain({} if known and not args else Opaque(kind.module, kind.name, args))


_KNOWN: dict[int, Callable[[_Machine], object]] = {
    0x80: _Machine.protocol,
    0x95: _Machine.frame,
    ord("N"): lambda m: m.stack.append(None),
    0x88: lambda m: m.stack.append(True),
    0x89: lambda m: m.stack.append(False),
    ord("J"): lambda m: m.stack.append(m.signed(4)),
    ord("K"): lambda m: m.stack.append(m.number(1)),
    ord("M"): lambda m: m.stack.append(m.number(2)),
    0x8A: _Machine.long,
    ord("G"): lambda m: m.stack.extend(struct.unpack(">d", m.take(8))),
    ord("X"): lambda m: m.text(4),
    0x8C: lambda m: m.text(1),
    0x8D: lambda m: m.text(8),
    ord("U"): lambda m: m.text(1),  # Python 2's str
    ord("T"): lambda m: m.text(4),
    ord("B"): lambda m: m.stack.append(m.chunk(4)),
    ord("C"): lambda m: m.stack.append(m.chunk(1)),
    0x8E: lambda m: m.stack.append(m.chunk(8)),
    0x96: lambda m: m.stack.append(m.chunk(8)),
    ord(")"): lambda m: m.stack.append(()),
    0x85: lambda m: m.wrap(1),
    0x86: lambda m: m.wrap(2),
    0x87: lambda m: m.wrap(3),
    ord("t"): lambda m: m.contain(tuple(m.since_mark())),
    ord("]"): lambda m: m.contain([]),
    ord("}"): lambda m: m.contain({}),
    0x8F: lambda m: m.contain(Opaque("builtins", "set")),
    0x91: lambda m: m.contain(Opaque("builtins", "frozenset", elements=m.since_mark())),
    ord("("): _Machine.mark,
    ord("0"): lambda m: m.stack.pop(),
    ord("1"): _Machine.since_mark,
    ord("2"): lambda m: m.stack.append(m.stack[-1]),
    ord("a"): lambda m: m.append([m.stack.pop()]),
    ord("e"): lambda m: m.append(m.since_mark()),
    0x90: lambda m: m.append(m.since_mark()),
    ord("s"): lambda m: m.set_items((m.stack.pop(-2), m.stack.pop())),
    ord("u"): lambda m: m.set_items(m.since_mark()),
    ord("q"): lambda m: m.remember(m.number(1)),
    ord("r"): lambda m: m.remember(m.number(4)),
    0x94: lambda m: m.remember(len(m.memo)),
    ord("h"): lambda m: m.recall(m.number(1)),
    ord("j"): lambda m: m.recall(m.number(4)),
    ord("c"): lambda m: m.name(m.line(), m.line()),
    0x93: lambda m: m.name(m.stack.pop(-2), m.stack.pop()),
    ord("Q"): lambda m: m.contain(m.persistent_load(m.stack.pop())),
    ord("R"): _Machine.call,
    0x81: _Machine.new,
    ord("b"): _Machine.build,
}
_UNSET = object()
_STOP = ord(".")
_OPCODES = tuple(_KNOWN.get(code, _Machine.refuse) for code in range(256))
