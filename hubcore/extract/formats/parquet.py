"""`--format parquet`: a table with a row per utterance, for pooled vectors above all. Needs pyarrow."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from hubcore.errors import AudioError
from hubcore.extract.formats.shards import ShardWriter
from hubcore.extract.writers import no_bfloat16
from hubcore.lazy import needs
from hubcore.text import printable, text_path

if TYPE_CHECKING:
    from hubcore.extract.settings import Settings

_MOST_NUMBERS = (1 << 31) - 1


class ParquetWriter(ShardWriter):
    """`shards/<block>.parquet` with the columns `utterance`, `shape` and `features`, flat; pooled ones in `table.parquet` too.

    Example:
        >>> import tempfile, pyarrow.parquet
        >>> writer = ParquetWriter(Path(tempfile.mkdtemp()))
        >>> writer.begin_block(0)
        >>> file = writer.write("anna/1", np.ones(2, dtype=np.float32))
        >>> writer.end_block()
        >>> pyarrow.parquet.read_table(writer.folder / file).to_pylist()
        [{'utterance': 'anna/1', 'shape': [2], 'features': [1.0, 1.0]}]
    """

    suffix = ".parquet"

    @classmethod
    def refuses(cls, settings: Settings) -> str:
        """Parquet has no bfloat16."""
        needs("pyarrow", "parquet")
        return no_bfloat16(settings)

    def start(self, path: Path) -> None:
        """Nothing is written yet."""
        self._path, self._arrays = path, dict[str, NDArray[Any]]()

    def add(self, utterance: str, features: NDArray[Any]) -> None:
        """Keeps the array.

        Raises:
            AudioError: it is larger than a list of Arrow can be.
        """
        if features.size > _MOST_NUMBERS:
            what = f"{printable(utterance)!r} has {features.size} numbers, and Parquet's lists have at most {_MOST_NUMBERS}."
            raise AudioError(what, fix="Extract fewer layers, or use another --format.")
        self._arrays[utterance] = features

    def finish(self) -> None:
        """Writes the table."""
        arrow, arrays = needs("pyarrow", "parquet"), [*self._arrays.values()]
        if arrays:
            ends = np.cumsum([0, *(array.size for array in arrays)], dtype=np.int32)
            flat = arrow.array(np.concatenate([array.ravel() for array in arrays]))
            columns = {
                "utterance": arrow.array([*self._arrays], arrow.string()),
                "shape": arrow.array([array.shape for array in arrays], arrow.list_(arrow.int32())),
                "features": arrow.ListArray.from_arrays(arrow.array(ends), flat),
            }
            _write(arrow.table(columns), self._path)
        self._arrays = {}

    @classmethod
    def kinds(cls, path: Path) -> set[tuple[str, tuple[int, ...]]]:
        """Type and shape of the arrays of a shard; Parquet's reader finds out if it was cut off."""
        try:
            schema, shapes = _parquet().read_schema(path), _parquet().read_table(path, columns=["shape"])
        except needs("pyarrow", "parquet").ArrowException as error:
            raise ValueError(f"it is no Parquet file: {error}") from error
        dtype = np.dtype(schema.field("features").type.value_type.to_pandas_dtype()).name
        return {(dtype, tuple(shape)) for shape in shapes.column("shape").to_pylist()}

    @classmethod
    def read(cls, folder: Path, row: Mapping[str, Any]) -> NDArray[Any]:
        """The array, of a shard that is read into memory whole."""
        path = folder / text_path(row["file"])
        status = path.stat()
        names, flat, offsets = _table(path, status.st_size, status.st_mtime_ns)
        at = names[row["utterance"]]
        return flat[offsets[at] : offsets[at + 1]].reshape(row["shape"])

    def index(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Writes the one table of pooled vectors, its rows in the order of the manifest."""
        if not rows or rows[0]["pool"] is None:
            return
        arrow = needs("pyarrow", "parquet")
        shards = sorted({row["file"] for row in rows})
        whole = arrow.concat_tables(_parquet().read_table(self.folder / file) for file in shards)
        at = {name: number for number, name in enumerate(whole.column("utterance").to_pylist())}
        with self.new_file("table.parquet") as partial:
            _write(whole.take([at[row["utterance"]] for row in rows]), partial)


def _parquet() -> Any:
    return needs("pyarrow.parquet", "parquet")


def _write(table: Any, path: Path) -> None:
    """Features are as good as random: dictionaries and compression would only cost time."""
    _parquet().write_table(table, path, compression="none", use_dictionary=False, write_statistics=False)


@functools.lru_cache(maxsize=2)
def _table(path: Path, size: int, mtime_ns: int) -> tuple[dict[str, int], NDArray[Any], NDArray[Any]]:  # noqa: ARG001
    """Row numbers by utterance, all values, and where those of a row begin."""
    table = _parquet().read_table(path).combine_chunks()
    features = table.column("features").chunk(0)
    names = {name: number for number, name in enumerate(table.column("utterance").to_pylist())}
    return names, cast("NDArray[Any]", features.values.to_numpy()), features.offsets.to_numpy()
