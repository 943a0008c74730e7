r"""Files of units: `read_units` and `write_units`, for npz, Parquet, lines of text and fairseq's `.km`.

A unit is the number of a centroid, one for each frame or, deduplicated, for each run of frames. Imports no torch.
Shapes: `U` units.
"""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hubcore.errors import ExtractionError, OptionError
from hubcore.files import read_regular, write_whole
from hubcore.lazy import needs
from hubcore.text import plural, printable

FORMATS = {"npz": ".npz", "parquet": ".parquet", "text": ".txt", "km": ".km"}
"""The formats of units, and the ending by which a file is known; only npz and Parquet hold durations and times."""
_NO_SPACES = re.compile(r"\S+")
_NUMBERS = re.compile(r"[0-9]{1,9}(?: [0-9]{1,9})*", re.ASCII)
_Columns = dict[str, NDArray[Any]]


@dataclass(frozen=True, eq=False)
class Units:
    """The units of one utterance.

    Example:
        >>> one = Units(np.array([5, 12]), durations=np.array([2, 1]))
        >>> one.units.tolist(), one.times is None
        ([5, 12], True)
    """

    units: NDArray[np.int64]
    """`(U,)`, each the number of a centroid, from 0."""
    durations: NDArray[np.int64] | None = None
    """`(U,)`, the number of frames of each; None if there is one unit for each frame, or a file does not say."""
    times: NDArray[np.float64] | None = None
    """`(U, 2)`: start and end in seconds of the audio of each; None if a file does not say."""


def read_units(
    path: str | os.PathLike[str], *, format: str | None = None, names: Sequence[str] | None = None
) -> dict[str, Units]:
    r"""The units of each utterance, in the order of the file.

    Args:
        path: a file that `hubcore units apply` wrote, or another program in the same format.
        format: `npz`, `parquet`, `text` or `km`; by the file's ending if None.
        names: the utterance of each line of a `.km` file, which has no names. If None, they are those of fairseq's manifest
            beside it, `train.tsv` for `train.km`.

    Raises:
        ExtractionError: it cannot be read, or is malformed; text is named by its line.
        OptionError: the format is not known, or pyarrow is not installed.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "units.txt"
        >>> _ = path.write_text("anna-1 5 5 12\nben-1 7\n")
        >>> {name: one.units.tolist() for name, one in read_units(path).items()}
        {'anna-1': [5, 5, 12], 'ben-1': [7]}
    """
    path, format = Path(path), format_of(path, format)
    try:
        if format == "npz":
            return _split(*_read_npz(path))
        if format == "parquet":
            return _read_parquet(path)
        lines = read_regular(path).decode("utf-8", "surrogateescape").split("\n")
    except (OSError, ValueError, KeyError, EOFError, MemoryError, zipfile.BadZipFile) as error:
        fix = "Make it again with `hubcore units apply`."
        reason = error.strerror or error if isinstance(error, OSError) else error
        raise ExtractionError(f"{printable(path)} cannot be read as units ({format}): {reason}.", fix) from error
    lines = [line.rstrip("\r ") for line in (lines[:-1] if lines[-1] == "" else lines)]
    if format == "text":
        pairs = [line.partition(" ")[::2] for line in lines]
    else:
        found = _names_of(path) if names is None else names
        if len(found) != len(lines):
            what = f"{printable(path)} has {plural(len(lines), 'line')}, and there are {plural(len(found), 'utterance')}."
            raise ExtractionError(what, fix="The list of utterances must be the one that these units were made from.")
        pairs = list(zip(found, lines, strict=True))
    return _from_lines(path, pairs)


