"""A small Hugging Face Hub on this machine: enough for the real huggingface_hub and transformers, with faults on demand.

Files that are in LFS are served by a second server, as the real hub's are by a CDN. See `http_server.Answer` for what that
one may do wrong.
"""

from __future__ import annotations

import hashlib
import http.server
import json
import threading
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from tests.faults.http_server import Answer, Request, Server

COMMIT = "c0ffee" + "0" * 34


@dataclass
class Repository:
    """One model repository at one commit."""

    files: dict[str, bytes] = field(default_factory=dict)
    lfs: set[str] = field(default_factory=set)
    """Files that come from the other server, under their SHA-256."""
    commit: str = COMMIT
    revisions: tuple[str, ...] = ("main",)
    gated: bool = False
    private: bool = False


def git_sha1(body: bytes) -> str:
    return hashlib.sha1(b"blob %d\0%s" % (len(body), body)).hexdigest()


class FakeHub(http.server.ThreadingHTTPServer):
    """`repositories` by name; `faults` are answered to the next requests for files, one each, before anything else."""

    daemon_threads = True

    def __init__(self, cdn: Server) -> None:
        self.cdn = cdn
        self.repositories: dict[str, Repository] = {}
        self.faults: list[tuple[int, dict[str, str]]] = []
        self.always: tuple[int, dict[str, str]] | None = None
        """A fault that does not end."""
        self.headers: dict[str, str] = {}
        """Headers that replace the right ones; an empty text removes one."""
        self.direct: Answer | None = None
        """How the body of a file that is not in LFS is sent."""
        self.log: list[Request] = []
        self.lock = threading.Lock()
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def add(self, repo: str, files: dict[str, bytes], lfs: tuple[str, ...] = (), **facts: Any) -> Repository:
        """A repository with these files; those named in `lfs` come from the other server."""
        made = self.repositories[repo] = Repository(files, set(lfs), **facts)
        for name in lfs:
            self.cdn.answers(Answer(files[name], etag=f'"{sha256(files[name])}"'), path=f"/{sha256(files[name])}")
        return made

    @property
    def asked(self) -> list[str]:
        """Method and path of every request to the hub itself."""
        return [f"{request.method} {request.path}" for request in self.log]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is no news."""


def sha256(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


class _Handler(http.server.BaseHTTPRequestHandler):
    server: FakeHub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        hub = self.server
        self.close_connection = True
        with hub.lock:
            headers = {name.lower(): value for name, value in self.headers.items()}
            hub.log.append(Request(self.path, self.command, headers))
            fault = hub.faults.pop(0) if hub.faults else hub.always
        if fault is not None:
            self._reply(fault[0], fault[1], b"fault")
            return
        # A revision such as refs/pr/1 arrives with its slashes quoted, so the path is split before it is unquoted.
        parts = [unquote(part) for part in self.path.partition("?")[0].strip("/").split("/")]
        if parts[:2] == ["api", "models"]:
            self._api(parts[2:])
        elif len(parts) >= 5 and parts[2] == "resolve":
            self._file("/".join(parts[:2]), parts[3], "/".join(parts[4:]))
        else:
            self._reply(404, {}, b"")

    def _allowed(self, name: str, revision: str | None) -> Repository | None:
        repository = self.server.repositories.get(name)
        authorized = self.headers.get("Authorization") is not None
        if repository is None or (repository.private and not authorized):
            self._reply(401 if not authorized else 404, {"X-Error-Code": "RepoNotFound"}, b"")
        elif repository.gated:
            self._reply(403 if authorized else 401, {"X-Error-Code": "GatedRepo", "X-Error-Message": "gated"}, b"")
        elif revision is not None and revision not in (repository.commit, *repository.revisions):
            self._reply(404, {"X-Error-Code": "RevisionNotFound"}, b"")
        else:
            return repository
        return None

    def _api(self, parts: list[str]) -> None:
        revision = parts[3] if len(parts) > 3 else None
        repository = self._allowed("/".join(parts[:2]), revision)
        if repository is None:
            return
        if parts[2:3] == ["tree"]:
            reply: Any = [{"type": "file", "path": p, "size": len(b), "oid": git_sha1(b)} for p, b in repository.files.items()]
        elif parts[2:3] in ([], ["revision"]):
            siblings = [{"rfilename": name} for name in repository.files]
            reply = {
                "id": "/".join(parts[:2]),
                "sha": repository.commit,
                "siblings": siblings,
                "private": False,
                "gated": False,
            }
        else:
            self._reply(404, {}, b"")
            return
        self._reply(200, {"Content-Type": "application/json"}, json.dumps(reply).encode())

    def _file(self, repo: str, revision: str, name: str) -> None:
        repository = self._allowed(repo, revision)
        if repository is None:
            return
        body = repository.files.get(name)
        if body is None:
            self._reply(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": repository.commit}, b"")
            return
        headers = {"X-Repo-Commit": repository.commit, "Accept-Ranges": "bytes", "ETag": f'"{git_sha1(body)}"'}
        if name in repository.lfs:
            digest = sha256(body)
            headers |= {
                "X-Linked-Etag": f'"{digest}"',
                "X-Linked-Size": str(len(body)),
                "Location": self.server.cdn.url(f"/{digest}"),
            }
            self._reply(302, headers | self.server.headers, b"")
        else:
            sent = self.server.direct.body if self.server.direct and self.command == "GET" else body
            extra = self.server.direct.headers if self.server.direct and self.command == "GET" else {}
            self._reply(200, headers | extra | self.server.headers, sent, length=len(body) if self.command == "HEAD" else None)

    def _reply(self, status: int, headers: dict[str, str], body: bytes, length: int | None = None) -> None:
        self.send_response(status)
        for name, value in {
            "Connection": "close",
            "Content-Length": str(len(body) if length is None else length),
            **headers,
        }.items():
            if value:
                self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        return
