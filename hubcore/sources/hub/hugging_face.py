"""Files of the Hugging Face Hub: through huggingface_hub and its cache, and checked by us. Imports no torch.

huggingface_hub compares lengths, not hashes, trusts the names that a server gives, and sleeps as long as a server asks. So
names are checked before it sees them, bytes after it has written them, and it runs in a thread that can be given up on.
"""

from __future__ import annotations

import os
import queue
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hubcore.errors import ChecksumError, DownloadError
from hubcore.hookspecs import Expectation
from hubcore.progress import Progress
from hubcore.sources.https.addresses import check_url, note_refused, was_refused
from hubcore.sources.hub.cache import (
    COMMIT,
    blob_of,
    commit_of,
    hf_cache_dir,
    hf_caches,
    remove,
    snapshot,
    snapshots_of,
    why_wrong,
)
from hubcore.sources.store import not_cached
from hubcore.text import logger

_log = logger("checkpoints")
_PART = r"(?!\.\.?(?:/|$))[\w.-]+"
_URI = re.compile(
    rf"hf://(?P<repo>{_PART}/{_PART})"
    rf"(?:@(?P<revision>refs/{_PART}/{_PART}|refs%2F[\w.-]+%2F[\w.-]+|{_PART}))?"
    rf"(?:/(?P<file>{_PART}(?:/{_PART})*))?",
    re.ASCII,
)
LONGEST_NAME = 255
"""Characters that file systems take as the name of a file."""
_ETAG = re.compile(r"[0-9a-f]{64}|[0-9a-f]{40}")
_TRIES = 5
_MAY_PASS = (408, 425, 429, 500, 502, 503, 504)
_METADATA_TIMEOUT = 10.0
"""Seconds for each read of the hub's answer about a file."""
ANSWERED_WITHIN = 60.0
"""Seconds for all of that answer."""
STALLED_AFTER = 120.0
"""Seconds after which a download is given up that received fewer than SLOWEST bytes a second since."""
SLOWEST = 1024.0
_SLACK = 1 << 20


class AbsentFileError(DownloadError):
    """The repository has no such file."""


@dataclass(frozen=True)
class HubFile:
    """One file, or one whole model, that a URI names.

    Example:
        >>> parse_hub_uri("hf://org/repo@refs/pr/1/sub/model.bin")
        HubFile(repo='org/repo', revision='refs/pr/1', name='sub/model.bin')
    """

    repo: str
    """`org/repo`."""
    revision: str
    """A commit, a branch, a tag or `refs/pr/N`."""
    name: str | None
    """The path in the repository; None for the whole model."""

    def __str__(self) -> str:
        return f"hf://{self.repo}@{self.revision}" + (f"/{self.name}" if self.name else "")


def parse_hub_uri(uri: str) -> HubFile:
    """The parts of `hf://org/repo[@revision][/file]`; the revision is `main` where none is given.

    Raises:
        DownloadError: it is not of that form, or could lead out of the cache.
    """
    match = _URI.fullmatch(uri)
    names = [match["repo"], match["revision"] or "", match["file"] or ""] if match else []
    parts = [part for name in names for part in re.split(r"/|%2F", name)]
    folder = "models--" + "--".join(parts[:2])  # its name in the cache
    long = len(uri) > 1000 or any(len(part) > LONGEST_NAME for part in (folder, *parts))
    if not match or ".." in parts or "." in parts or "--" in match["repo"] or long:
        raise DownloadError(f"{uri!r} is not of the form hf://org/repo[@revision][/file].", "Correct it.")
    return HubFile(match["repo"], (match["revision"] or "main").replace("%2F", "/"), match["file"])


