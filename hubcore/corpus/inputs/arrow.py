"""An audio column of Parquet or Arrow files, such as the datasets of Hugging Face: files as bytes, or their paths."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hubcore.audio import Audio, AudioBytes, full_name
from hubcore.corpus.found import Found
from hubcore.corpus.inputs.reading import FIELDS, Reading, bad, found_file, part_of
from hubcore.corpus.utterance import stamp_of
from hubcore.errors import AudioError, ExtractionError
from hubcore.files import parse_json, read_regular
from hubcore.lazy import needs
from hubcore.text import listed, path_text, printable

_GROUPS = 8
"""Row groups of Parquet that are kept, as each is decompressed as a whole."""


@dataclass(frozen=True)
class Cell:
    """An audio file that is a value in a Parquet or Arrow file.

    Example:
        >>> Cell("train-0.parquet", "audio", 17).given
        'train-0.parquet/17'
    """

    file: str
    """The path of the file."""
    column: str
    """The column: bytes, or a structure of `bytes` and `path`."""
    row: int
    """The row, from 0."""
    beside: str | None = None
    """The audio file to read if the row has no bytes."""

    @property
    def given(self) -> str:
        """The path of the file, then the row."""
        return f"{path_text(self.file)}/{self.row}"

    def stamp(self) -> tuple[int, int]:
        """Size and time of change of the file."""
        return stamp_of(self.file)

    def open(self) -> Audio:
        """The bytes or, where there are none, the path.

        Raises:
            AudioError: the file cannot be read, or the row is empty.
        """
        try:
            value = _cell(self.file, self.stamp(), self.column, self.row)
        except (OSError, ValueError, IndexError) as error:  # pyarrow's own are such
            what = f"{printable(self.given)} cannot be read: {printable(str(error))}."
            raise AudioError(what, fix="Fetch the file again.") from error
        data = value.get("bytes") if isinstance(value, dict) else value
        if isinstance(data, bytes):
            return AudioBytes(self.given, data)
        if self.beside is None:
            raise AudioError(f"{printable(self.given)} has neither bytes nor a path.", fix="Leave the row out.")
        return self.beside


def read_arrow(path: Path, reading: Reading) -> Iterator[Found]:
    """The utterances of a `.parquet` or `.arrow` file, one a row, named by the path in the row, or by its number.

    Only columns that the user names tell an id, a start, an end or a channel.

    Raises:
        ExtractionError: it cannot be read, or which column is audio is not clear.
    """
    name, arrow = printable(path), needs("pyarrow", "parquet")
    try:
        table = _table(str(path), stamp_of(path))
        schema = table.schema_arrow if hasattr(table, "schema_arrow") else table.schema
        column = _audio_column(arrow, schema, reading, name)
        kind = schema.field(column).type
        is_struct, is_path = arrow.types.is_struct(kind), arrow.types.is_string(kind) or arrow.types.is_large_string(kind)
        columns = {key: reading.columns[key] for key in FIELDS if key in reading.columns and key != "path"}
        lacking = sorted(set(columns.values()) - set(schema.names))
        if lacking:
            raise ExtractionError(f"{name} has no column {listed(lacking)}.", fix=f"It has {listed(schema.names, 20)}.")
        paths = f"{column}.path" if is_struct else column if is_path else None
        above = f"{path_text(full_name(path.parent))}/{path_text(path.stem)}"
        for row, (values, given) in enumerate(_rows(table, sorted(set(columns.values())), paths)):
            where = f"{name}, row {row}"
            start, end, channel = part_of(values, columns, where)
            stem, ending = os.path.splitext(os.path.basename(given or str(row)))
            called = values.get(columns.get("id", ""))
            if "id" in columns and called in (None, ""):
                raise bad(where, f"{columns['id']!r} is {called!r}, not a name", "Name it")
            if is_path:
                if not given:
                    raise bad(where, f"{column!r} is {given!r}, not the path of a file", "Name a file there")
                yield found_file(
                    given, None if called is None else str(called), reading, path.parent, where, start, end, channel
                )
                continue
            source = Cell(str(path), column, row, _beside(given, reading, path.parent, where) if is_struct else None)
            if called is not None:
                yield Found(str(called), source, start=start, end=end, channel=channel, where=where)
            else:
                yield Found(stem, source, f"{ending}-{row}", above, start, end, channel, where)
    except (OSError, arrow.ArrowException) as error:
        raise ExtractionError(f"{name} cannot be read: {printable(str(error))}.", fix="Fetch it again.") from error


def _beside(given: str | None, reading: Reading, folder: Path, where: str) -> str | None:
    """The place of the file that a row names beside its bytes, which is read only where there are none."""
    if not given or (os.path.isabs(given) and reading.root is not None and os.path.isdir(reading.root)):
        return given or None
    return reading.locate(given, folder, where)


def dataset_files(folder: Path) -> list[Path] | None:
    """The Arrow files of a dataset that Hugging Face's `save_to_disk` wrote, in order; None if the folder is none.

    Raises:
        ExtractionError: what it says of its files cannot be read.
    """
    try:
        if (folder / "dataset_dict.json").is_file():
            splits = parse_json(read_regular(folder / "dataset_dict.json"))["splits"]
            return [file for split in splits for file in dataset_files(folder / split) or ()]
        if not (folder / "state.json").is_file():
            return None
        return [folder / file["filename"] for file in parse_json(read_regular(folder / "state.json"))["_data_files"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        what = f"{printable(folder)} looks like a dataset of Hugging Face, but its files cannot be found: {error!r}."
        raise ExtractionError(what, fix="Write it again with save_to_disk, or name its .arrow files.") from error


def _audio_column(arrow: Any, schema: Any, reading: Reading, name: str) -> str:
    """The column with the audio: the one that the user names, or the only one that looks like it."""
    types = arrow.types

    def holds_audio(kind: Any) -> bool:
        fields = {kind.field(index).name for index in range(kind.num_fields)} if types.is_struct(kind) else set()
        return {"bytes", "path"} <= fields

    fitting = [field.name for field in schema if holds_audio(field.type)]
    column = reading.columns.get("path", fitting[0] if len(fitting) == 1 else None)
    kind = schema.field(column).type if column in schema.names else None
    plain = (types.is_string, types.is_large_string, types.is_binary, types.is_large_binary)
    if kind is None or not (holds_audio(kind) or any(fits(kind) for fits in plain)):
        what = f"{name} has {len(fitting) or 'no'} columns of audio files, as bytes and path."
        named = f"Name one with --columns path=...: {listed(schema.names, 20)}."
        raise ExtractionError(what if column is None else f"{name} has no audio in the column {column!r}.", fix=named)
    return str(column)


@functools.lru_cache(maxsize=64)
def _table(path: str, stamp: tuple[int, int]) -> Any:  # noqa: ARG001 - another file of this name is another table
    """A Parquet file, or an Arrow table, whose values stay on the disk."""
    arrow = needs("pyarrow", "parquet")
    if path.lower().endswith(".parquet"):
        return needs("pyarrow.parquet", "parquet").ParquetFile(path)
    mapped = arrow.memory_map(path)
    try:
        return arrow.ipc.open_stream(mapped).read_all()  # as `datasets` writes
    except arrow.ArrowInvalid:
        return arrow.ipc.open_file(mapped).read_all()


def _rows(table: Any, columns: list[str], paths: str | None) -> Iterator[tuple[dict[str, Any], str | None]]:
    """The values of `columns` in each row, and the path of its audio; the audio itself is not read."""
    if hasattr(table, "iter_batches"):
        batches = table.iter_batches(columns=[*columns, *([paths] if paths else [])])
        left = table.metadata.num_rows
    else:
        batches, left = table.to_batches(max_chunksize=1000), table.num_rows
    if not columns and not paths:
        yield from (({}, None) for _ in range(left))
        return
    for batch in batches:
        values = [batch.column(batch.schema.get_field_index(column)).to_pylist() for column in columns]
        found: list[str | None] = [None] * batch.num_rows
        if paths:
            top, _, inner = paths.partition(".") if paths not in batch.schema.names else (paths, "", "")
            array = batch.column(batch.schema.get_field_index(top))
            found = (array.field(inner) if inner else array).to_pylist()
        for index in range(batch.num_rows):
            yield dict(zip(columns, (column[index] for column in values), strict=True)), found[index]


def _cell(path: str, stamp: tuple[int, int], column: str, row: int) -> bytes | Mapping[str, Any] | None:
    table = _table(path, stamp)
    if not hasattr(table, "metadata"):
        value: bytes | Mapping[str, Any] | None = table.column(column)[row].as_py()
        return value
    group = 0
    while row >= (rows := table.metadata.row_group(group).num_rows):
        row, group = row - rows, group + 1
    cell: bytes | Mapping[str, Any] | None = _group(path, stamp, column, group)[row].as_py()
    return cell


@functools.lru_cache(maxsize=_GROUPS)
def _group(path: str, stamp: tuple[int, int], column: str, group: int) -> Any:
    return _table(path, stamp).read_row_group(group, columns=[column]).column(column)
