"""File formats of features: `FeatureWriter`, the methods of a format, and `NpyWriter`, the default.

A plugin adds a format with the hook `hubcore_feature_writers`; `hubcore extract --format NAME` then makes one writer of that
class for the run, and calls `holds` for what an earlier run finished, `write` for each utterance, and `close`:

```python
from hubcore.hooks import hookimpl

@hookimpl
def hubcore_feature_writers():
    from acme_speech.torch_writer import TorchWriter
    return {"pt": TorchWriter}
```

Shapes: `L` layers, `F` frames, `D` dim.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, cast, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from hubcore.errors import AudioError, ExtractionError, HubcoreError, OptionError, PluginError
from hubcore.extract.finished import PARTIAL, check_no_link
from hubcore.files import sync
from hubcore.guests import as_guest
from hubcore.hooks import FORMATS, current_hooks
from hubcore.text import error_text, printable, text_path

if TYPE_CHECKING:
    from hubcore.extract.settings import Settings

_OF_ONE_NAME = (errno.ENAMETOOLONG, errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENOTEMPTY, errno.EILSEQ)
"""Errors that concern one file name only: too long, in the way of another, not in the file system's characters."""


class FeatureWriter(Protocol):
    """One format of feature files. A file must appear whole or not at all, and be whole when `write` returns.

    A class that has these four methods is one; nothing need be inherited. The manifest, the failures and the lock on the
    folder are kept by the caller. What more a format may have: `BlockWriter`, `Indexed`, `Readable`, `Choosy`.
    """

    def __init__(self, folder: Path) -> None:
        """A writer into the existing folder `folder`, which may hold what a killed run left behind.

        Other processes may have one each for the same folder, for other utterances (`--shard`, `--engine ray`).
        """
        ...

    def write(self, utterance: str, features: NDArray[Any]) -> str:
        """Writes `(F, D)` or `(L, F, D)` and returns the file's path relative to the folder, with `/` between folders.

        Pooled features have no `F`: they are `(D,)` or `(L, D)`.

        Args:
            utterance: its name in the manifest (for `text_path`), which may have `/` in it; no two of one folder are the same.
            features: float32 or float16, finite. bfloat16 comes as uint16, its bits, to a format that does not refuse it.

        Raises:
            ExtractionError: it cannot be written, and neither could others be: the run ends. Any other exception costs
                this utterance alone.
        """
        ...

    def holds(self, file: str, shape: tuple[int, ...], dtype: str) -> bool:
        """True if a file of an earlier run exists and is whole, with the array that its manifest row promises."""
        ...

    def close(self) -> None:
        """Finishes, and removes whatever is only temporary."""
        ...


@runtime_checkable
class BlockWriter(Protocol):
    """A format that keeps many utterances in one file, a shard.

    The utterances of a run are cut into blocks once (`plan.jsonl`), so a shard holds the same ones however often the run was
    killed. Its file must appear, whole, in `end_block`; only then do the rows of its utterances enter the manifest. A block
    that is not finished is begun again.
    """

    def begin_block(self, number: int) -> None:
        """Begins the shard of a block; the writes that follow are of its utterances, in the same order each time."""
        ...

    def end_block(self) -> None:
        """Gives the shard, with what was written since `begin_block`, its name, in place of an earlier one.

        Raises:
            ExtractionError: the file system refuses.
        """
        ...


