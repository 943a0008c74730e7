"""Pages that servers send in place of a file, with status 200 as well: recognised by their first bytes. Imports no torch."""

from __future__ import annotations

import codecs
from pathlib import PurePosixPath
from urllib.parse import urlsplit

from hubcore.errors import DownloadError
from hubcore.files import stand_in

HEAD = 512
"""Bytes that are enough."""
_IN_TEXT = (("<", "an HTML page or an XML document"), ("{", "a JSON document"), ("[", "a JSON document"), ("", "plain text"))
_TEXTS = (".json", ".yaml", ".yml", ".txt", ".tsv", ".csv", ".md", ".ini", ".toml")
"""Endings of files that are text."""
_BOMS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
_FIXES = (
    ("google.com", "Google Drive shows a page if a file is large, private or over quota: fetch it in a browser, use the path."),
    ("dropbox.com", "A Dropbox link must end in dl=1, not dl=0; a page may also mean that its traffic is used up."),
    ("", "Use the address of the file itself, not of the page about it (Dropbox: dl=1, not dl=0)."),
)


class NotTheFileError(DownloadError):
    """A page was received in place of the file."""


def page_kind(uri: str, head: bytes, *, checked: bool = False) -> str | None:
    """The kind of page that bytes begin; None if they may begin the file of this address.

    No checkpoint begins with text, so that any text counts as a page, unless the address itself ends like a text file,
    or a SHA-256 will tell whether the file is right (`checked`).

    Example:
        >>> page_kind("https://host/a.pt", b'{"error": "gone"}'), page_kind("https://host/config.json", b"{}")
        ('a JSON document', None)
    """
    encoding = next((name for bom, name in _BOMS if head.startswith(bom)), "utf-8")
    if encoding == "utf-8" and head[1:2] == head[3:4] == b"\0" != head[:1]:
        encoding = "utf-16-le"
    text = head.decode(encoding, "replace").lstrip("\ufeff \t\r\n").lower()
    kind, _ = stand_in(text.encode()) or (None, "")
    if kind is not None or checked or PurePosixPath(urlsplit(uri).path).suffix.lower() in _TEXTS:
        return kind
    whole = text[:-1] if len(head) >= HEAD else text  # the last character may be cut
    if not whole or "\ufffd" in whole or not all(one.isprintable() or one in "\t\r\n" for one in whole):
        return None
    return next(kind for start, kind in _IN_TEXT if text.startswith(start))


def check_head(uri: str, head: bytes, *, checked: bool = False) -> None:
    """Raises `NotTheFileError` if the first bytes of what an address gave are those of a page, as `page_kind` finds."""
    kind = page_kind(uri, head, checked=checked)
    if kind is not None:
        raise not_the_file(uri, kind)


def not_the_file(uri: str, kind: str) -> NotTheFileError:
    """The error for a page in place of the file, with what helps at that host."""
    host = urlsplit(uri).hostname or ""
    fix = next(fix for ending, fix in _FIXES if host.endswith(ending))
    if "git-lfs" in kind:
        fix = "The address is that of the pointer in a git repository: use the one that its `download` button gives."
    return NotTheFileError(f"{uri} gave {kind}, not a checkpoint. Nothing was kept.", fix)
