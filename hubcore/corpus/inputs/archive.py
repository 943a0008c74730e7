"""Plain tar archives, as WebDataset's: each audio file is an utterance, found by its place, so that it is read alone."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import Path

from hubcore.audio import full_name, is_audio_name
from hubcore.corpus.found import Found
from hubcore.corpus.inputs.reading import Reading
from hubcore.corpus.utterance import Member
from hubcore.errors import ExtractionError
from hubcore.files import open_at_once
from hubcore.text import listed, logger, path_text, plural, printable

_log = logger("corpus")
_BLOCK = 1 << 20


def read_archive(path: Path, reading: Reading) -> Iterator[Found]:
    """The audio files of an archive, in its order, named as WebDataset does: the path up to the first dot of the file's name.

    Raises:
        ExtractionError: it is compressed, no archive, cut off, or has another behind its end.
    """
    name = printable(path)
    not_read: list[str] = []
    above = f"{path_text(full_name(path.parent))}/{path_text(path.stem)}"
    count = 0
    try:
        with open(path, "rb", opener=open_at_once) as file, tarfile.open(fileobj=file, mode="r:") as archive:
            for member in archive:
                place = path_text(member.name).removeprefix("./")
                folder, slash, last = place.rpartition("/")
                kind = is_audio_name(last)
                if member.isdir() or kind is None:
                    continue
                if not (kind or reading.ffmpeg) or not member.isreg() or member.issparse():
                    not_read.append(place)
                    continue
                key, dot, ending = last.partition(".")
                count += 1
                yield Found(
                    folder + slash + key, Member(str(path), place, member.offset_data, member.size), dot + ending, above
                )
            file.seek(archive.offset)
            while block := file.read(_BLOCK):
                if block.strip(b"\0"):
                    what = f"{name} has more after {plural(count, 'audio file')}, where an archive in it ends or is damaged."
                    raise ExtractionError(what, fix="Take joined archives apart, or fetch it again.")
    except tarfile.TarError as error:
        what = f"{name} cannot be read as a plain tar archive after {plural(count, 'audio file')}: {error}."
        raise ExtractionError(what, fix="Fetch it again. A compressed one is read once `gunzip` has been over it.") from error
    except OSError as error:
        raise ExtractionError(f"{name} cannot be read: {error.strerror or error}.", fix="Check the file.") from error
    if not_read:
        what = f"{plural(len(not_read), 'file')} in {name} may be audio but cannot be read"
        _log.warning("%s: %s", what, listed(map(printable, not_read), 20))
    if not count:
        raise ExtractionError(f"{name} has no audio file in it.", fix="Check which archive it is.")
