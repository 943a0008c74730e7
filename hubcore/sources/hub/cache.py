"""huggingface_hub's cache on the disk: finding, checking and removing its files without its code. Imports no torch.

```text
models--org--repo/
    refs/<revision>                 the commit that a branch or tag was at
    snapshots/<commit>/<file>       a link to a blob
    blobs/<sha256 or git sha1>      the bytes
```
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import time
from pathlib import Path

from hubcore.errors import DownloadError
from hubcore.files import write_whole
from hubcore.sources.folders import cache_dir, read_only_caches
from hubcore.sources.stamps import file_sha256, hash_file

COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_ORPHAN_AGE = 24 * 3600.0


def hf_cache_dir() -> Path:
    """The cache that huggingface_hub uses, from the variables it documents, read at each call."""
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if os.environ.get(name):
            return Path(os.path.expanduser(os.path.expandvars(os.environ[name])))
    if os.environ.get("HF_HOME"):
        return Path(os.path.expanduser(os.path.expandvars(os.environ["HF_HOME"])), "hub")
    base = os.environ.get("XDG_CACHE_HOME")
    return Path(os.path.expanduser(base or "~/.cache"), "huggingface", "hub")


def hf_caches() -> tuple[Path, ...]:
    """Every folder of that layout which is looked into: the user's own, and `hub/` in hubcore's cache and its layers."""
    return (hf_cache_dir(), *(folder / "hub" for folder in (cache_dir(), *read_only_caches())))


def repo_folder(repo: str, cache: Path) -> Path:
    """The folder of a model repository."""
    return cache / f"models--{repo.replace('/', '--')}"


def commit_of(repo: str, revision: str, cache: Path) -> str | None:
    """The commit that a cached revision stands for, or None if it is not cached."""
    if COMMIT.fullmatch(revision):
        return revision
    try:
        commit = (repo_folder(repo, cache) / "refs" / revision).read_text().strip()
    except (OSError, UnicodeDecodeError):
        return None
    return commit if COMMIT.fullmatch(commit) else None


def snapshots_of(repo: str, name: str, revision: str, cache: Path) -> list[Path]:
    """The cached copies of a file: that of the revision if it is known, then those of other commits."""
    folder = repo_folder(repo, cache) / "snapshots"
    commit = commit_of(repo, revision, cache)
    first = [folder / commit / name] if commit else []
    others = sorted(folder.iterdir()) if folder.is_dir() else []
    paths = [*first, *(other / name for other in others if other.name != commit)]
    return [path for path in paths if path.is_file()]


def snapshot(repo: str, name: str, revision: str, cache: Path) -> Path | None:
    """The cached copy of a file at exactly this revision."""
    commit = commit_of(repo, revision, cache)
    path = repo_folder(repo, cache) / "snapshots" / commit / name if commit else None
    return path if path is not None and path.is_file() else None


def why_wrong(path: Path, sha256: str | None, etag: str | None = None, *, every_byte: bool = False) -> str | None:
    """The fault of a cached file; None if its bytes are those that its name, or the card, promises.

    That is `sha256` if given, else what the hub told: the blob's own name, or `etag`. With `every_byte`, the file is read
    even if its stamp says that it has not changed.
    """
    digest = hash_file(path) if every_byte else file_sha256(path)
    if sha256 is not None:
        return None if digest == sha256 else f"it has SHA-256 {digest}, but must have {sha256}"
    link = blob_of(path)
    blob = link.name if link is not None else etag or ""
    if _SHA256.fullmatch(blob) and digest != blob:
        return f"it has SHA-256 {digest}, but the hub says {blob}"
    if COMMIT.fullmatch(blob) and git_sha1(path) != blob:
        return f"its git hash is {git_sha1(path)}, but the hub says {blob}"
    return None


def blob_of(path: Path) -> Path | None:
    """The blob that a snapshot's file links to, under the hash that the hub told; None where links are not used.

    A blob may be a link itself, into a store that repositories share, where names are hashes of another kind.
    """
    if not path.is_symlink():
        return None
    blob = Path(os.path.normpath(path.parent.resolve() / path.readlink()))
    return blob if blob.parent.name == "blobs" and blob.parent.parent in path.parent.resolve().parents else None


def git_sha1(path: Path) -> str:
    """The hash that git gives a file's content; the hub names files that are not in LFS by it.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "a"
        >>> _ = file.write_bytes(b"")
        >>> git_sha1(file)
        'e69de29bb2d1d6434b8b29ae775ad8c2e48c5391'
    """
    return hash_file(path, hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False))


def remove(path: Path) -> None:
    """Removes a snapshot's file, the blob it links to and that one's shared bytes, so that they are never used again.

    Raises:
        OSError: the cache cannot be written.
    """
    blob = blob_of(path)
    path.unlink(missing_ok=True)
    if blob is not None:
        shared = blob.resolve()
        blob.unlink(missing_ok=True)
        if shared != blob and blob.parents[2] in shared.parents:
            shared.unlink(missing_ok=True)


def orphans(cache: Path, older_than: float = _ORPHAN_AGE) -> list[Path]:
    """Partial downloads that a killed process left, untouched for `older_than` seconds; huggingface_hub never uses them."""
    limit = time.time() - older_than
    found = cache.glob("models--*/blobs/*.incomplete") if cache.is_dir() else ()
    return sorted(path for path in found if path.is_file() and not path.is_symlink() and path.stat().st_mtime <= limit)


def copy_snapshot(path: Path, repo: str, revision: str, target: Path) -> Path:
    """Copies a snapshot's file, or a whole snapshot, to another cache of this layout; gives the copy.

    Raises:
        DownloadError: it is in no cache of this layout.
    """
    for cache in hf_caches():
        if repo_folder(repo, cache) / "snapshots" in path.parents:
            for file in [path] if path.is_file() else sorted(item for item in path.rglob("*") if item.is_file()):
                _copy_file(file, repo, revision, cache, target)
            return target / path.relative_to(cache)
    raise DownloadError(f"{path} is in no cache of the hub, so it cannot be copied.", f"Fetch hf://{repo} first.")


def _copy_file(path: Path, repo: str, revision: str, cache: Path, target: Path) -> None:
    """Copies one file with its blob and the revision's ref."""
    folder = repo_folder(repo, target)
    commit, *parts = path.relative_to(repo_folder(repo, cache) / "snapshots").parts
    copy = folder / "snapshots" / commit / Path(*parts)
    blob = blob_of(path)
    place = folder / "blobs" / blob.name if blob is not None else copy
    for made in (copy, place):
        made.parent.mkdir(parents=True, exist_ok=True)
    with write_whole(place) as temporary:
        shutil.copyfile(path, temporary)
    if blob is not None:
        copy.unlink(missing_ok=True)
        copy.symlink_to(os.path.relpath(place, copy.parent))
    if revision != commit:
        reference = folder / "refs" / revision
        reference.parent.mkdir(parents=True, exist_ok=True)
        reference.write_text(commit)
