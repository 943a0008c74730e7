"""The bytes of one URL into a part: attempts, resuming, redirects, limits. Imports no torch.

The HTTP client is the one that huggingface_hub brings. No credentials are sent from here, to any host.
"""

from __future__ import annotations

import os
import random
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from hubcore.errors import DownloadError, OptionError
from hubcore.hookspecs import Expectation
from hubcore.sources.https.addresses import is_loopback, note_refused, redirect_target, was_refused
from hubcore.sources.https.headers import content_range, validator, whole_number
from hubcore.sources.https.parts import Part, Remote
from hubcore.sources.pages import check_head, not_the_file
from hubcore.text import logger

_log = logger("checkpoints")
CONNECT_TIMEOUT = 10.0
"""Seconds."""
READ_TIMEOUT = 30.0
"""Seconds without a byte."""
SLOWEST = 1024.0
"""Bytes a second, over RATE_WINDOW seconds, below which a transfer is broken off."""
RATE_WINDOW = 30.0
_TRIES = 5
_PROGRESS = 1 << 14
"""Bytes that an attempt must add for the count of tries to start again."""
_MOST_TRIES = 200
_REDIRECTS = 5
_MOST = 64 << 30
_RETRIED = (408, 425, 429, 500, 502, 503, 504)
_LONGEST_WAIT = 30.0
_LONGEST_RETRY_AFTER = 60.0

Watcher = Callable[[int, int | None], None]
"""Called with the bytes received so far and the bytes the file will have, None if unknown."""


class PassingError(Exception):
    """A failure that may pass; `wait` seconds are what the server or the cause suggests, None for the usual."""

    def __init__(self, what: str, wait: float | None = None) -> None:
        self.wait = wait
        super().__init__(what)


def transfer(url: str, part: Part, promise: Expectation, watcher: Watcher) -> None:
    """Completes a part from `url`, in as many attempts as it takes, each resuming the last one.

    Raises:
        DownloadError: the server refuses, sends what is not the file, or fails again and again.
        OSError: the part cannot be written.
    """
    from huggingface_hub.utils import httpx

    failures, tries, most = 0, 0, part.size
    if was_refused(url) and not part.is_complete:
        raise _unreachable(url, "it could not be a moment ago")
    while True:
        try:
            if not part.is_complete:
                with _client(httpx, url) as client:
                    _attempt(client, url, part, promise, watcher)
            check_head(url, part.head(), checked=promise.sha256 is not None)
            return
        except httpx.TransportError as error:
            last = PassingError(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__)
            if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout) and not tries:
                note_refused(str(error.request.url))
                raise _unreachable(str(error.request.url), str(last)) from error
        except (httpx.InvalidURL, httpx.StreamError) as error:
            raise DownloadError(f"{url} cannot be requested: {error}.", "Correct the address.") from error
        except PassingError as error:
            last = error
        tries += 1
        failures = 1 if part.size >= most + _PROGRESS else failures + 1
        most = max(most, part.size)
        if failures >= _TRIES or tries >= _MOST_TRIES:
            raise _gave_up(url, tries, last, part)
        _log.warning("%s: %s; trying again", url, last)
        pause(random.uniform(0.5, 1.0) * min(2.0**failures, _LONGEST_WAIT) if last.wait is None else last.wait)  # noqa: S311


def pause(seconds: float) -> None:
    """Waits between two attempts."""
    time.sleep(seconds)


@contextmanager
def _client(httpx: Any, url: str) -> Iterator[Any]:
    timeout = httpx.Timeout(READ_TIMEOUT, connect=CONNECT_TIMEOUT)
    # A proxy of the environment cannot reach this machine's own loopback address.
    with httpx.Client(timeout=timeout, follow_redirects=False, trust_env=not is_loopback(url)) as client:
        yield client


