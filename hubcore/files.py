"""Files that are whole or not there (`write_whole`), bytes that are on the disk (`sync`), folders for one process (`hold`).

An `OSError` goes through to the caller, who knows what the file was for.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import secrets
import shutil
import socket
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hubcore.errors import OptionError
from hubcore.text import logger

try:
    import fcntl
except ImportError:  # Windows has no such lock
    fcntl = None  # type: ignore[assignment]

_log = logger("files")
_CANNOT_SYNC = frozenset((errno.EINVAL, errno.EBADF, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS))
"""Answers to fsync of file systems that have none for this kind of file."""
_said: list[bool] = []
_LOCK = ".hubcore.lock"
IF_DEAD = f"If that process is dead, use --force-unlock, or delete the file {_LOCK} there."
"""Advice for a folder that is held."""
_BEAT = 30.0
"""Seconds between two signs of life of who holds a folder."""
SILENT = 300.0
"""Seconds without one after which a process of another machine counts as dead."""
_SETTLE = 0.5
_LINGER = 5.0
"""Seconds for which a lock may outlive its process."""
_WAIT = 0.2
"""Seconds between two attempts to hold a folder that another process holds for a moment."""


_AGAIN = "Fetch it again; its address may ask for a login."
_STAND_INS = (
    (b"version https://git-lfs", "a git-lfs pointer", "The file itself was not fetched: run `git lfs pull`."),
    (b"/annex/objects/", "a git-annex pointer", "The file itself was not fetched: run `git annex get` on it."),
    (b"<!doctype", "an HTML page", _AGAIN),
    (b"<html", "an HTML page", _AGAIN),
    (b"<head", "an HTML page", _AGAIN),
    (b"<?xml", "an XML document", _AGAIN),
    (b"\x1f\x8b", "compressed with gzip", "Unpack it with `gunzip`."),
)


@contextlib.contextmanager
def write_whole(
    path: str | os.PathLike[str], *, durable: bool = True, folder: bool = False, replace: bool = True
) -> Iterator[Path]:
    """Gives a temporary path beside `path` to write to, which takes the name `path` when the block ends without an error.

    After an error the temporary file is gone and what was at `path` is still there. It gets the permissions of any new file,
    those of the umask. Its name is short, as that of `path` may be as long as a name can be, and never ends like a whole file.

    Args:
        path: the file to make or replace; its folder must exist.
        durable: wait until it is on the disk. Without, a power cut (not a killed process) may leave an empty file.
        folder: give a new folder instead of a new file; a folder with something in it is never replaced.
        replace: replace an existing file.

    Raises:
        FileExistsError: something is there and `replace` is False, even if it appeared in the meantime.
        OSError: the file system refused; nothing was changed.

    Example:
        >>> import tempfile
        >>> target = Path(tempfile.mkdtemp()) / "a.txt"
        >>> with write_whole(target) as temporary:
        ...     _ = temporary.write_text("all of it")
        >>> target.read_text(), len(list(target.parent.iterdir()))
        ('all of it', 1)
    """
    path = Path(path)
    temporary = path.parent / f".{secrets.token_hex(8)}.part"
    try:
        if folder:
            temporary.mkdir()
        else:
            os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        mode = stat.S_IMODE(temporary.stat().st_mode)
        yield temporary
        if stat.S_IMODE(temporary.stat().st_mode) != mode:  # some libraries put a private file of their own there
            temporary.chmod(mode)
        if durable:
            for written in sorted(temporary.rglob("*"), reverse=True) if folder else ():
                sync(written)
            sync(temporary)
        if replace:
            os.replace(temporary, path)
        else:
            _name_new(temporary, path)
        if durable:
            sync(path.parent)
    finally:
        if folder:
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)


def _name_new(temporary: Path, path: Path) -> None:
    """Gives a file or a folder a name that nothing has yet."""
    try:
        if not temporary.is_dir():
            os.link(temporary, path)  # unlike a rename, a link never takes the place of a file
            return
    except FileExistsError:
        raise
    except OSError:
        pass  # a file system without links; then another process could come in between
    if os.path.lexists(path):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
    os.rename(temporary, path)


def read_small(path: str | os.PathLike[str], limit: int) -> bytes:
    """The bytes of a file from elsewhere that must be small: a config, an index, a record.

    Raises:
        ValueError: it is larger than `limit` bytes.
        OSError: it cannot be read, or is no regular file (a device or a pipe may never end).

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "a.json"
        >>> _ = path.write_text("{}")
        >>> read_small(path, limit=100)
        b'{}'
    """
    data = read_regular(path, limit + 1)
    if len(data) > limit:
        raise ValueError(f"it is larger than {limit} bytes")
    return data


def read_regular(path: str | os.PathLike[str], most: int = -1) -> bytes:
    """The bytes of a regular file, at most so many if `most` is not negative; never waits for a pipe, never reads a device.

    Raises:
        OSError: it is something else, or cannot be read.

    Example:
        >>> read_regular(os.devnull)
        Traceback (most recent call last):
        OSError: [Errno 22] it is not a regular file: '/dev/null'
    """
    with open(path, "rb", opener=open_at_once) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file", os.fspath(path))
        return file.read(most)


def open_at_once(path: str, flags: int) -> int:
    """Opens a file as an `opener` of `open()`, which does not wait for the other end of a pipe."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0), 0o666)


