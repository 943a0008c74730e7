"""Tables as text: `.csv`, with quotes, and `.tsv`, without; the first line names the columns."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path

from hubcore.corpus.found import Found
from hubcore.corpus.inputs.reading import FIELDS, Reading, bad, lines_of, row_found
from hubcore.errors import ExtractionError
from hubcore.text import listed, printable


def read_table(path: Path, reading: Reading) -> Iterator[Found]:
    """The utterances of a table, one a row.

    Raises:
        ExtractionError: it has no column of paths, or a row is malformed.
    """
    rows = table_rows(path)
    where, names = next(rows)
    columns = columns_of([*names], reading, where)
    for where, row in rows:
        yield row_found(row, columns, reading, path.parent, where)


def table_rows(path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    r"""Places and rows of a table by column; first those of the first line, whose values are the names of the columns.

    Raises:
        ExtractionError: a row is malformed, or two columns have one name.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "a.csv"
        >>> _ = path.write_text('utterance,label\na,"yes, it is"\n')
        >>> [row for _, row in table_rows(path)]
        [{'utterance': 'utterance', 'label': 'label'}, {'utterance': 'a', 'label': 'yes, it is'}]
    """
    if path.suffix.lower() == ".tsv":
        rows: Iterator[tuple[str, list[str]]] = ((where, line.split("\t")) for where, line in lines_of(path))
    else:
        rows = _csv_rows(path)
    where, header = next(rows, (f"{printable(path)}:1", []))
    if len(set(header)) < len(header):
        raise ExtractionError(f"{where}: two columns have one name: {listed(header, 20)}.", fix="Give each another.")
    yield where, dict(zip(header, header, strict=True))
    for where, values in rows:
        if len(values) != len(header):
            raise bad(where, f"this line has {len(values)} values, but there are {len(header)} columns", "Correct it")
        yield where, dict(zip(header, values, strict=True))


def columns_of(there: list[str], reading: Reading, where: str) -> Mapping[str, str]:
    """The names in a list of the columns in `FIELDS`, of those that it has.

    Raises:
        ExtractionError: it lacks the paths, or a column that the user named.
    """
    columns = {name: reading.columns.get(name, name) for name in FIELDS}
    lacking = [columns[name] for name in FIELDS if columns[name] not in there and (name == "path" or name in reading.columns)]
    if lacking:
        names = listed(map(printable, there), 20)
        what = f"{where}: there is no column {', '.join(map(repr, lacking))}. Those there are: {names}."
        lists = " For a list of fairseq, whose first line is the root, use `hubcore manifest`." if ".tsv" in where else ""
        raise ExtractionError(what, fix=f"Name them with --columns, as in --columns path=wav,id=utt,start=from,end=to.{lists}")
    return {name: column for name, column in columns.items() if column in there}


def _csv_rows(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Rows with the line that each ends on, as values in quotes may have several."""
    places: list[str] = []

    def lines() -> Iterator[str]:
        for where, line in lines_of(path):
            places.append(where)
            yield line + "\n"

    reader = csv.reader(lines(), strict=True)
    try:
        for row in reader:
            yield places[-1], row
    except csv.Error as error:
        raise bad(places[-1], f"this line is no CSV ({error})", "Correct it") from error