def hub_file(file: HubFile, promise: Expectation, offline: bool) -> Path:
    """The local copy of one file of the hub, whole and checked, fetched if need be.

    Raises:
        OfflineError: it is not in the cache and `offline` is set.
        ChecksumError: its bytes are not the published ones.
        DownloadError: it cannot be obtained; the message says why and what to do.
    """
    found = _from_caches(file, promise, offline)
    if found is not None:
        return found
    if offline:
        raise not_cached(file, hf_cache_dir(), promise)
    endpoint = hub_endpoint()
    cached = snapshot(file.repo, str(file.name), file.revision, hf_cache_dir())
    try:
        metadata = _metadata(file, endpoint, tries=_TRIES if cached is None else 1)
    except DownloadError as error:
        if cached is None or isinstance(error, AbsentFileError):
            raise
        wrong = _wrong(cached, promise)
        if wrong:
            again = f"It cannot be fetched again now: {error.what}"
            raise ChecksumError(f"{cached} is damaged: {wrong}. {again}", error.fix) from error
        _log.warning("the cached copy of %s is used, and may be old, because %s", file, error)
        return cached
    _check_metadata(file, endpoint, metadata, promise)
    current = cached is not None and commit_of(file.repo, file.revision, hf_cache_dir()) == metadata.commit_hash
    if cached is not None and current and _wrong(cached, promise, metadata.etag) is None:
        return cached
    for force in (False, True):
        path = _download(file, endpoint, metadata, force=force)
        wrong = _wrong(path, promise, metadata.etag)
        if wrong is None:
            return path
        try:
            remove(path)
        except OSError as error:
            raise ChecksumError(f"{path} is damaged: {wrong}. It cannot be removed ({error}).", "Remove it by hand.") from error
        if not force:
            _log.warning("%s: %s; it was removed and is fetched again", file, wrong)
    raise ChecksumError(
        f"{file} is not the published file: {wrong}, in two downloads. Nothing was kept.",
        "Something on the way changes it, or the publisher replaced it: use another source, or correct the card's SHA-256.",
    )


def ask(file: HubFile, promise: Expectation) -> None:
    """Asks the hub about a file without fetching it.

    Raises:
        DownloadError: it cannot be obtained, or has another size or SHA-256 than promised.
    """
    endpoint = hub_endpoint()
    _check_metadata(file, endpoint, _metadata(file, endpoint, tries=3), promise)


def hub_endpoint() -> str:
    """The address of the hub: `HF_ENDPOINT`, else the public one.

    Raises:
        DownloadError: it is not https, nor on this machine.
    """
    from huggingface_hub import constants

    endpoint = (os.environ.get("HF_ENDPOINT") or str(constants.ENDPOINT)).rstrip("/")
    try:
        check_url(endpoint)
    except DownloadError as error:
        raise DownloadError(f"HF_ENDPOINT is not acceptable: {error.what}", error.fix) from error
    return endpoint


def _from_caches(file: HubFile, promise: Expectation, offline: bool) -> Path | None:
    """A copy that needs no question to the hub: of a fixed commit, of a known digest, or of any kind when offline."""
    name = str(file.name)
    for cache in hf_caches():
        exact = snapshot(file.repo, name, file.revision, cache)
        if promise.sha256 is not None:
            candidates = snapshots_of(file.repo, name, file.revision, cache)
        else:
            candidates = [exact] if exact and (offline or COMMIT.fullmatch(file.revision) or cache != hf_cache_dir()) else []
        for path in candidates:
            if path != exact and _is_another(path, promise.sha256):
                continue
            wrong = _wrong(path, promise)
            if wrong is None:
                return path
            if path != exact:
                continue  # another version of the file, which is no fault
            other_version = promise.sha256 is not None and why_wrong(path, None) is None
            if offline:
                raise _needs_network(path, "another version of the file" if other_version else "damaged", wrong, promise, file)
            if cache == hf_cache_dir() and not other_version:  # another version is what the hub gave, and not ours to remove
                _log.warning("%s is damaged (%s); it was removed and is fetched again", path, wrong)
                remove(path)
    return None


def _is_another(path: Path, sha256: str | None) -> bool:
    """True if a file's own name shows that it has another digest, so that it need not be read."""
    blob = blob_of(path)
    return blob is not None and len(blob.name) == 64 and sha256 not in (None, blob.name)


def _wrong(path: Path, promise: Expectation, etag: str | None = None) -> str | None:
    """The fault of a file, or None."""
    if promise.size not in (None, path.stat().st_size):
        return f"it has {path.stat().st_size} bytes, but must have {promise.size}"
    return why_wrong(path, promise.sha256, etag)


