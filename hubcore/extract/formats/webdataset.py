"""`--format webdataset`: tar archives of `.npy` files, one sample per utterance."""

from __future__ import annotations

import os
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import numpy as np
from numpy.typing import NDArray

from hubcore.extract.formats.shards import Place, ShardWriter
from hubcore.extract.writers import no_bfloat16

if TYPE_CHECKING:
    from hubcore.extract.settings import Settings

_IN_MEMORY = 1 << 26
"""Bytes of a file that is kept in memory until its length is known; a longer one lies on the disk meanwhile."""


class WebDatasetWriter(ShardWriter):
    """`shards/<block>.tar`, with `<utterance>.npy` for each; a full stop in a name is `%2E`, since it would end the key.

    Example:
        >>> import tempfile
        >>> writer = WebDatasetWriter(Path(tempfile.mkdtemp()))
        >>> writer.begin_block(0)
        >>> file = writer.write("anna/1.5", np.ones((3, 2), dtype=np.float32))
        >>> writer.end_block()
        >>> with tarfile.open(writer.folder / file) as tar:
        ...     tar.getnames()
        ['anna/1%2E5.npy']
    """

    suffix = ".tar"

    @classmethod
    def refuses(cls, settings: Settings) -> str:
        """NumPy has no bfloat16."""
        return no_bfloat16(settings)

    def start(self, path: Path) -> None:
        """Opens the archive."""
        self._tar = tarfile.open(path, "w", format=tarfile.GNU_FORMAT)  # noqa: SIM115 - as long as the block

    def add(self, utterance: str, features: NDArray[Any]) -> None:
        """Adds a file without time and owner."""
        member = tarfile.TarInfo(utterance.replace("%", "%25").replace(".", "%2E") + ".npy")
        with tempfile.SpooledTemporaryFile(_IN_MEMORY, dir=str(self._partial)) as data:
            np.save(data, features, allow_pickle=False)
            member.size = data.tell()
            data.seek(0)
            self._tar.addfile(member, data)

    def finish(self) -> None:
        """Writes the end of the archive."""
        self._tar.close()

    @classmethod
    def places(cls, path: Path) -> Mapping[str, Place]:
        """Those of the headers, of the archive and of its files."""
        found: dict[str, Place] = {}
        if os.path.getsize(path) % tarfile.RECORDSIZE:
            raise ValueError("its end is missing")
        try:
            with open(path, "rb") as stream, tarfile.open(fileobj=stream) as tar:
                for member in tar.getmembers():
                    stream.seek(member.offset_data)
                    np.lib.format.read_magic(stream)
                    shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
                    found[unquote(member.name.removesuffix(".npy"))] = Place(dtype.name, shape, stream.tell())
        except tarfile.TarError as error:
            raise ValueError(f"it is no whole archive: {error}") from error
        return found

    def close(self) -> None:
        """Closes an archive that was not finished."""
        if hasattr(self, "_tar"):
            self._tar.close()
        super().close()
