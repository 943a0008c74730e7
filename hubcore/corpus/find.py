"""`find_utterances`: the utterances that paths mean, whatever the kind of corpus."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from hubcore.audio import check_exist, find_audio, full_name
from hubcore.corpus.found import Found, name_apart
from hubcore.corpus.manifest import read_manifest
from hubcore.corpus.utterance import File, Utterance
from hubcore.errors import ExtractionError
from hubcore.text import path_text, printable


def find_utterances(paths: Iterable[str | os.PathLike[str]]) -> list[Utterance]:
    """The utterances of `paths`: in the order of the paths and of the lists, sorted inside a folder.

    The name of one that has none of its own is the path below its folder without the ending, `/` between folders. Those that
    would share a name get longer ones: with the ending (`a.wav`, `a.flac`), below the name of the folder that was given
    (`train/a`, `dev/a`), then both, and so on.

    Args:
        paths: audio files, folders of them, and lists that `hubcore manifest` wrote (`.tsv`).

    Raises:
        AudioError: paths do not exist, or a folder holds no audio file.
        ExtractionError: a list is malformed, or two utterances share even the longest name.

    Example:
        >>> import tempfile, pathlib
        >>> root = pathlib.Path(tempfile.mkdtemp())
        >>> (root / "anna").mkdir()
        >>> for name in ("anna/1.wav", "2.flac", "2.wav"):
        ...     (root / name).touch()
        >>> sorted(utterance.name for utterance in find_utterances([root]))
        ['2.flac', '2.wav', 'anna/1']
    """
    given = [Path(path) for path in paths]
    check_exist(given)
    seen: dict[str, Found] = {}
    for place in given:
        for item in _found(place):
            seen.setdefault(full_name(item.source.given), item)
    return name_apart(seen.values())


def _found(given: Path) -> Iterator[Found]:
    """The utterances that one path means."""
    if given.suffix == ".tsv" and given.is_file():
        manifest = read_manifest(given)
        if not manifest.entries:
            raise ExtractionError(f"{printable(given)} lists no file.", fix="Make it again with `hubcore manifest`.")
        yield from (file_below(manifest.root, manifest.locate(entry)) for entry in manifest)
        return
    found = find_audio([given])
    folder = given if given.is_dir() else given.parent
    yield from sorted((file_below(folder, path) for path in found), key=lambda item: item.stem)


def file_below(folder: Path, path: Path) -> Found:
    """A file below a folder, from which its name begins.

    Example:
        >>> file_below(Path("/corpus"), Path("/corpus/en/1.flac")).stem
        'en/1'
    """
    relative = path.relative_to(folder)
    stem = path_text(relative.with_suffix("").as_posix())
    above = path_text(os.path.dirname(full_name(folder / "_")))
    return Found(stem, File(str(path)), path_text(relative.suffix), above)
