"""`--format hdf5`: one HDF5 file per block, with a dataset per utterance. Needs h5py."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from hubcore.errors import AudioError
from hubcore.extract.formats.shards import Place, ShardWriter
from hubcore.extract.writers import no_bfloat16
from hubcore.lazy import needs
from hubcore.text import printable

if TYPE_CHECKING:
    from hubcore.extract.settings import Settings


class Hdf5Writer(ShardWriter):
    """`shards/<block>.h5`; the folders in an utterance's name are groups.

    Example:
        >>> import tempfile, numpy as np, h5py
        >>> writer = Hdf5Writer(Path(tempfile.mkdtemp()))
        >>> writer.begin_block(0)
        >>> file = writer.write("anna/1", np.ones((3, 2), dtype=np.float32))
        >>> writer.end_block()
        >>> with h5py.File(writer.folder / file) as shard:
        ...     shard["anna/1"].shape
        (3, 2)
    """

    suffix = ".h5"

    @classmethod
    def refuses(cls, settings: Settings) -> str:
        """h5py has no bfloat16."""
        needs("h5py", "hdf5")
        return no_bfloat16(settings)

    def start(self, path: Path) -> None:
        """Opens the file."""
        self._h5 = needs("h5py", "hdf5").File(path, "w")

    def add(self, utterance: str, features: NDArray[Any]) -> None:
        """Adds a dataset.

        Raises:
            AudioError: another utterance's name is a folder of this one's, or the other way round.
        """
        try:
            self._h5.create_dataset(utterance, data=features, track_times=False)
        except (ValueError, TypeError) as error:
            what = f"the utterance {printable(utterance)!r} cannot be in one HDF5 file with the others: {error}."
            raise AudioError(what, fix="Rename the audio file, or use another --format.") from error

    def finish(self) -> None:
        """Closes the file."""
        self._h5.close()

    @classmethod
    def places(cls, path: Path) -> Mapping[str, Place]:
        """Every dataset; h5py stores those that are neither chunked nor compressed in one piece."""
        h5py = needs("h5py", "hdf5")
        found: dict[str, Place] = {}
        with h5py.File(path, "r") as file:

            def visit(name: str, item: Any) -> None:
                if isinstance(item, h5py.Dataset):
                    found[name] = Place(item.dtype.name, item.shape, item.id.get_offset())

            file.visititems(visit)
        if not found:
            raise ValueError("it is empty")
        return found

    def close(self) -> None:
        """Closes a file that was not finished."""
        if hasattr(self, "_h5"):
            self._h5.close()
        super().close()
