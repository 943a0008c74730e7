"""`--format ark`: Kaldi's archives of float matrices, with `feats.scp`, `utt2num_frames` and `utt2dur`.

Kaldi: `src/matrix/kaldi-matrix.cc`, `Matrix::Write` in binary mode. Pooled features are vectors (`kaldi-vector.cc`).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from hubcore.errors import AudioError
from hubcore.extract.formats.shards import Place, ShardWriter
from hubcore.text import printable

if TYPE_CHECKING:
    from hubcore.extract.settings import Settings

_KINDS = {1: b"FV ", 2: b"FM "}


class ArkWriter(ShardWriter):
    r"""`shards/<block>.ark`; the paths in `feats.scp` are absolute: run the same command again after the folder was moved.

    Example:
        >>> import tempfile, numpy as np
        >>> writer = ArkWriter(Path(tempfile.mkdtemp()))
        >>> writer.begin_block(0)
        >>> file = writer.write("anna-1", np.ones((3, 2), dtype=np.float32))
        >>> writer.end_block()
        >>> (writer.folder / file).read_bytes()[:12]
        b'anna-1 \x00BFM '
    """

    suffix = ".ark"

    @classmethod
    def refuses(cls, settings: Settings) -> str:
        """Kaldi has float32 matrices, of two dimensions."""
        if settings.dtype != "float32":
            return f"the format ark has no {settings.dtype}, only float32."
        return "a Kaldi matrix holds one layer (--layers last, or 9, or --mix)." if settings.stacked else ""

    def start(self, path: Path) -> None:
        """Opens the archive."""
        self._stream = open(path, "wb")  # noqa: SIM115 - as long as the block

    def add(self, utterance: str, features: NDArray[Any]) -> None:
        """Adds a matrix, or a vector.

        Raises:
            AudioError: the name has a space in it, which ends a name in Kaldi's files.
        """
        if len(utterance.split()) != 1:
            what = f"the utterance {printable(utterance)!r} has a space in its name, which Kaldi's files cannot have."
            raise AudioError(what, fix="Rename the audio file, or use another --format.")
        sizes = b"".join(struct.pack("<bi", 4, size) for size in features.shape)
        head = utterance.encode() + b" \0B" + _KINDS[features.ndim] + sizes
        self._stream.write(head)
        self._stream.write(features.astype("<f4", copy=False).data)  # of hours, mapped into memory: no copy

    def finish(self) -> None:
        """Closes the archive."""
        self._stream.close()

    @classmethod
    def places(cls, path: Path) -> Mapping[str, Place]:
        """A walk from name to name."""
        found: dict[str, Place] = {}
        with open(path, "rb") as stream:
            while name := _name(stream):
                kinds = {b"\0B" + kind: dimensions for dimensions, kind in _KINDS.items()}
                dimensions = kinds[stream.read(5)]
                sizes = stream.read(5 * dimensions)
                shape = tuple(struct.unpack_from("<i", sizes.ljust(10, b"\0"), 5 * axis + 1)[0] for axis in range(dimensions))
                found[name] = place = Place("float32", shape, stream.tell())
                stream.seek(place.end)
        if not found:
            raise ValueError("it is empty")
        return found

    def index(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Writes `feats.scp`, `utt2num_frames` and `utt2dur`, sorted as Kaldi's tools want them."""
        ordered = sorted(rows, key=lambda row: row["utterance"].encode())
        folder = os.path.abspath(self.folder)
        lines = {
            "feats.scp": [f"{folder}/{row['file']}:{self._position(row)}" for row in ordered],
            "utt2num_frames": [row["frames"] for row in ordered],
            "utt2dur": [f"{row['seconds']:.6g}" for row in ordered],
        }
        for file, values in lines.items():
            text = "".join(f"{row['utterance']} {value}\n" for row, value in zip(ordered, values, strict=True))
            with self.new_file(file) as partial:
                partial.write_bytes(os.fsencode(text))

    def _position(self, row: Mapping[str, Any]) -> int:
        """The byte after a name, where Kaldi begins to read."""
        place = self.look(self.folder / row["file"])[row["utterance"]]
        return place.offset - 5 - 5 * len(place.shape)

    def close(self) -> None:
        """Closes an archive that was not finished."""
        if hasattr(self, "_stream"):
            self._stream.close()
        super().close()


def _name(stream: Any) -> str:
    """The name that comes next, whose space is read too; empty at the end."""
    name = bytearray()
    while (byte := stream.read(1)) not in (b" ", b""):
        name += byte
    return name.decode()
