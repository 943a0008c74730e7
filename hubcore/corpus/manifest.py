r"""`Manifest`: a root folder and the audio files below it with their lengths, in the format of fairseq's `train.tsv`.

Line 1 is the root; each other line is `<path below the root>\t<samples per channel>`. Paths use `/`. A manifest is read
strictly: what fairseq would crash on, or read as another file, is an error that names file and line.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from hubcore.corpus.files import write_together
from hubcore.errors import ExtractionError
from hubcore.files import read_regular
from hubcore.text import path_text, printable, text_path


class ManifestEntry(NamedTuple):
    """One audio file of a manifest.

    Example:
        >>> ManifestEntry("en/1.flac", 16000).samples
        16000
    """

    path: str
    """Its path below the root, with `/` between folders."""
    samples: int
    """Its samples per channel, at the rate of the file."""


@dataclass(frozen=True)
class Manifest:
    """A root folder and the audio files below it, in the order of the file.

    Example:
        >>> manifest = Manifest(Path("/corpus"), (ManifestEntry("en/1.flac", 16000), ManifestEntry("en/2.flac", 8000)))
        >>> len(manifest), manifest.seconds(), manifest.locate(manifest.entries[0]).name
        (2, 1.5, '1.flac')
    """

    root: Path
    """The folder that the paths are below."""
    entries: tuple[ManifestEntry, ...]
    """The files."""

    def __len__(self) -> int:
        return len(self.entries)

    def __iter__(self) -> Iterator[ManifestEntry]:
        return iter(self.entries)

    def locate(self, entry: ManifestEntry) -> Path:
        """Path of an entry's file."""
        return self.root / text_path(entry.path)

    def seconds(self, sample_rate: int = 16000) -> float:
        """The duration of all files together, at `sample_rate` Hz."""
        return sum(entry.samples for entry in self.entries) / sample_rate


def read_manifest(path: str | os.PathLike[str], *, root: str | os.PathLike[str] | None = None) -> Manifest:
    r"""The manifest in a file.

    Args:
        path: a file in fairseq's format; lines may end as on Windows.
        root: the folder to use instead of the one on line 1, for a corpus that was moved.

    Raises:
        ExtractionError: it cannot be read, or a line is malformed, names no file below the root, or names one twice; the
            message has file and line.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "train.tsv"
        >>> _ = path.write_text("/corpus\nen/1.flac\t16000\n")
        >>> read_manifest(path)
        Manifest(root=...Path('/corpus'), entries=(ManifestEntry(path='en/1.flac', samples=16000),))
    """
    name = printable(path)
    try:
        data = read_regular(path)
    except OSError as error:
        fix = "Make a manifest with `hubcore manifest DIR --dest D`."
        raise ExtractionError(f"{name} cannot be read: {error.strerror or error}.", fix=fix) from error
    try:
        lines = data.decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        bad = data.count(b"\n", 0, error.start) + 1
        raise _malformed(name, bad, "is not UTF-8 text", "Give that file a name in UTF-8") from error
    if lines[-1] == "":
        lines.pop()
    lines = [line.removesuffix("\r") for line in lines]
    if not lines or not lines[0].strip() or "\t" in lines[0]:
        raise _malformed(name, 1, "is not the path of a folder", "Put the root of the paths there")
    entries: list[ManifestEntry] = []
    first_line: dict[str, int] = {}
    for number, line in enumerate(lines[1:], start=2):
        relative, tab, count = line.rpartition("\t")
        if not tab or "\t" in relative or not re.fullmatch(r"[0-9]{1,15}", count):
            raise _malformed(name, number, f"is {line[:80]!r}, not <path><TAB><samples>", "Write it so")
        if int(count) == 0:
            raise _malformed(name, number, "says that the file has 0 samples", "Leave the file out")
        problem = why_not_below(relative)
        if problem:
            raise _malformed(name, number, f"has the path {printable(relative)!r}, which {problem}", "Name one below the root")
        if first_line.setdefault(relative, number) != number:
            again = f"names {printable(relative)!r}, as line {first_line[relative]} does"
            raise _malformed(name, number, again, "Keep one of them")
        entries.append(ManifestEntry(relative, int(count)))
    return Manifest(Path(text_path(lines[0]) if root is None else root), tuple(entries))


def write_manifest(manifest: Manifest, path: str | os.PathLike[str]) -> None:
    r"""Writes a manifest, whole or not at all.

    Raises:
        ExtractionError: the file cannot be written, or a path cannot be written in this format.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "train.tsv"
        >>> write_manifest(Manifest(Path("/corpus"), (ManifestEntry("en/1.flac", 16000),)), path)
        >>> path.read_bytes()
        b'/corpus\nen/1.flac\t16000\n'
    """
    write_together({Path(path): manifest_text(manifest).encode()})


def manifest_text(manifest: Manifest) -> str:
    r"""Text of a manifest's file.

    Raises:
        ExtractionError: a path cannot be written in this format.

    Example:
        >>> manifest_text(Manifest(Path("/corpus"), ()))
        '/corpus\n'
    """
    root = path_text(manifest.root)
    problems = {
        root: why_not_a_name(root) or ("ends with white space, which fairseq strips" if root != root.rstrip() else None)
    }
    problems |= {entry.path: why_not_a_name(entry.path) or why_not_below(entry.path) for entry in manifest}
    for path, problem in problems.items():
        if problem:
            what = f"the path {printable(path)!r} {problem}, so a manifest could not be read back."
            raise ExtractionError(what, fix="Rename the file or the folder.")
    return "".join([f"{root}\n", *(f"{path}\t{samples}\n" for path, samples in manifest)])


def why_not_a_name(path: str) -> str | None:
    r"""Says in a phrase why a path cannot stand in a manifest; None if it can.

    Example:
        >>> why_not_a_name("a.wav"), why_not_a_name("a\tb.wav")
        (None, 'has a tab or a line break')
    """
    if any(character in path for character in "\t\n\r"):
        return "has a tab or a line break"
    if not path.strip() or path[0].isspace():
        return "begins with white space, which fairseq strips"
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        return "has bytes that are no UTF-8"
    return None


def why_not_below(relative: str) -> str | None:
    """Says in a phrase why a path is not one below a root; None if it is.

    Example:
        >>> why_not_below("a/b.wav"), why_not_below("../b.wav")
        (None, 'leads out of the root, or is not spelt plainly')
    """
    parts = relative.split("/")
    if relative.startswith("/"):
        return "is absolute"
    if any(part in ("", ".", "..") for part in parts) or "\0" in relative:
        return "leads out of the root, or is not spelt plainly"
    return None


def _malformed(name: str, line: int, what: str, remedy: str) -> ExtractionError:
    rule = "A manifest has the root on line 1, then <path below it><TAB><samples>, each file once."
    fix = f"{remedy}, or make the manifest again with `hubcore manifest`."
    return ExtractionError(f"{name}:{line}: this line {what}. {rule}", fix=fix)
