"""`download`: one URL into the cache, whole or not at all. Imports no torch.

The bytes go to a private file, are hashed on the way, checked, flushed to disk and renamed; a stamp beside the result
records what it is. The HTTP client is the one that huggingface_hub brings.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

from tqdm import tqdm

from hubcore.checkpoints.sources import read_stamp, write_stamp
from hubcore.errors import DownloadError, OfflineError

_log = logging.getLogger("hubcore.checkpoints")
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_TRIES = 5
_REDIRECTS = 5
_RETRIED = (408, 425, 429, 500, 502, 503, 504)
_PAGES = ((b"<!doctype", "an HTML page"), (b"<html", "an HTML page"), (b"version https://git-lfs", "a git-lfs pointer"))


def cached_path(url: str, cache_dir: Path) -> Path:
    """Where the file of a URL lies in the cache; no part of the URL becomes part of a path."""
    return cache_dir / "urls" / hashlib.sha256(url.encode()).hexdigest()


def download(url: str, cache_dir: Path, offline: bool) -> Path:
    """The cached file of a URL, downloaded if it is not there.

    Raises:
        OfflineError: it is not there and `offline` is set.
        DownloadError: the URL is not acceptable, or the file cannot be obtained whole.
    """
    _check_url(url)
    path = cached_path(url, cache_dir)
    if path.is_file() and read_stamp(path) is not None:
        return path
    if offline:
        raise OfflineError(
            f"{url} is not in the cache {cache_dir} and offline mode is on. "
            "Unset HUBCORE_OFFLINE and HF_HUB_OFFLINE, or copy the cache of a machine that has it."
        )
    from huggingface_hub.utils import httpx

    path.parent.mkdir(parents=True, exist_ok=True)
    last: Exception | None = None
    for attempt in range(_TRIES):
        if attempt:
            time.sleep(min(0.5 * 2**attempt, 30))
        handle, name = tempfile.mkstemp(prefix=".", suffix=".part", dir=path.parent)
        temporary = Path(name)
        try:
            os.close(handle)
            with temporary.open("wb") as file:
                digest = _transfer(httpx, url, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
            write_stamp(path, url, digest)
            return path
        except _TransientError as error:
            last = error
            _log.warning("%s: %s; trying again", url, error)
        except OSError as error:
            raise DownloadError(
                f"{path} cannot be written ({error}). Free some space or set HUBCORE_CACHE elsewhere."
            ) from error
        finally:
            temporary.unlink(missing_ok=True)
    raise DownloadError(f"{url} failed {_TRIES} times, last because {last}. Check the network, or try again later.") from last


class _TransientError(Exception):
    """A failure that may pass."""


def _check_url(url: str) -> None:
    parts = urlsplit(url)
    loopback = parts.hostname in _LOOPBACK
    if parts.scheme not in ("https", "http") or not parts.hostname or parts.username or parts.password:
        raise DownloadError(f"{url!r} is not a plain https:// address. Correct it; credentials do not belong in it.")
    if parts.scheme == "http" and not loopback:
        raise DownloadError(f"{url} is not encrypted. Anyone on the way could change the weights. Use https://.")


def _transfer(httpx: Any, url: str, file: Any) -> str:
    """Streams a URL into `file`; returns the SHA-256."""
    timeout = httpx.Timeout(30.0, connect=10.0)
    try:
        with httpx.Client(timeout=timeout, follow_redirects=False) as client:
            for _ in range(_REDIRECTS + 1):
                with client.stream("GET", url, headers={"Accept-Encoding": "identity"}) as response:
                    if response.status_code in (301, 302, 303, 307, 308):
                        target = urljoin(url, response.headers.get("Location", ""))
                        if urlsplit(url).hostname not in _LOOPBACK and urlsplit(target).hostname in _LOOPBACK:
                            raise DownloadError(f"{url} redirects to this machine ({target}). That is not followed.")
                        _check_url(target)
                        url = target
                        continue
                    return _body(response, url, file)
    except httpx.TransportError as error:
        raise _TransientError(f"{type(error).__name__}: {error}") from error
    raise DownloadError(f"{url} redirects more than {_REDIRECTS} times. Something is wrong there; use another source.")


def _body(response: Any, url: str, file: Any) -> str:
    status = response.status_code
    if status in _RETRIED:
        raise _TransientError(f"the server answered {status}")
    if status != 200:
        raise DownloadError(f"{url} answered {status}. The file is gone, renamed or not public. Check the address.")
    if response.headers.get("Content-Encoding", "identity") not in ("identity", ""):
        raise DownloadError(f"{url} sends its file compressed, which was not asked for. Use another source.")
    length = response.headers.get("Content-Length", "")
    total = int(length) if length.isdigit() else None
    if total is not None and total > shutil.disk_usage(Path(file.name).parent).free:
        raise DownloadError(f"{url} has {total} bytes, more than are free. Free some space or set HUBCORE_CACHE elsewhere.")
    digest, received, head = hashlib.sha256(), 0, b""
    with tqdm(total=total, unit="B", unit_scale=True, desc=url.rsplit("/", 1)[-1][:40], disable=not sys.stderr.isatty()) as bar:
        for block in response.iter_raw(1 << 20):
            if received < 64:
                head = (head + block)[:64]
            file.write(block)
            digest.update(block)
            received += len(block)
            bar.update(len(block))
    if total is not None and received != total:
        raise _TransientError(f"{received} of {total} bytes came")
    for start, kind in _PAGES:
        if head.lstrip().lower().startswith(start):
            raise DownloadError(
                f"{url} gave {kind}, not a checkpoint. Nothing was kept. Use the address of the file itself "
                "(Dropbox: dl=1; git-lfs: the media address)."
            )
    if not received:
        raise DownloadError(f"{url} gave an empty file. Nothing was kept. Use another source.")
    return digest.hexdigest()
