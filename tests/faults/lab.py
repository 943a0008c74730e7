"""What the download cases work with: a server, a cache, and short times."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from hubcore.card import Card, Source
from hubcore.sources import resolve as sources
from hubcore.sources.https import transfer
from hubcore.sources.https.parts import Remote
from hubcore.sources.hub import hugging_face
from hubcore.sources.pins import address_key
from tests.faults.http_server import BODY, SHA256, Server, running


class Lab:
    """One server and one cache; `waits` collects the pauses between attempts, which are not waited."""

    def __init__(self, server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
        self.server, self.cache, self.monkeypatch, self.caplog = server, cache, monkeypatch, caplog
        self.waits: list[float] = []
        monkeypatch.setattr(transfer, "pause", self.waits.append)
        monkeypatch.setattr(hugging_face, "pause", self.waits.append)
        monkeypatch.setenv("HUBCORE_CACHE", str(cache))

    def get(self, url: str, sha256: str | None = SHA256, size: int | None = None, offline: bool = False) -> bytes:
        """Downloads, and gives the bytes of the file that came of it."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("HUBCORE_CACHE", str(self.cache))
            if offline:
                patch.setenv("HUBCORE_OFFLINE", "1")
            path = sources.fetch_source(Source(url, sha256, size))
        assert path.name == f"sha256-{hashlib.sha256(path.read_bytes()).hexdigest()}"
        return path.read_bytes()

    def card(self, *given: Source) -> Card:
        return Card("a_card", "wav2vec2", "MIT", sources=given)

    def fetch(self, *given: Source) -> Path:
        return sources.fetch_card(self.card(*given))

    def files(self, *folders: str) -> list[str]:
        """What lies in the cache, without stamps and locks, which hold no bytes of a file."""
        wanted = folders or ("files", "pins", "parts", "hub")
        found = (path for folder in wanted for path in (self.cache / folder).rglob("*"))
        return sorted(path.relative_to(self.cache).as_posix() for path in found if path.is_file())

    @property
    def stored(self) -> Path:
        return self.cache / "files" / f"sha256-{SHA256}"

    def parts(self) -> list[Path]:
        return sorted((self.cache / "parts").glob("*.part"))

    def leave_part(
        self,
        url: str,
        body: bytes,
        *,
        of: str | None = None,
        validator: str | None = '"v1"',
        total: int | None = len(BODY),
        sidecar: str | None = None,
    ) -> Path:
        """A part as a killed process leaves it, `of` another address; `sidecar` replaces what would lie beside it, if any."""
        path = self.cache / "parts" / f"{address_key(url)}.part"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
        text = json.dumps(vars(Remote(of or url, validator, total))) if sidecar is None else sidecar
        if text:
            path.with_name(path.name + ".json").write_text(text)
        return path


@contextlib.contextmanager
def a_lab(folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Iterator[Lab]:
    """A lab with its cache in `folder`."""
    with running(Server()) as server:
        yield Lab(server, folder / "cache", monkeypatch, caplog)