def parse_json(data: str | bytes) -> Any:
    """JSON from elsewhere as plain values, strictly: no NaN or infinity, no key twice.

    Raises:
        ValueError: it is anything else, or nested too deep.

    Example:
        >>> parse_json('{"a": [1]}')
        {'a': [1]}
    """
    try:
        return json.loads(data, object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite)
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a key is there twice")
    return made


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} stands where a number should be")


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"the number {text[:20]} is too large")
    return number


def sync(file: str | os.PathLike[str] | int) -> None:
    """Returns when a file (a path or an open descriptor), or the list of names of a folder, is on the disk.

    Where the file system cannot promise that (some network and user-space ones), the log says so once and the call returns.

    Raises:
        OSError: the disk failed or is full.
    """
    if isinstance(file, int):
        _sync(file, f"descriptor {file}")
        return
    try:
        descriptor = os.open(file, os.O_RDWR)  # some systems sync no descriptor that is open for reading only
    except (PermissionError, IsADirectoryError):
        try:
            descriptor = os.open(file, os.O_RDONLY)
        except PermissionError:
            if not os.path.isdir(file):
                raise
            return  # Windows opens no folders
    try:
        _sync(descriptor, file)
    finally:
        os.close(descriptor)


def _sync(descriptor: int, name: object) -> None:
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _CANNOT_SYNC:
            raise
        if not _said:
            _said.append(True)
            _log.warning("%s cannot be synced (%s); after a power cut, files written here may be incomplete", name, error)


def output_folder(path: str | os.PathLike[str]) -> Path:
    """The folder that a text names; an empty text, perhaps an unset variable of a script, is no name of the working folder.

    Raises:
        OptionError: it is empty.
    """
    if not os.fspath(path):
        raise OptionError("the output folder is ''.", "Name one; the working folder is '.'.")
    return Path(path)


def hold(folder: Path, *, force: bool = False, brief: bool = False) -> contextlib.ExitStack:
    """Holds a folder against other processes until the result is closed, or this process ends; creates it first.

    The system's lock tells processes of one machine apart. Where it does nothing, or not between machines, as on some network
    file systems, a lock file with host, pid and time does, which its owner touches as long as it lives.
    `force` takes no notice of it. `brief` holds the folder for a moment only, and waits for others that do so too.

    Raises:
        BlockingIOError: another process holds it; `strerror` says which one.
        OSError: it cannot be created.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> with hold(folder):
        ...     try:
        ...         hold(folder)
        ...     except BlockingIOError:
        ...         print("in use")
        in use
    """
    until = time.monotonic() + _LINGER
    while True:
        try:
            return _hold(folder, force, brief)
        except BlockingIOError:
            record = _read_lock(folder / _LOCK)
            both_brief = brief and (record or {"brief": True}).get("brief")
            # A command that a killed process was just starting holds its files until it runs.
            lingers = record is not None and not _lives(record, 0.0, locked=False) and time.monotonic() < until
            if not both_brief and not lingers:
                raise
        time.sleep(_WAIT)


