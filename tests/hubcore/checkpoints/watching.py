"""What the interpreter does while a file is read, seen by an audit hook: every import, open, call of a shell, connection."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

Event: TypeAlias = tuple[str, tuple[object, ...]]
FORBIDDEN = ("exec", "compile", "import", "pickle.find_class", "socket.", "subprocess.", "os.", "shutil.", "ctypes.")
HARMLESS = ("os.listdir", "os.scandir", "os.putenv")

_seen: list[Event] | None = None
_hooks: list[Callable[..., None]] = []


def _watch(event: str, args: tuple[object, ...]) -> None:
    if _seen is not None:
        _seen.append((event, args))


@contextmanager
def watching() -> Iterator[list[Event]]:
    """Everything that happens meanwhile. The hook cannot be taken out again; outside it does nothing."""
    global _seen
    if not _hooks:
        sys.addaudithook(_watch)
        _hooks.append(_watch)
    _seen = events = []
    try:
        yield events
    finally:
        _seen = None


def suspicious(events: list[Event]) -> list[str]:
    """Events that no reader of a file needs: opening for writing, importing, compiling, connecting, starting a process."""
    return [
        f"{'open for writing' if event == 'open' else event} {args!r:.200}"
        for event, args in events
        if (_writes(*args) if event == "open" else event.startswith(FORBIDDEN) and event not in HARMLESS)
    ]


def _writes(_: object, mode: object, flags: object) -> bool:
    # io.FileIO with an opener says nothing of the mode, but os.open says its flags: 3 covers writing and both.
    if isinstance(mode, str):
        return bool(set(mode) & set("wax+"))
    return mode is None and isinstance(flags, int) and bool(flags & 3)
