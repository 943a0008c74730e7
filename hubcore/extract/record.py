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
_LEFT_OUT = ("file", "line", "distribution", "codebooks")
"""Fields of a card that say where it was found, and what else there is for its checkpoint."""
_OF_UPSTREAM = ("checkpoint_sha256", "config_sha256", "options", "frame_stride", "sample_rate")
"""Settings that tell whether two upstreams give the same numbers."""
_OF_PASSES = ("chunk_seconds", "overlap_seconds")
"""Options that say in how many passes the same upstream computes."""


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
        return _phrases(there, here)

    def other_upstream(self, settings: Mapping[str, Any]) -> list[str]:
        """Lists what is different about the upstream of other settings, each as a phrase; empty if it gives the same numbers.

        Weights are compared by their SHA-256; upstreams without weights by name, config and options. What is trained on
        features keeps their record, and asks this before it takes others.

        Example:
            >>> from hubcore import hub
            >>> from hubcore.extract.settings import settings_for
            >>> models = [hub.load("fbank"), hub.load("fbank", num_mel_bins=40)]
            >>> one, other = (Record.of(model, settings_for(model, "all", "float32", None, "npy")) for model in models)
            >>> one.other_upstream(one.settings), [phrase.split()[0] for phrase in one.other_upstream(other.settings)]
            ([], ['config_sha256'])
        """
        there, here = ({key: values.get(key) for key in _OF_UPSTREAM} for values in (self.settings, settings))
        if there["checkpoint_sha256"] is None:
            there, here = ({"upstream": v.get("upstream"), **s} for v, s in ((self.settings, there), (settings, here)))
        for values in (there, here):
            values["options"] = {key: value for key, value in (values["options"] or {}).items() if key not in _OF_PASSES}
        return _phrases(there, here)

    @classmethod
    def of(cls, upstream: Upstream, settings: Settings) -> Record:
        """The record of features that an upstream makes with such settings, as it is read back."""
        names = tuple(upstream.layer_names[index] for index in settings.layers)
        return cls(json.loads(json.dumps(settings.in_row())), names, upstream.card, VERSION)

    def plain(self) -> dict[str, Any]:
        """The record as plain data, which `parse` takes; the card without where it was found."""
        values = {"hubcore_version": self.version, "settings": dict(self.settings), "layer_names": list(self.layer_names)}
        return values | {"card": _plain(self.card)}

    @classmethod
    def parse(cls, values: Any) -> Record:
        """The record of plain data from a file.

        Raises:
            ValueError, TypeError, KeyError, AttributeError: it is none.
        """
        card, settings = values["card"], dict(values["settings"])
        if card is not None:
            lists = {name: tuple(value) for name, value in card.items() if isinstance(value, list)}
            card = Card(**{**card, **lists, "sources": tuple(Source(**source) for source in card["sources"])})
        return cls(settings, tuple(values["layer_names"]), card, str(values["hubcore_version"]))


def _phrases(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
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
    record = Record.of(upstream, settings).plain()
    with write_held(path) as temporary:
        temporary.write_text(json.dumps(record, indent=2) + "\n", encoding="ascii")


def _plain(card: Card | None) -> dict[str, Any] | None:
    if card is None:
        return None
    values = {name: value for name, value in vars(card).items() if name not in _LEFT_OUT}
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
        return Record.parse(parse_json(read_small(path, 1 << 22)))
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