def _hold(folder: Path, force: bool, brief: bool) -> contextlib.ExitStack:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / _LOCK
    with contextlib.ExitStack() as stack:
        locked = _lock(folder, stack)
        record: dict[str, Any] = {"host": socket.gethostname(), "pid": os.getpid(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
        mine = json.dumps(record | ({"brief": True} if brief else {}))
        there = _read_lock(path)
        try:
            with write_whole(path, durable=False, replace=there is not None) as temporary:
                temporary.write_text(mine, encoding="utf-8")
                silent = temporary.stat().st_mtime - path.stat().st_mtime if there is not None else 0.0
                if there is not None and not force and _lives(there, silent, locked):
                    raise _in_use(path)
            if there is not None and not locked:
                time.sleep(_SETTLE)  # of several that replace the file of a dead process at once, the last one has it
            if path.read_text(encoding="utf-8") != mine:
                raise _in_use(path)
        except FileExistsError as error:
            raise _in_use(path) from error
        except BlockingIOError:
            raise
        except OSError:  # no file can be written here
            return stack.pop_all()
        stop = threading.Event()
        threading.Thread(target=_beat, args=(path, stop), daemon=True).start()
        stack.callback(_release, path, mine, stop)
        return stack.pop_all()


def _lock(folder: Path, held: contextlib.ExitStack) -> bool:
    """Takes the system's lock; True if it really keeps others out. Raises `BlockingIOError` if another process has it."""
    if fcntl is None:
        return False
    for again in (False, True):
        descriptor = os.open(folder, os.O_RDONLY)
        held.callback(os.close, descriptor)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                return False
            if not again:
                raise _in_use(folder / _LOCK) from error
            return True
    return False  # a lock that can be taken twice is none


def _read_lock(path: Path) -> dict[str, Any] | None:
    """The record of a lock file; empty if it is not one, None if there is none."""
    try:
        record = parse_json(read_small(path, 1 << 12))
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def _lives(record: dict[str, Any], silent: float, locked: bool) -> bool:
    """True if the process of a lock file may be alive, that has not touched it for `silent` seconds."""
    pid = record.get("pid")
    if record.get("host") != socket.gethostname() or os.name == "nt" or not isinstance(pid, int):
        return silent < SILENT
    if locked:
        return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


def _beat(path: Path, stop: threading.Event) -> None:
    while not stop.wait(_BEAT):
        with contextlib.suppress(OSError):
            os.utime(path)


def _release(path: Path, mine: str, stop: threading.Event) -> None:
    stop.set()
    with contextlib.suppress(OSError):
        if path.read_text(encoding="utf-8") == mine:
            path.unlink()


def _in_use(path: Path) -> BlockingIOError:
    record = _read_lock(path) or {}
    who = "{pid} on {host} since {since}".format_map(record) if {"pid", "host", "since"} <= record.keys() else "unknown"
    return BlockingIOError(errno.EWOULDBLOCK, f"process {who}", str(path.parent))


def stand_in(head: bytes) -> tuple[str, str] | None:
    """The kind of a file that stands where another should, and what to do about it; None if it is none that is known.

    Example:
        >>> stand_in(b"version https://git-lfs.github.com/spec/v1")
        ('a git-lfs pointer', 'The file itself was not fetched: run `git lfs pull`.')
    """
    start = head[:64].lstrip().lower()
    return next((found[1:] for found in _STAND_INS if start.startswith(found[0])), None)