def _attempt(client: Any, url: str, part: Part, promise: Expectation, watcher: Watcher) -> None:
    headers = {"Accept-Encoding": "identity", "User-Agent": "hubcore"}
    if part.size and part.remote.validator is not None:
        headers |= {"Range": f"bytes={part.size}-", "If-Range": part.remote.validator}
    elif part.size:
        part.restart(Remote(url))
    here = url
    for _ in range(_REDIRECTS + 1):
        client.cookies.clear()
        pace = _Pace()
        with client.stream("GET", here, headers=headers, extensions={"trace": pace.watch}) as response:
            if response.status_code in (301, 302, 303, 307, 308):
                here = redirect_target(here, response.headers.get("Location", ""))
                continue
            _begin(response, url, part, promise)
            _body(response, url, part, promise, watcher, pace)
            return
    raise DownloadError(f"{url} redirects more than {_REDIRECTS} times.", "Use another source.")


def _begin(response: Any, url: str, part: Part, promise: Expectation) -> None:
    """Checks an answer's status and headers against the part and the promise; empties the part if it cannot be continued."""
    status, headers = response.status_code, response.headers
    if status == 416:
        part.restart(Remote(url))
        raise PassingError("the server cannot resume the download", wait=0.0)
    if status in _RETRIED:
        raise PassingError(f"the server answered {status}", _retry_after(headers.get("Retry-After")))
    if status not in (200, 206):
        raise _refused(url, status)
    if headers.get("Content-Encoding", "identity").strip().lower() not in ("identity", ""):
        raise DownloadError(
            f"{url} sends its file compressed, which was not asked for. Nothing was kept.", "Use another source."
        )
    coming = whole_number(headers.get("Content-Length"))
    if status == 206:
        if not part.size or not _continues(headers, part, coming):
            part.restart(Remote(url))
            raise PassingError("the server sent another range than was asked for", wait=0.0)
    else:
        if coming is None and promise.sha256 is None and "chunked" not in headers.get("Transfer-Encoding", "").lower():
            raise _unknown_length(url)
        if promise.sha256 is None and headers.get("Content-Type", "").lower().startswith("text/html"):
            raise not_the_file(url, "an HTML page")
        if coming is not None and (promise.size not in (None, coming) or coming > most_bytes(promise)):
            raise _wrong_length(url, "announces", coming, promise)
        named = validator(headers.get("ETag"), headers.get("Last-Modified"), headers.get("Date"))
        part.restart(Remote(url, named, coming))
    free = shutil.disk_usage(part.path.parent).free
    if (coming or 0) > free:
        raise _too_large_for_disk(url, coming, free, part)


def _continues(headers: Any, part: Part, coming: int | None) -> bool:
    """True if a 206 brings exactly the rest of the part."""
    part_of, known = content_range(headers.get("Content-Range")), part.remote.total
    if part_of is None or part_of.start != part.size or known not in (None, part_of.end):
        return False
    etag = headers.get("ETag")
    same = etag is None or not str(part.remote.validator).startswith('"') or etag == part.remote.validator
    whole = part_of.end == (known if part_of.total is None else part_of.total)
    return same and whole and coming in (None, part_of.end - part.size)


def _body(response: Any, url: str, part: Part, promise: Expectation, watcher: Watcher, pace: _Pace) -> None:
    total = part.remote.total
    most = most_bytes(promise)
    watcher(part.size, total or promise.size)
    for block in response.iter_raw():
        if part.size + len(block) > most:
            part.restart(Remote(url))
            raise _wrong_length(url, "sent more than", most, promise)
        beginning = part.size < 64
        part.append(block)
        if beginning and part.size >= 64:
            check_head(url, part.head(), checked=promise.sha256 is not None)
        pace.count(len(block))
        watcher(part.size, total or promise.size)
    if total is not None and part.size != total:
        raise PassingError(f"only {part.size} of {total} bytes were received")
    if not part.size:
        raise DownloadError(f"{url} gave an empty file. Nothing was kept.", "Use another source.")


