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
import os
import shutil
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hubcore.errors import AudioError, ExtractionError, HubcoreError, OptionError, PluginError
from hubcore.files import sync
from hubcore.guests import as_guest
from hubcore.text import error_text, printable, text_path

_PARTIAL = ".partial"
"""The folder, inside the output folder, of what is being written."""
_OF_ONE_NAME = (errno.ENAMETOOLONG, errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENOTEMPTY, errno.EILSEQ)
"""Errors that concern one file name only: too long, in the way of another, not in the file system's characters."""


class FeatureWriter(Protocol):
    """One format of feature files. A file must appear whole or not at all, and be whole when `write` returns.

    A class that has these four methods is one; nothing need be inherited. The manifest, the failures and the lock on the
    folder are kept by the caller.
    """

    def __init__(self, folder: Path) -> None:
        """A writer into the existing folder `folder`, which may hold what a killed run left behind."""
        ...

    def write(self, utterance: str, features: NDArray[Any]) -> str:
        """Writes `(F, D)` or `(L, F, D)` and returns the file's path relative to the folder, with `/` between folders.

        Args:
            utterance: its name in the manifest (for `text_path`), which may have `/` in it; no two of one folder are the same.
            features: float32 or float16, finite.

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


class NpyWriter:
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

    def __init__(self, folder: Path) -> None:
        """A writer into `folder`; what an earlier run left half-written there is removed.

        Raises:
            ExtractionError: a folder in it is a link, through which files would be written elsewhere.
        """
        self.folder = folder
        self._partial = folder / _PARTIAL
        for path in (self._partial, folder / "features"):
            if path.is_symlink():
                what = f"{printable(path)} is a link, through which files would be written elsewhere."
                raise ExtractionError(what, fix="Remove it, or link the whole output folder instead.")
        self._count = 0
        shutil.rmtree(self._partial, ignore_errors=True)

    def write(self, utterance: str, features: NDArray[Any]) -> str:
        """Writes `(F, D)` or `(L, F, D)` to `features/<utterance>.npy` in one step.

        Raises:
            AudioError: the file system refuses this name.
            ExtractionError: the file system refuses any.
        """
        file = f"features/{utterance}.npy"
        target = self.folder / text_path(file)
        self._count += 1
        partial = self._partial / f"{self._count}.npy"
        try:
            self._partial.mkdir(parents=True, exist_ok=True)
            (self.folder / "features").mkdir(exist_ok=True)
            with open(partial, "wb") as stream:
                np.save(stream, np.ascontiguousarray(features), allow_pickle=False)
                stream.flush()
                sync(stream.fileno())  # before its row is, or a power cut could leave a row for a file of zeros
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
        except OSError as error:
            raise ExtractionError(
                f"{printable(target)} cannot be written: {error.strerror or error}. What is in the manifest is whole.",
                fix="Make room, then run the same command again to resume.",
            ) from error
        finally:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
        return file

    def holds(self, file: str, shape: tuple[int, ...], dtype: str) -> bool:
        """True if `file` exists and is whole, with an array of this shape and type."""
        try:
            array = np.load(self.folder / text_path(file), mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return False
        return bool(array.shape == shape and array.dtype == np.dtype(dtype))

    def close(self) -> None:
        """Removes the folder of partial files."""
        shutil.rmtree(self._partial, ignore_errors=True)


def find_writer(name: str) -> type[FeatureWriter]:
    """The class that writes a format: `npy`, or one that a plugin brings.

    Raises:
        OptionError: no such format; the message lists those there are.

    Example:
        >>> find_writer("npy").__name__
        'NpyWriter'
    """
    if name == "npy":
        return NpyWriter
    from hubcore.hooks import current_hooks

    writers: dict[str, type[FeatureWriter]] = {**current_hooks().feature_writers(), "npy": NpyWriter}
    if name not in writers:
        what = f"there is no format called {name!r}. Formats known here are {', '.join(sorted(writers))}."
        raise OptionError(what, fix="Choose one of these, or install the plugin that brings it.")
    return writers[name]


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
