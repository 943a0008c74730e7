"""Files of the Hugging Face Hub: through huggingface_hub and its cache, and checked by us. Imports no torch.

huggingface_hub compares lengths, not hashes, trusts the names that a server gives, and sleeps as long as a server asks. So
names are checked before it sees them, bytes after it has written them, and it runs in a thread that can be given up on.
"""

from __future__ import annotations

import logging
import os
import queue
import re
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hubcore.errors import ChecksumError, DownloadError, OfflineError
from hubcore.progress import Progress as Display
from hubcore.sources.expectations import Expectation
from hubcore.sources.https.addresses import check_url
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

_log = logging.getLogger("hubcore.checkpoints")
_PART = r"(?!\.\.?(?:/|$))[\w.-]+"
_URI = re.compile(
    rf"hf://(?P<repo>{_PART}/{_PART})"
    rf"(?:@(?P<revision>refs/{_PART}/{_PART}|refs%2F[\w.-]+%2F[\w.-]+|{_PART}))?"
    rf"(?:/(?P<file>{_PART}(?:/{_PART})*))?",
    re.ASCII,
)
_ETAG = re.compile(r"[0-9a-f]{64}|[0-9a-f]{40}")
_TRIES = 5
METADATA_TIMEOUT = 10.0
"""Seconds for the hub to say what a file is."""
STALLED_AFTER = 120.0
"""Seconds without a byte after which a download is given up."""
_SLACK = 1 << 20


class AbsentFileError(DownloadError):
    """The repository is there and has no such file."""


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
    if not match or ".." in parts or "." in parts or "--" in match["repo"] or len(uri) > 1000:
        raise DownloadError(f"{uri!r} is not of the form hf://org/repo[@revision][/file]. Correct it.")
    return HubFile(match["repo"], (match["revision"] or "main").replace("%2F", "/"), match["file"])


def hub_file(file: HubFile, promise: Expectation, offline: bool) -> Path:
    """The local copy of one file of the hub, whole and checked, fetched if need be.

    Raises:
        OfflineError: it is not in the cache and `offline` is set.
        ChecksumError: its bytes are not the published ones.
        DownloadError: it cannot be obtained; the message says why and what to do.
    """
    there = _from_caches(file, promise, offline)
    if there is not None:
        return there
    if offline:
        raise OfflineError(
            f"{file} is not in the cache {hf_cache_dir()} and offline mode is on. Where there is a network, "
            f"`hubcore fetch {promise.name or file}` puts it there; HUBCORE_OFFLINE and HF_HUB_OFFLINE must be unset."
        )
    endpoint = hub_endpoint()
    cached = snapshot(file.repo, str(file.name), file.revision, hf_cache_dir())
    try:
        metadata = _metadata(file, endpoint, patient=cached is None)
    except DownloadError as error:
        if cached is None or isinstance(error, AbsentFileError):
            raise
        wrong = _checked(cached, promise, None)
        if wrong:
            raise ChecksumError(f"{cached} is damaged: {wrong}. It cannot be fetched again now: {error}") from error
        _log.warning("the copy of %s in the cache is used, and may be old, because %s", file, error)
        return cached
    _check_metadata(file, endpoint, metadata, promise)
    current = cached is not None and commit_of(file.repo, file.revision, hf_cache_dir()) == metadata.commit_hash
    if cached is not None and current and _checked(cached, promise, metadata.etag) is None:
        return cached
    for last in (False, True):
        path = _download(file, endpoint, metadata, force=last)
        wrong = _checked(path, promise, metadata.etag)
        if wrong is None:
            return path
        try:
            remove(path)
        except OSError as error:
            raise ChecksumError(f"{path} is damaged: {wrong}. It cannot be removed ({error}). Remove it by hand.") from error
        if not last:
            _log.warning("%s: %s; it was removed and is fetched again", file, wrong)
    raise ChecksumError(
        f"{file} is not the published file: {wrong}, in two downloads. Nothing was kept. "
        "Something on the way changes it, or the publisher replaced it: use another source, or the card needs its new SHA-256."
    )


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
        raise DownloadError(f"HF_ENDPOINT is not acceptable: {error}") from error
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
            wrong = _checked(path, promise, None)
            if wrong is None:
                return path
            if path != exact:
                continue  # another version of the file, which is no fault
            if promise.sha256 is not None and why_wrong(path, None) is None:
                if offline:
                    raise ChecksumError(
                        f"{path} is another version of the file: {wrong}. Offline mode forbids to fetch the right one. "
                        f"Where there is a network, `hubcore fetch {promise.name or file}` says more."
                    )
                continue  # it is what the hub gave, and not ours to remove
            if offline:
                raise ChecksumError(
                    f"{path} is damaged: {wrong}. Offline mode forbids to fetch it again. "
                    f"Where there is a network, `hubcore fetch {promise.name or file}` replaces it."
                )
            if cache == hf_cache_dir():
                _log.warning("%s is damaged (%s); it was removed and is fetched again", path, wrong)
                remove(path)
    return None