def write_units(path: str | os.PathLike[str], units: Mapping[str, Units], *, format: str | None = None) -> None:
    """Writes the units of utterances, whole or not at all. The same units give the same bytes.

    Args:
        path: the file.
        units: by utterance. All of them have durations, or none; the same of times. Text and `.km` hold the units alone.
        format: `npz`, `parquet`, `text` or `km`, whose lines have no names; by the file's ending if None.

    Raises:
        ExtractionError: the file system refuses, or a name cannot stand in such a file.
        OptionError: the format is not known, or pyarrow is not installed.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "units.npz"
        >>> write_units(path, {"a": Units(np.array([5, 12]), np.array([2, 1]), np.array([[0, 0.045], [0.04, 0.065]]))})
        >>> read_units(path)["a"].times.tolist()
        [[0.0, 0.045], [0.04, 0.065]]
    """
    path, format = Path(path), format_of(path, format)
    try:
        with write_whole(path) as temporary:
            if format == "npz":
                with temporary.open("wb") as stream:
                    np.savez(stream, allow_pickle=False, utterances=np.array([*units], dtype=np.str_), **_joined(units))
            elif format == "parquet":
                _write_parquet(temporary, units)
            else:
                with temporary.open("w", encoding="utf-8", errors="surrogateescape", newline="\n") as text:
                    text.writelines(_lines(units, named=format == "text"))
    except (OSError, UnicodeEncodeError) as error:
        reason = error.strerror or str(error) if isinstance(error, OSError) else f"a name is no UTF-8 ({error})"
        what = f"{printable(path)} cannot be written: {reason}. Nothing was changed there."
        raise ExtractionError(what, fix="Choose a folder that can be written, or another format.") from error


def format_of(path: str | os.PathLike[str], format: str | None = None) -> str:
    """The format of a file of units: the one given, else by its ending.

    Raises:
        OptionError: there is no such format.

    Example:
        >>> format_of("train.km"), format_of("units", "text")
        ('km', 'text')
    """
    known = {ending: name for name, ending in FORMATS.items()}
    found = format or known.get(Path(path).suffix.lower())
    if found not in FORMATS:
        what = f"the format of units is {format!r}." if format else f"{printable(path)} does not end like a file of units."
        raise OptionError(what, fix=f"The formats are {', '.join(f'{name} ({end})' for name, end in FORMATS.items())}.")
    return found


def _joined(units: Mapping[str, Units]) -> _Columns:
    """The arrays of all utterances end to end, and the number of units of each."""
    items = [*units.values()]
    columns: _Columns = {
        "lengths": np.array([len(item.units) for item in items], dtype=np.int64),
        "units": np.concatenate([np.zeros(0, np.int32), *(item.units.astype(np.int32) for item in items)]),
    }
    if items and items[0].durations is not None:
        columns["durations"] = np.concatenate([np.asarray(item.durations, dtype=np.int32) for item in items])
    if items and items[0].times is not None:
        columns["times"] = np.concatenate([np.asarray(item.times, dtype=np.float64).reshape(-1, 2) for item in items])
    return columns


def _split(names: Sequence[str], columns: _Columns) -> dict[str, Units]:
    """The utterances of arrays that hold all of them end to end.

    Raises:
        ValueError: the arrays do not fit each other.
    """
    lengths, units = columns["lengths"], columns["units"]
    if lengths.dtype.kind not in "iu" or lengths.ndim != 1 or len(names) != len(lengths) or (lengths < 0).any():
        raise ValueError("its lengths are not one count for each utterance")
    total = sum(lengths.tolist())
    for key, shape in {"units": (total,), "durations": (total,), "times": (total, 2)}.items():
        array = columns.get(key)
        if array is not None and (array.shape != shape or array.dtype.kind not in ("f" if key == "times" else "iu")):
            raise ValueError(f"its {key} are {array.dtype} of shape {array.shape}, not {shape}")
    if total and int(units.min()) < 0:
        raise ValueError("a unit is below 0")
    if len(set(names)) < len(names):
        raise ValueError("it has an utterance twice")
    cuts = np.cumsum(lengths)[:-1].astype(np.int64)
    parts = {key: np.split(columns[key], cuts) for key in ("units", "durations", "times") if key in columns}
    found: dict[str, Units] = {}
    for place, name in enumerate(names):
        numbers = parts["units"][place].astype(np.int64)
        durations = parts["durations"][place].astype(np.int64) if "durations" in parts else None
        times = parts["times"][place].astype(np.float64) if "times" in parts else None
        found[name] = Units(numbers, durations, times)
    return found


