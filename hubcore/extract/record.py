"""`run.json`: what the features of a folder are, for whoever reads them: settings, names of the layers, the card."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hubcore.card import Card, Source
from hubcore.errors import ExtractionError
from hubcore.extract.finished import write_held
from hubcore.extract.settings import Settings
from hubcore.files import parse_json, read_small
from hubcore.protocol import Upstream
from hubcore.text import printable
from hubcore.version import VERSION

MANY = 50_000
"""Utterances from which on a file for each is too many, and shards are the default."""
_OF_THIS_MACHINE = ("file", "line", "distribution")
"""Fields of a card that say where it was found."""


@dataclass(frozen=True)
class Record:
    """The content of `run.json`."""

    settings: Mapping[str, Any]
    """The settings that every row of the manifest has too."""
    layer_names: tuple[str, ...]
    """The names of the layers that were written, or mixed."""
    card: Card | None
    """The card of the upstream."""
    version: str
    """The version of hubcore that made them."""

    def differences(self, settings: Mapping[str, Any], version: str) -> list[str]:
        """Lists how other settings, as rows have them, and another version differ, each as a phrase."""
        there, here = ({"hubcore_version": v, **s} for v, s in ((self.version, self.settings), (version, settings)))
        return [f"{key} is {there.get(key)!r} there and {here[key]!r} here" for key in here if there.get(key) != here[key]]


def write_record(folder: Path, upstream: Upstream, settings: Settings) -> None:
    """Writes `run.json`; one that is there must say the same.

    Raises:
        ExtractionError: it says something else, or the file system refuses.
    """
    path = folder / "run.json"
    if path.exists():
        differences = read_record(folder).differences(json.loads(json.dumps(settings.in_row())), VERSION)
        if differences:
            what = f"{printable(folder)} was begun with other settings: {'; '.join(differences)}."
            raise ExtractionError(what, fix="Extract into another folder, or remove this one.")
        return
    record = {
        "hubcore_version": VERSION,
        "settings": settings.in_row(),
        "layer_names": [upstream.layer_names[index] for index in settings.layers],
        "card": _plain(upstream.card),
    }
    with write_held(path) as temporary:
        temporary.write_text(json.dumps(record, indent=2) + "\n", encoding="ascii")


def _plain(card: Card | None) -> dict[str, Any] | None:
    if card is None:
        return None
    values = {name: value for name, value in vars(card).items() if name not in _OF_THIS_MACHINE}
    return values | {"sources": [vars(source) for source in card.sources], "options": dict(card.options)}


def read_record(folder: Path) -> Record:
    """The record of a folder.

    Raises:
        ExtractionError: there is none, or it is not one.

    Example:
        >>> import tempfile
        >>> read_record(Path(tempfile.mkdtemp()))  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        hubcore.errors.ExtractionError: ... has no run.json, so it holds no features...
    """
    path = folder / "run.json"
    try:
        found = parse_json(read_small(path, 1 << 22))
        card = found["card"]
        if card is not None:
            lists = {name: tuple(value) for name, value in card.items() if isinstance(value, list)}
            card = Card(**{**card, **lists, "sources": tuple(Source(**source) for source in card["sources"])})
        return Record(dict(found["settings"]), tuple(found["layer_names"]), card, str(found["hubcore_version"]))
    except FileNotFoundError as error:
        what = f"{printable(folder)} has no run.json, so it holds no features that hubcore wrote."
        fix = "Pass the --out of `hubcore extract`. A folder of an older version gets it when that command is run again."
        raise ExtractionError(what, fix) from error
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        what = f"{printable(path)} is not the record of an extraction ({error!r})."
        raise ExtractionError(what, fix="Restore it, or remove it and run the same extraction again.") from error


def usual_format(folder: Path, utterances: int) -> str:
    """The format of a folder that has one, else the default for so many utterances.

    Example:
        >>> usual_format(Path("no such folder"), 10), usual_format(Path("no such folder"), 50_000)
        ('npy', 'safetensors')
    """
    if (folder / "run.json").exists():
        return str(read_record(folder).settings["format"])
    return "safetensors" if utterances >= MANY and not (folder / "manifest.jsonl").exists() else "npy"