def _is_another(path: Path, sha256: str | None) -> bool:
    """Whether a file's own name says that it is not the one of this digest, so that it need not be read."""
    blob = blob_of(path)
    return blob is not None and len(blob.name) == 64 and sha256 not in (None, blob.name)


def _checked(path: Path, promise: Expectation, etag: str | None) -> str | None:
    """What is wrong with a file, or None."""
    if promise.size is not None and path.stat().st_size != promise.size:
        return f"it has {path.stat().st_size} bytes, but must have {promise.size}"
    return why_wrong(path, promise.sha256, etag)


def _metadata(file: HubFile, endpoint: str, *, patient: bool) -> Any:
    """What the hub says about a file before any of it is written; asked several times if `patient`."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.utils import httpx

    url = hf_hub_url(file.repo, str(file.name), revision=file.revision, endpoint=endpoint)
    for number in range(1, _TRIES + 1):
        try:
            return get_hf_file_metadata(url, timeout=METADATA_TIMEOUT, endpoint=endpoint)
        except (HfHubHTTPError, httpx.HTTPError, OSError, ValueError) as error:
            status = getattr(getattr(error, "response", None), "status_code", None)
            passing = status in (408, 425, 429, 500, 502, 503, 504) or isinstance(error, httpx.TransportError)
            if not passing or not patient or number == _TRIES:
                raise explained(file, endpoint, error) from error
            _log.warning("%s: the hub does not answer (%s); trying again", file, status or type(error).__name__)
            pause(min(0.5 * 2.0**number, 5.0))
    raise DownloadError(f"{file} cannot be fetched. Try again later.")


def pause(seconds: float) -> None:
    """Waits between two attempts."""
    time.sleep(seconds)


def _check_metadata(file: HubFile, endpoint: str, metadata: Any, promise: Expectation) -> None:
    """Refuses names that would become paths outside of the cache, and files that are known to be the wrong ones."""
    if metadata.commit_hash is None or metadata.etag is None:
        raise DownloadError(
            f"{file}: {endpoint} answers, but not as the hub does. A proxy, a login page or a wrong HF_ENDPOINT may be in "
            "between. Open the address in a browser."
        )
    if not COMMIT.fullmatch(metadata.commit_hash) or not _ETAG.fullmatch(metadata.etag):
        raise DownloadError(
            f"{file}: {endpoint} names the file {metadata.etag!r} of commit {metadata.commit_hash!r}. These are no hashes, and "
            "would become paths. Nothing was written. Do not use that endpoint."
        )
    if len(metadata.etag) == 64 and promise.sha256 not in (None, metadata.etag):
        if promise.pinned:
            from hubcore.sources.pins import Pin, changed_since_pinned, read_pin

            pin = read_pin(promise.uri)
            raise changed_since_pinned(pin or Pin(promise.uri, str(promise.sha256), 0, "earlier"), metadata.etag)
        raise ChecksumError(
            f"{file} has SHA-256 {metadata.etag} on the hub, but must have {promise.sha256}. It is not the published file. "
            "Nothing was fetched. Name the commit that has it, or correct the card."
        )
    if None not in (metadata.size, promise.size) and metadata.size != promise.size:
        raise ChecksumError(f"{file} has {metadata.size} bytes on the hub, but must have {promise.size}. It is another file.")


def _download(file: HubFile, endpoint: str, metadata: Any, *, force: bool) -> Path:
    """Runs `hf_hub_download` in a thread, and gives it up when nothing comes for too long or too much comes."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.utils import httpx

    done: queue.Queue[Path | BaseException] = queue.Queue()
    watch = _Watch(metadata.size)
    cache = hf_cache_dir()

    def work() -> None:
        try:
            path = hf_hub_download(
                file.repo,
                str(file.name),
                revision=file.revision,
                cache_dir=cache,
                endpoint=endpoint,
                force_download=force,
                tqdm_class=watch.bar_class(),
            )
            done.put(Path(path))
        except BaseException as error:  # handed to the thread that waits
            done.put(error)

    # A daemon, so that a sleep that a server ordered keeps neither Ctrl-C nor the end of the program waiting.
    threading.Thread(target=work, name=f"download of {file}", daemon=True).start()
    with Display("B", str(file.name), say=_log.info, keep=True) as display:
        try:
            while True:
                try:
                    result = done.get(timeout=0.1)
                    break
                except queue.Empty:
                    display(watch.received, metadata.size)
                    if time.monotonic() - watch.last > STALLED_AFTER:
                        raise DownloadError(
                            f"{file}: nothing came from the hub for {STALLED_AFTER:.0f} s. It is overloaded or asks for a long "
                            "wait. Try again later."
                        ) from None
        finally:
            watch.stop = True
    if isinstance(result, Path):
        return result
    if isinstance(result, DownloadError):
        raise result
    if isinstance(result, HfHubHTTPError | httpx.HTTPError | OSError | ValueError | RuntimeError):
        raise explained(file, endpoint, result) from result
    raise result