class _Pace:
    """Breaks off a transfer that is too slow to end; a read timeout does not see one that sends a byte now and then.

    Only bytes of the file count, so that this limits the wait for them as well, whatever else a server sends before.
    """

    def __init__(self) -> None:
        self._since, self._bytes = time.monotonic(), 0

    def watch(self, event: str, info: dict[str, Any]) -> None:
        """Looks at the clock at each read from the network; httpcore's `trace` calls this with each new connection."""
        if not event.endswith(("connect_tcp.complete", "start_tls.complete")):
            return
        stream = info["return_value"]
        read = stream.read

        def paced(*arguments: Any, **options: Any) -> bytes:
            data: bytes = read(*arguments, **options)
            self.count(0)
            return data

        stream.read = paced
        self._since = time.monotonic()

    def count(self, count: int) -> None:
        self._bytes += count
        elapsed = time.monotonic() - self._since
        if elapsed >= RATE_WINDOW:
            if self._bytes < SLOWEST * elapsed:
                raise PassingError(f"only {self._bytes} bytes were received in {elapsed:.0f} s")
            self._since, self._bytes = time.monotonic(), 0


def most_bytes(promise: Expectation) -> int:
    """The most bytes to download: the size that the card states, else `HUBCORE_MAX_DOWNLOAD`, else 64 GiB."""
    if promise.size is not None:
        return promise.size
    text = os.environ.get("HUBCORE_MAX_DOWNLOAD", "") or str(_MOST)
    most = whole_number(text)
    if most is None:
        raise OptionError(f"HUBCORE_MAX_DOWNLOAD is {text!r}. It must be a number of bytes.", "Correct or unset it.")
    return most


def _retry_after(text: str | None) -> float | None:
    """The seconds that a server asks to wait, within reason; None for a date or nonsense, where the usual wait is as good."""
    seconds = whole_number(text)
    return None if seconds is None else min(float(seconds), _LONGEST_RETRY_AFTER)


# Errors ---------------------------------------------------------------------------------------------------------------


def _gave_up(url: str, tries: int, last: PassingError, part: Part) -> DownloadError:
    kept = f" The {part.size} bytes received are kept and can be resumed." if part.size and part.shared else ""
    return DownloadError(f"{url} failed {tries} times, last because {last}.{kept}", "Check the network, or try again later.")


def _unreachable(url: str, why: str) -> DownloadError:
    return DownloadError(
        f"{urlsplit(url).netloc} cannot be reached: {why}.", "Check the network; HUBCORE_OFFLINE=1 uses the cache only."
    )


def _refused(url: str, status: int) -> DownloadError:
    reason = "The link has expired or the file is not public" if status in (401, 403) else "The file is gone or was renamed"
    return DownloadError(f"{url} answered {status}. {reason}.", "Check the address.")


def _unknown_length(url: str) -> DownloadError:
    return DownloadError(
        f"{url} does not say how long its file is, and there is no SHA-256 for it. A cut could not be noticed.",
        "Use another source, or write the SHA-256 into a card.",
    )


def _too_large_for_disk(url: str, coming: int | None, free: int, part: Part) -> DownloadError:
    return DownloadError(
        f"{url} needs {coming} more bytes, more than the {free} that are free in {part.path.parent}.",
        "Free some space or set HUBCORE_CACHE elsewhere.",
    )


def _wrong_length(url: str, verb: str, length: int, promise: Expectation) -> DownloadError:
    if promise.size is None:
        return DownloadError(
            f"{url} {verb} {length} bytes. At most {most_bytes(promise)} are downloaded.",
            "Set HUBCORE_MAX_DOWNLOAD to allow more.",
        )
    return DownloadError(
        f"{url} {verb} {length} bytes, but its card says {promise.size}. It is another file.",
        "Use another source; if the publisher changed the file, the card needs its new size and SHA-256.",
    )