def _metadata(file: HubFile, endpoint: str, *, tries: int) -> Any:
    """The hub's answer about a file, before any of it is written."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.utils import httpx

    url = hf_hub_url(file.repo, str(file.name), revision=file.revision, endpoint=endpoint)
    if was_refused(url):
        raise DownloadError(f"{file} cannot be fetched: {endpoint} could not be reached a moment ago.", "Check the network.")
    for number in range(1, tries + 1):
        try:
            done = _in_background(lambda: get_hf_file_metadata(url, timeout=_METADATA_TIMEOUT, endpoint=endpoint))
            answer = done.get(timeout=ANSWERED_WITHIN)
            if isinstance(answer, BaseException):
                raise answer
            return answer
        except queue.Empty:
            raise DownloadError(f"{file}: the hub did not answer within {ANSWERED_WITHIN:.0f} s.", "Try again later.") from None
        except (HfHubHTTPError, httpx.HTTPError, OSError, ValueError) as error:
            status = getattr(getattr(error, "response", None), "status_code", None)
            passing = status in _MAY_PASS or isinstance(error, httpx.TransportError)
            if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout) and number == 1:
                note_refused(url)
                passing = False
            if not passing or number == tries:
                raise _explained(file, endpoint, error) from error
            _log.warning("%s: the hub does not answer (%s); trying again", file, status or type(error).__name__)
            pause(min(0.5 * 2.0**number, 5.0))
    raise AssertionError("at least one try")


def pause(seconds: float) -> None:
    """Waits between two attempts."""
    time.sleep(seconds)


def _check_metadata(file: HubFile, endpoint: str, metadata: Any, promise: Expectation) -> None:
    """Refuses names that would become paths outside of the cache, and files that are known to be the wrong ones."""
    if metadata.commit_hash is None or metadata.etag is None:
        raise DownloadError(
            f"{file}: {endpoint} answers, but not as the hub does: a proxy, a login page or a wrong HF_ENDPOINT.",
            "Open the address in a browser.",
        )
    if not COMMIT.fullmatch(metadata.commit_hash) or not _ETAG.fullmatch(metadata.etag):
        raise DownloadError(
            f"{file}: {endpoint} names the file {metadata.etag!r} of commit {metadata.commit_hash!r}. These are no hashes, and "
            "would become paths. Nothing was written.",
            "Do not use that endpoint.",
        )
    digest = metadata.etag if len(metadata.etag) == 64 else None
    if None not in (digest, promise.sha256) and digest != promise.sha256:
        raise _another_file(file, f"SHA-256 {digest}", promise.sha256, digest)
    if None not in (metadata.size, promise.size) and metadata.size != promise.size:
        raise _another_file(file, f"{metadata.size} bytes", promise.size)


def _download(file: HubFile, endpoint: str, metadata: Any, *, force: bool) -> Path:
    """Runs `hf_hub_download` in a thread, and gives it up when nothing is received for too long, or too much."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.utils import httpx

    watch = _Watch(metadata.size)
    cache = hf_cache_dir()

    def work() -> Path:
        path = hf_hub_download(
            file.repo,
            str(file.name),
            revision=file.revision,
            cache_dir=cache,
            endpoint=endpoint,
            force_download=force,
            tqdm_class=watch.bar_class(),
        )
        return Path(path)

    done = _in_background(work)
    since, seen = time.monotonic(), 0
    result: Path | BaseException | None = None
    with Progress("B", str(file.name), say=_log.info, keep=True) as progress:
        try:
            while result is None:
                try:
                    result = done.get(timeout=0.1)
                except queue.Empty:
                    progress(watch.received, metadata.size)
                    now = time.monotonic()
                    if now - since > STALLED_AFTER:
                        count = watch.received - seen
                        if count < SLOWEST * STALLED_AFTER:
                            what = f"{file}: only {count} bytes were received from the hub in {now - since:.0f} s."
                            raise DownloadError(what, "Try again later.") from None
                        since, seen = now, watch.received
        finally:
            watch.stop = True
    if isinstance(result, Path):
        return result
    if isinstance(result, HfHubHTTPError | httpx.HTTPError | OSError | ValueError | RuntimeError):
        raise _explained(file, endpoint, result) from result
    raise result


