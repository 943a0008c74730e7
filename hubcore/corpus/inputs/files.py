"""Audio files and folders of them, and lists in fairseq's format."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from hubcore.audio import find_audio, full_name
from hubcore.corpus.found import Found
from hubcore.corpus.inputs.reading import Reading
from hubcore.corpus.manifest import read_manifest
from hubcore.corpus.utterance import File
from hubcore.errors import ExtractionError
from hubcore.text import path_text, printable, text_path


def read_files(path: Path, reading: Reading) -> Iterator[Found]:
    """An audio file, or those below a folder, sorted by name."""
    found = find_audio([path], ffmpeg=reading.ffmpeg)
    folder = path if path.is_dir() else path.parent
    yield from sorted((file_below(folder, file) for file in found), key=lambda item: item.stem)


def read_fairseq(path: Path, reading: Reading) -> Iterator[Found]:
    """The files of a list that `hubcore manifest` or fairseq wrote.

    Raises:
        ExtractionError: it is malformed, or lists nothing.
    """
    manifest = read_manifest(path)
    if not manifest.entries:
        raise ExtractionError(f"{printable(path)} lists no file.", fix="Make it again with `hubcore manifest`.")
    root = manifest.root
    if reading.root is not None:
        moved = not os.path.isdir(reading.root)  # OLD=NEW
        root = Path(reading.locate(path_text(root), path.parent, f"{printable(path)}:1") if moved else reading.root)
    for entry in manifest:
        yield file_below(root, root / text_path(entry.path))


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