class _Watch:
    """Counts what comes, for the display and the limits."""

    def __init__(self, size: int | None) -> None:
        self.size = size
        self.received = 0
        self.last = time.monotonic()
        self.stop = False

    def count(self, count: float | None) -> None:
        self.received += int(count or 0)
        self.last = time.monotonic()
        if self.stop:
            raise DownloadError("the download was given up. Nobody waits for it. Start it again.")
        # huggingface_hub counts before it writes, so what is too much never reaches the disk.
        if self.size is not None and self.received > self.size + _SLACK:
            raise DownloadError(
                f"the hub sends more than the {self.size} bytes that it announced. It is not that file. Try again later."
            )

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


def explained(file: HubFile, endpoint: str, error: BaseException) -> DownloadError:
    """Our error for one of huggingface_hub's: which file, what is true, what to do. Never shows a token."""
    from huggingface_hub import errors

    page = f"{endpoint}/{file.repo}"
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, errors.GatedRepoError):
        return DownloadError(
            f"{file} is gated: its owner wants every user to accept the terms first. "
            f"Accept them at {page}, then log in with `hf auth login`, or set HF_TOKEN."
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return DownloadError(
            f"{file}: there is no such repository, or it is private. Check the name; if it is private, `hf auth login` "
            "with an account that may read it."
        )
    if status == 401:
        return DownloadError(f"{file}: the hub wants you to log in (401). Your token is missing or wrong. Run `hf auth login`.")
    if isinstance(error, errors.RevisionNotFoundError):
        return DownloadError(f"{file}: the repository has no revision {file.revision!r}. Its revisions are at {page}/commits.")
    if isinstance(error, errors.LocalEntryNotFoundError):
        return DownloadError(f"{file} is not in the cache and {endpoint} cannot be reached. Check the network.")
    if isinstance(error, errors.EntryNotFoundError):
        return AbsentFileError(f"{file}: the repository has no such file. Its files are at {page}/tree/{file.revision}.")
    if status is not None:
        return DownloadError(f"{file}: the hub answered {status}. Try again later; {page} shows whether it is there.")
    if isinstance(error, OSError) and error.errno is not None and error.filename is not None:
        return DownloadError(
            f"{file}: {error.filename} cannot be written ({error.strerror}). Free some space, or set HF_HOME elsewhere."
        )
    return DownloadError(f"{file} cannot be fetched: {type(error).__name__}: {_without_token(str(error))}. Check the network.")


def _without_token(text: str) -> str:
    from huggingface_hub import get_token

    token = get_token()
    return text.replace(token, "***") if token else text
