"""A web server on this machine that does what a script tells it, faults included, and writes down every request."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import random
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

BODY = random.Random(4).randbytes(300_000)
SHA256 = hashlib.sha256(BODY).hexdigest()


@dataclass
class Answer:
    """What the server does with one request."""

    body: bytes = BODY
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    etag: str | None = '"v1"'
    ranges: bool = True
    """Whether `Range` is honoured, for the version that `If-Range` names."""
    content_range: str | None = None
    """A wrong one, for a 206."""
    length: int | None = None
    """A `Content-Length` that is not true."""
    chunked: bool = False
    bare: bool = False
    """HTTP/1.0 without a length: the end of the connection is the end of the body."""
    cut: int | None = None
    """Bytes after which the connection is closed."""
    stall: int | None = None
    """Bytes after which nothing comes any more."""
    endless: bool = False
    drip: float | None = None
    """Seconds between single bytes."""
    rate: int | None = None
    """Bytes a second."""


@dataclass(frozen=True)
class Request:
    """One request as it came."""

    path: str
    method: str
    headers: dict[str, str]

    @property
    def range(self) -> str | None:
        return self.headers.get("range")


class Server(http.server.ThreadingHTTPServer):
    """`script[path]` lists the answers, one for each request; the last one is given again and again."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        self.script: dict[str, list[Answer]] = {}
        self.log: list[Request] = []
        self.sent = 0
        """Bytes of bodies."""
        self.stopping = threading.Event()
        self.lock = threading.Lock()
        super().__init__(("127.0.0.1", 0), _Handler)

    def url(self, path: str = "/model.pt") -> str:
        return f"http://127.0.0.1:{self.server_port}{path}"

    def answers(self, *answers: Answer, path: str = "/model.pt") -> str:
        """Sets what a path answers; gives its URL."""
        self.script[path] = list(answers)
        return self.url(path)

    @property
    def ranges(self) -> list[str | None]:
        return [request.range for request in self.log]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is no news."""


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        with self.server.lock:
            headers = {name.lower(): value for name, value in self.headers.items()}
            self.server.log.append(Request(self.path, self.command, headers))
            answers = self.server.script.get(self.path, [Answer(b"gone", 404)])
            answer = answers.pop(0) if len(answers) > 1 else answers[0]
        self.close_connection = True
        self._answer(answer)

    def _answer(self, answer: Answer) -> None:
        status, body = answer.status, answer.body
        wanted, condition = self.headers.get("Range"), self.headers.get("If-Range")
        headers = {"Connection": "close", **answer.headers}
        if answer.etag is not None:
            headers["ETag"] = answer.etag
        versions = (None, answer.etag, headers.get("Last-Modified"))
        if status == 200 and answer.ranges and wanted and condition in versions:
            offset = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if offset >= len(body):
                status, body = 416, b""
                headers["Content-Range"] = f"bytes */{len(answer.body)}"
            else:
                status, body = 206, body[offset:]
                headers["Content-Range"] = answer.content_range or f"bytes {offset}-{len(answer.body) - 1}/{len(answer.body)}"
        if answer.bare:
            self.protocol_version = "HTTP/1.0"
        elif answer.chunked or answer.endless:
            headers["Transfer-Encoding"] = "chunked"
        else:
            headers["Content-Length"] = str(len(body) if answer.length is None else answer.length)
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self._send(body, answer)

    def _send(self, body: bytes, answer: Answer) -> None:
        step = 1 if answer.drip is not None else 16_384
        position = 0
        while answer.endless or position < len(body):
            if answer.stall is not None and position >= answer.stall:
                self.server.stopping.wait(30)
                return
            ends = [position + step, *(at for at in (answer.cut, answer.stall) if at is not None)]
            if answer.cut is not None and position >= answer.cut:
                return
            block = bytes(step) if answer.endless else body[position : min(ends)]
            if answer.chunked or answer.endless:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(block), block))
            else:
                self.wfile.write(block)
            position += len(block)
            with self.server.lock:
                self.server.sent += len(block)
            wait = answer.drip if answer.drip is not None else len(block) / answer.rate if answer.rate else 0
            if wait and self.server.stopping.wait(wait):
                return
        if answer.chunked and (answer.cut is None or answer.cut > len(body)):
            self.wfile.write(b"0\r\n\r\n")

    def log_message(self, *_: object) -> None:
        return


@contextlib.contextmanager
def running(server: Any) -> Iterator[Any]:
    """Serves in a thread until the block ends."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        if hasattr(server, "stopping"):
            server.stopping.set()
        server.shutdown()
        server.server_close()
        thread.join(5)


def wait_until(condition: Any, seconds: float = 120.0) -> None:
    """Waits until something is so; an error if it does not come."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.01)
