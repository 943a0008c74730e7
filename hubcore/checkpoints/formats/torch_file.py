"""Files of `torch.save` (`.pt`, `.bin`, `.ckpt`), read as data: the structure at once, tensors on demand."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from hubcore.checkpoints.formats.file_bytes import Span, TensorFile
from hubcore.checkpoints.formats.pickle_reader import MAX_PICKLE_BYTES, TruncatedPickleError, read_pickle, read_pickle_prefix
from hubcore.checkpoints.formats.records import GlobalName
from hubcore.checkpoints.formats.tensor_ref import STORAGE_DTYPES, StorageRef, damaged, not_the_file, unsafe
from hubcore.checkpoints.formats.zip_index import ZipIndex
from hubcore.errors import CheckpointError

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001
_STORAGE_MODULES = ("torch", "torch.storage", "torch.cuda")
_KEY = re.compile(r"[0-9A-Za-z_]{1,64}", re.ASCII)


class TorchFile(TensorFile):
    """A file of `torch.save`, zipped or from before torch 1.6, opened without running anything from it.

    `tree` is what was saved, with a `TensorRef` for every tensor and an inert `Opaque` record for every object of a
    class that torch does not define; lists, tuples, dicts and plain values are themselves. Checksums are compared when
    tensors are read.

    Raises:
        UnsafeCheckpointError: The file asks for more than plain data.
        CheckpointError: The file is missing, damaged or of another kind.

    Example:
        >>> import tempfile, torch
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     torch.save({"model": {"weight": torch.ones(2, 3)}}, f"{folder}/tiny.pt")
        ...     with TorchFile(f"{folder}/tiny.pt") as file:
        ...         ref = file.tree["model"]["weight"]
        ...         ref.shape, file.read(ref).sum()
        ((2, 3), tensor(6.))
    """

    def _open(self) -> None:
        self._storages: dict[str, StorageRef] = {}
        self._locate: Callable[[str], Span]
        head = self._bytes.read_at(0, min(self._bytes.size, 512))
        if head.startswith(b"PK\x03\x04"):
            self.tree: Any = self._open_zip(ZipIndex(self._bytes))
        elif head.startswith(b"\x80"):
            self.tree = self._open_legacy()
        else:
            raise _foreign(head)

    def _span(self, storage: StorageRef) -> Span | None:
        return self._locate(storage.key) if self._storages.get(storage.key) == storage else None

    def _open_zip(self, index: ZipIndex) -> object:
        if any(name == "constants.pkl" or name == "model.json" or name.startswith("code/") for name in index.names()):
            raise unsafe("it is a TorchScript archive, that is, a program")
        if "data.pkl" not in index:
            raise damaged("it is a zip archive without the record that torch.save writes (data.pkl)")
        if "byteorder" in index and index.read("byteorder", 16) != b"little":
            raise CheckpointError(
                "it was saved on a big-endian machine. Only little-endian files are read. "
                "Load it with torch on any machine and save it again."
            )

        def storage(pid: object) -> StorageRef:
            found = self._declare(pid, 5)
            name = f"data/{found.key}"
            size = index.size(name) if name in index else None
            if size != found.nbytes:
                raise unsafe(f"storage {found.key!r} should have {found.nbytes} bytes, but the file has {size or 'none'}")
            return found

        self._locate = lambda key: index.span(f"data/{key}")
        return read_pickle(index.read("data.pkl", MAX_PICKLE_BYTES), persistent_load=storage)

    def _open_legacy(self) -> object:
        # Nothing says where the pickles end, so a short look comes first and a long one only where that is not enough.
        for window in (1 << 20, MAX_PICKLE_BYTES):
            self._storages.clear()
            data = self._bytes.read_at(0, min(window, self._bytes.size))
            try:
                tree, keys, end = self._read_legacy(data)
                break
            except TruncatedPickleError:
                if window >= self._bytes.size:
                    raise
        else:
            raise unsafe(f"its pickles take more than {MAX_PICKLE_BYTES} bytes")
        spans: dict[str, Span] = {}
        for key in keys:
            storage = self._storages[key]
            if int.from_bytes(self._bytes.read_at(end, 8), "little", signed=True) != storage.numel:
                raise unsafe(f"storage {key!r} has another size at its place than in the structure of the file")
            spans[key] = Span(f"storage {key}", end + 8, storage.nbytes)
            end += 8 + storage.nbytes
            if end > self._bytes.size:
                raise damaged(f"it ends inside storage {key!r}")
        if end != self._bytes.size:
            raise unsafe(f"{self._bytes.size - end} bytes follow its last storage")
        self._locate = spans.__getitem__
        return tree

    def _read_legacy(self, data: bytes) -> tuple[object, list[str], int]:
        def none(_: object) -> object:
            raise damaged("its header refers to a tensor")

        magic, end = read_pickle_prefix(data, persistent_load=none, max_opcodes=20)
        if type(magic) is not int or magic != _LEGACY_MAGIC:
            raise damaged("it is a pickle, but not one that torch.save wrote")
        protocol, end = read_pickle_prefix(data, end, persistent_load=none, max_opcodes=20)
        if type(protocol) is not int or protocol != _LEGACY_PROTOCOL:
            raise damaged("it names an unknown version of the format of torch.save")
        system, end = read_pickle_prefix(data, end, persistent_load=none, max_opcodes=100)
        if type(system) is not dict or system.get("little_endian") is not True:
            raise damaged("it was not saved on a little-endian machine")
        tree, end = read_pickle_prefix(data, end, persistent_load=lambda pid: self._declare(pid, 6))
        keys, end = read_pickle_prefix(data, end, persistent_load=none, max_opcodes=4 * len(self._storages) + 100)
        # Text only: keys of other kinds could be costly to compare.
        known = isinstance(keys, list) and all(type(key) is str and key in self._storages for key in keys)
        if not isinstance(keys, list) or not known or not len(set(keys)) == len(keys) == len(self._storages):
            raise unsafe("its list of storages is not the list of those that its structure uses")
        return tree, keys, end

    def _declare(self, pid: object, length: int) -> StorageRef:
        """The storage of a persistent id: ('storage', class, key, location, number of elements[, None])."""
        if type(pid) is not tuple or len(pid) != length or type(pid[0]) is not str or pid[0] != "storage":
            raise damaged("its pickle refers to something that is no storage")
        _, kind, key, location, numel = pid[:5]
        if type(kind) is not GlobalName or kind.module not in _STORAGE_MODULES or kind.name not in STORAGE_DTYPES:
            raise unsafe("it has a storage of a class that holds no plain numbers")
        if type(key) is not str or not _KEY.fullmatch(key) or type(location) is not str or location == "meta":
            raise unsafe("it has a storage with an odd name or place")
        if type(numel) is not int or not 0 <= numel < 1 << 48 or pid[5:] not in ((), (None,)):
            raise unsafe(f"its storage {key!r} has a size that is none, or is a view of another storage")
        storage = StorageRef(key, STORAGE_DTYPES[kind.name], numel, location[:64])
        known = self._storages.setdefault(key, storage)
        if (known.dtype, known.numel) != (storage.dtype, storage.numel):
            raise unsafe(f"its storage {key!r} is described in two ways")
        return known


def _foreign(head: bytes) -> CheckpointError:
    """The error for a file that is no file of `torch.save`, with a guess at what it is."""
    known = not_the_file(head)
    if known:
        return known
    if not head:
        what = "it is empty"
    elif head[257:262] == b"ustar":
        what = "it is a tar archive: unpack it first, if a checkpoint is in it"
    elif head[8:9] == b"{":
        what = "it is not a file of torch.save, though it may be a safetensors file"
    else:
        what = "it does not start like a file of torch.save"
    return damaged(what)
