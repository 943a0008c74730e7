"""Where features go: `FeatureWriter`, what a format must do, and `NpyWriter`, the default.

Shapes: `L` layers, `F` frames, `D` dim.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hubcore.errors import ExtractionError
from hubcore.text import printable

_PARTIAL = ".partial"
"""The folder, inside the output folder, of what is being written."""


class FeatureWriter(Protocol):
    """One format of feature files. A file must appear whole or not at all."""

    def __init__(self, folder: Path) -> None:
        """A writer into the existing folder `folder`, which may hold what a killed run left behind."""
        ...

    def write(self, utterance: str, features: NDArray[Any]) -> str:
        """Writes `(F, D)` or `(L, F, D)` and returns the file's path relative to the folder, with `/` between folders.

        Raises:
            ExtractionError: it cannot be written, and neither could others be.
        """
        ...

    def holds(self, file: str, shape: tuple[int, ...], dtype: str) -> bool:
        """Whether a file of an earlier run is there and whole, with the array that its manifest row promises."""
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
        """A writer into `folder`; what an earlier run left half-written there is removed."""
        self.folder = folder
        self._partial = folder / _PARTIAL
        self._count = 0
        shutil.rmtree(self._partial, ignore_errors=True)

    def write(self, utterance: str, features: NDArray[Any]) -> str:
        """Writes `(F, D)` or `(L, F, D)` to `features/<utterance>.npy` in one step.

        Raises:
            ExtractionError: the file system refuses.
        """
        file = f"features/{utterance}.npy"
        target = self.folder / file
        self._count += 1
        partial = self._partial / f"{self._count}.npy"
        try:
            self._partial.mkdir(parents=True, exist_ok=True)
            target.parent.mkdir(parents=True, exist_ok=True)
            with open(partial, "wb") as stream:
                np.save(stream, np.ascontiguousarray(features), allow_pickle=False)
            os.replace(partial, target)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise ExtractionError(
                f"{printable(target)} cannot be written: {error.strerror or error}. Nothing half-written is left and "
                "what is in the manifest is whole. Make room or choose another folder, then run the same command again "
                "to go on."
            ) from error
        return file

    def holds(self, file: str, shape: tuple[int, ...], dtype: str) -> bool:
        """Whether `file` is there, whole, with an array of this shape and type."""
        try:
            array = np.load(self.folder / file, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return False
        return bool(array.shape == shape and array.dtype == np.dtype(dtype))

    def close(self) -> None:
        """Removes the folder of partial files."""
        shutil.rmtree(self._partial, ignore_errors=True)