@runtime_checkable
class Indexed(Protocol):
    """A format with files that name all the others, for the programs that read it."""

    def index(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Writes them; called at the end of each run with all rows of the manifest, in their order.

        Raises:
            ExtractionError: the file system refuses.
        """
        ...


@runtime_checkable
class Readable(Protocol):
    """A format that `hubcore.features.open` reads."""

    @classmethod
    def read(cls, folder: Path, row: Mapping[str, Any]) -> NDArray[Any]:
        """The array of a manifest row, mapped into memory where the format allows it; bfloat16 as float32."""
        ...


@runtime_checkable
class Choosy(Protocol):
    """A format that holds some features and not others."""

    @classmethod
    def refuses(cls, settings: Settings) -> str:
        """The reason, in a sentence, why it cannot hold features of these settings; empty if it can."""
        ...


class FileWriter:
    """The part of a writer that makes whole files: written into a folder of partial files, then renamed."""

    place: ClassVar[str] = "features"
    """The folder of the files, inside the output folder."""

    def __init__(self, folder: Path) -> None:
        """A writer into `folder`.

        Raises:
            ExtractionError: a folder in it is a link, through which files would be written elsewhere.
        """
        self.folder = folder
        self._partial = folder / f"{PARTIAL}-{secrets.token_hex(4)}"  # other processes may write into this folder too
        check_no_link(folder / self.place)
        self._count = 0

    @contextlib.contextmanager
    def new_file(self, file: str) -> Iterator[Path]:
        """Gives a path to write to, which becomes `file` when the block ends without an error.

        Raises:
            AudioError: the file system refuses this name.
            ExtractionError: the file system refuses any.
        """
        with self.refusals(file):
            partial = self.partial()
        try:
            with self.refusals(file):
                yield partial
                self.put(partial, file)
        finally:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)

    def partial(self) -> Path:
        """A path in the folder of partial files that nothing has yet."""
        self._partial.mkdir(parents=True, exist_ok=True)
        self._count += 1
        return self._partial / str(self._count)

    def put(self, partial: Path, file: str) -> None:
        """Renames a finished file."""
        target = self.folder / text_path(file)
        if "/" in file:
            (self.folder / self.place).mkdir(exist_ok=True)
        sync(partial)  # before its row is, or a power cut could leave a row for a file of zeros
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(partial, target)
        except OSError as error:
            if error.errno not in _OF_ONE_NAME:
                raise
            raise AudioError(
                f"{printable(target)} cannot be written: {error.strerror}. Its name is too long or in the way of another.",
                fix="Rename the audio file, or remove what stands there.",
            ) from error

    @contextlib.contextmanager
    def refusals(self, file: str) -> Iterator[None]:
        """Turns an answer of the file system into an `ExtractionError` that names `file`."""
        try:
            yield
        except OSError as error:
            raise ExtractionError(
                f"{printable(self.folder / text_path(file))} cannot be written: {error.strerror or error}. What is in the "
                "manifest is whole.",
                fix="Make room, then run the same command again to resume.",
            ) from error

    def close(self) -> None:
        """Removes the folder of partial files."""
        shutil.rmtree(self._partial, ignore_errors=True)


class NpyWriter(FileWriter):
    """One `.npy` file per utterance, below `features/`.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> writer = NpyWriter(folder)
        >>> file = writer.write("anna/1", np.zeros((3, 2), dtype=np.float32))
        >>> writer.close()
        >>> file, np.load(folder / file).shape
        ('features/anna/1.npy', (3, 2))
    """

    @classmethod
    def refuses(cls, settings: Settings) -> str:
        """NumPy has no bfloat16."""
        return no_bfloat16(settings)

    def write(self, utterance: str, features: NDArray[Any]) -> str:
        """Writes `(F, D)` or `(L, F, D)` to `features/<utterance>.npy` in one step.

        Raises:
            AudioError: the file system refuses this name.
            ExtractionError: the file system refuses any.
        """
        file = f"{self.place}/{utterance}.npy"
        with self.new_file(file) as partial, open(partial, "wb") as stream:
            # In C order; what lies in another is written some at a time, as it may be larger than memory.
            np.save(stream, features.copy() if features.flags.fnc else features, allow_pickle=False)
        return file

    def holds(self, file: str, shape: tuple[int, ...], dtype: str) -> bool:
        """True if `file` exists and is whole, with an array of this shape and type."""
        try:
            array = self.read(self.folder, {"file": file})
        except (OSError, ValueError, EOFError):
            return False
        return bool(array.shape == shape and array.dtype == np.dtype(dtype))

    @classmethod
    def read(cls, folder: Path, row: Mapping[str, Any]) -> NDArray[Any]:
        """The array, mapped into memory."""
        return cast("NDArray[Any]", np.load(folder / text_path(row["file"]), mmap_mode="r", allow_pickle=False))


def no_bfloat16(settings: Settings) -> str:
    """The refusal of a format that has no bfloat16."""
    if settings.dtype != "bfloat16":
        return ""
    return f"the format {settings.format} has no bfloat16."


def find_writer(name: str, *, pooled: bool = False) -> type[FeatureWriter]:
    """The class that writes a format: one of hubcore's, or one that a plugin brings.

    Args:
        name: such as `npy`.
        pooled: for one vector per utterance, of which `npy` makes a table.

    Raises:
        OptionError: no such format; the message lists those there are.

    Example:
        >>> find_writer("npy").__name__
        'NpyWriter'
    """
    if name in FORMATS:
        place = "hubcore.extract.formats.npy_table:NpyTableWriter" if pooled and name == "npy" else FORMATS[name]
        module, _, attribute = place.partition(":")
        return cast("type[FeatureWriter]", getattr(importlib.import_module(module), attribute))
    writers: dict[str, type[FeatureWriter]] = current_hooks().feature_writers()
    if name not in writers:
        what = f"there is no format called {name!r}. Formats known here are {', '.join(sorted({*FORMATS, *writers}))}."
        raise OptionError(what, fix="Choose one of these, or install the plugin that brings it.")
    return writers[name]


def check_holds(make_writer: type[FeatureWriter], settings: Settings) -> None:
    """Raises `OptionError` if a format cannot hold features of these settings; one that does not say holds no bfloat16."""
    reason = make_writer.refuses(settings) if issubclass(make_writer, Choosy) else no_bfloat16(settings)
    if reason:
        raise OptionError(f"{reason[0].upper()}{reason[1:]}", fix="Choose another --format; `npy` and `safetensors` hold most.")


def open_writer(make_writer: type[FeatureWriter], folder: Path, format: str) -> FeatureWriter:
    """A writer of that class into `folder`; whatever a plugin's constructor raises is a `PluginError`.

    Example:
        >>> import tempfile
        >>> type(open_writer(NpyWriter, Path(tempfile.mkdtemp()), "npy")).__name__
        'NpyWriter'
    """
    where = f"{make_writer.__module__}.{make_writer.__qualname__}"
    fix = "Update its distribution, or use --format npy."

    def fault(error: BaseException) -> BaseException:
        if isinstance(error, HubcoreError):
            return error
        return PluginError(f"{where}, the writer of the format {format!r}, cannot be made: {error_text(error)}.", fix)

    with as_guest(fault):
        return make_writer(folder)