def _read_npz(path: Path) -> tuple[list[str], _Columns]:
    """Names and arrays of a file of `numpy.savez`, uncompressed: so no array is larger than the file."""
    arrays: _Columns = {}
    with zipfile.ZipFile(BytesIO(read_regular(path))) as archive:
        for member in archive.infolist():
            if member.compress_type != zipfile.ZIP_STORED:
                raise ValueError("it is compressed, which is refused")
            arrays[member.filename.removesuffix(".npy")] = np.load(BytesIO(archive.read(member)), allow_pickle=False)
    names = arrays.pop("utterances")
    if names.dtype.kind != "U" or names.ndim != 1:
        raise ValueError("its utterances are no names")
    return names.tolist(), arrays


def _write_parquet(path: Path, units: Mapping[str, Units]) -> None:
    arrow, columns = needs("pyarrow", "parquet"), _joined(units)
    ends = arrow.array(np.cumsum([0, *columns.pop("lengths").tolist()], dtype=np.int64))
    table = {"utterance": arrow.array([*units], arrow.string())}
    for key, array in columns.items():
        flat = arrow.FixedSizeListArray.from_arrays(arrow.array(array.ravel()), 2) if key == "times" else arrow.array(array)
        table[key] = arrow.LargeListArray.from_arrays(ends, flat)
    needs("pyarrow.parquet", "parquet").write_table(arrow.table(table), path)


def _read_parquet(path: Path) -> dict[str, Units]:
    arrow = needs("pyarrow", "parquet")
    try:
        table = needs("pyarrow.parquet", "parquet").read_table(BytesIO(read_regular(path))).combine_chunks()
        names = table.column("utterance").to_pylist()
        found = {
            key: table.column(key).combine_chunks() for key in ("units", "durations", "times") if key in table.column_names
        }
        columns = {key: column.flatten().to_numpy(zero_copy_only=False) for key, column in found.items() if key != "times"}
        columns["lengths"] = arrow.compute.list_value_length(found["units"]).to_numpy(zero_copy_only=False)
        if "times" in found:
            columns["times"] = found["times"].flatten().flatten().to_numpy(zero_copy_only=False).reshape(-1, 2)
        if not all(isinstance(name, str) for name in names):
            raise ValueError("its utterances are no names")
    except (arrow.ArrowException, AttributeError, TypeError) as error:
        raise ValueError(f"it is no table of units ({error})") from error
    return _split(names, columns)


def _lines(units: Mapping[str, Units], *, named: bool) -> Iterable[str]:
    for name, one in units.items():
        if named and not _NO_SPACES.fullmatch(name):
            what = f"the utterance {printable(name)!r} has white space in its name, so a line of text could not be read back."
            raise ExtractionError(what, fix="Choose another format, such as npz.")
        numbers = " ".join(map(str, one.units.tolist()))
        yield (f"{name} {numbers}" if named else numbers) + "\n"


def _from_lines(path: Path, pairs: Iterable[tuple[str, str]]) -> dict[str, Units]:
    found: dict[str, Units] = {}
    for line, (name, text) in enumerate(pairs, start=1):
        wrong = ""
        if text and not _NUMBERS.fullmatch(text):
            wrong = f"is {text[:60]!r}, not units from 0 with one space between them"
        elif not name or name in found:
            wrong = f"has the utterance {printable(name)!r} again" if name else "has no name of an utterance"
        if wrong:
            what = f"{printable(path)}:{line}: this line {wrong}."
            raise ExtractionError(what, fix="Make the file again with `hubcore units apply`.")
        found[name] = Units(np.array(text.split(), dtype=np.int64))
    return found


def _names_of(path: Path) -> list[str]:
    """The names that `hubcore.corpus` gives to the files of the manifest beside a `.km` file."""
    from hubcore.corpus.find import find_utterances

    manifest = path.with_suffix(".tsv")
    if not manifest.is_file():
        what = f"{printable(path)} has no names of utterances, and there is no {printable(manifest)}."
        raise ExtractionError(what, fix="Put the manifest that it was made from there, or pass names=.")
    return [utterance.name for utterance in find_utterances([manifest])]