def _in_background(work: Callable[[], Any]) -> queue.Queue[Any]:
    """Runs `work` in a thread of its own; the queue gets its result, or the exception that it raised."""
    done: queue.Queue[Any] = queue.Queue()

    def run() -> None:
        try:
            done.put(work())
        except BaseException as error:  # handed to the thread that waits
            done.put(error)

    # A daemon, so that a sleep that a server ordered keeps neither Ctrl-C nor the end of the program waiting.
    threading.Thread(target=run, daemon=True).start()
    return done


class _Watch:
    """Counts received bytes, for the display and the limits."""

    def __init__(self, size: int | None) -> None:
        self.size = size
        self.received = 0
        self.stop = False

    def count(self, count: float | None) -> None:
        self.received += int(count or 0)
        if self.stop:
            raise DownloadError("the download was given up.", "Start it again.")
        # huggingface_hub counts before it writes, so what is too much never reaches the disk.
        if self.size is not None and self.received > self.size + _SLACK:
            raise DownloadError(f"the hub sends more than the {self.size} bytes that it announced.", "Try again later.")

    def bar_class(self) -> type[Any]:
        """A tqdm class that draws nothing and reports to this watch."""
        from tqdm import tqdm

        watch = self

        class Silent(tqdm):  # type: ignore[type-arg]
            def __init__(self, *args: Any, **options: Any) -> None:
                options.pop("name", None)
                super().__init__(*args, **{**options, "disable": True})

            def update(self, n: float | None = 1) -> bool | None:
                watch.count(n)
                return None

        return Silent


# Errors ---------------------------------------------------------------------------------------------------------------


def _needs_network(path: Path, kind: str, wrong: str, promise: Expectation, file: HubFile) -> ChecksumError:
    return ChecksumError(
        f"{path} is {kind}: {wrong}. Offline mode forbids to fetch the right one.",
        f"On a machine with a network, run `hubcore fetch {promise.name or file}`.",
    )


def _another_file(file: HubFile, has: str, wanted: object, found: str | None = None) -> ChecksumError:
    return ChecksumError(
        f"{file} has {has} on the hub, but must have {wanted}. It is another file. Nothing was fetched.",
        "Name the commit that has the right one, or correct the card.",
        found=found,
    )


def _explained(file: HubFile, endpoint: str, error: BaseException) -> DownloadError:
    """Our error for one of huggingface_hub's; it never shows a token."""
    from huggingface_hub import errors

    page, status = f"{endpoint}/{file.repo}", getattr(getattr(error, "response", None), "status_code", None)
    no_such_repo = "Check the name; if it is private, `hf auth login` with an account that may read it."
    accept = f"Accept them at {page}, then log in with `hf auth login`, or set HF_TOKEN."
    known = (
        (errors.GatedRepoError, " is gated: its owner wants every user to accept the terms first.", accept),
        (errors.RepositoryNotFoundError, ": there is no such repository, or it is private.", no_such_repo),
        (errors.RevisionNotFoundError, f": the repository has no revision {file.revision!r}.", f"See {page}/commits."),
        (errors.LocalEntryNotFoundError, f" is not in the cache and {endpoint} cannot be reached.", "Check the network."),
        (errors.EntryNotFoundError, ": the repository has no such file.", f"See {page}/tree/{file.revision}."),
    )
    what, fix = f" cannot be fetched: {type(error).__name__}: {_without_token(str(error))}.", "Check the network."
    if isinstance(error, OSError) and error.errno is not None and error.filename is not None:
        what, fix = f": {error.filename} cannot be written ({error.strerror}).", "Free some space, or set HF_HOME elsewhere."
    if status is not None:
        what, fix = f": the hub answered {status}.", f"Try again later; {page} shows whether it is there."
    if status == 401:
        what, fix = ": the hub wants you to log in (401). Your token is missing or wrong.", "Run `hf auth login`."
    what, fix = next(((what, fix) for kind, what, fix in known if isinstance(error, kind)), (what, fix))
    absent = isinstance(error, errors.EntryNotFoundError) and not isinstance(error, errors.LocalEntryNotFoundError)
    return (AbsentFileError if absent else DownloadError)(f"{file}{what}", fix)


def _without_token(text: str) -> str:
    from huggingface_hub import get_token

    token = get_token()
    return text.replace(token, "***") if token else text
