"""The built-in implementations of the hook `hubcore_fetch`: `https://`, `hf://`, `package://`. Imports no torch."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

from hubcore.checkpoints.download import download
from hubcore.errors import DownloadError, OfflineError
from hubcore.hooks import hookimpl

_HF = re.compile(r"hf://(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w.-]+(?:/[\w.-]+)*?))?(?:/(?P<file>[\w.-]+(?:/[\w.-]+)*))?")
_PACKAGE = re.compile(r"package://(?P<package>[A-Za-z_]\w*)/(?P<file>[\w.-]+(?:/[\w.-]+)*)")
_HF_CONFIGS = ("config.json", "preprocessor_config.json")
_HF_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")


@hookimpl
def hubcore_fetch(uri: str, cache_dir: Path, offline: bool) -> Path | None:
    """The local file of a URI of one of the built-in schemes."""
    if uri.startswith("package://"):
        return _package(uri)
    if uri.startswith("hf://"):
        return _hugging_face(uri, offline)
    if uri.startswith(("https://", "http://")):
        return download(uri, cache_dir, offline)
    return None


def _package(uri: str) -> Path:
    """A file that an installed package carries, found without importing it."""
    match = _PACKAGE.fullmatch(uri)
    if not match or ".." in match["file"].split("/"):
        raise DownloadError(f"{uri!r} is not of the form package://package/file. Correct it.")
    spec = importlib.util.find_spec(match["package"])
    for root in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(root, match["file"])
        if path.is_file():
            return path
    raise DownloadError(f"{uri} is not there. The package {match['package']} is missing or incomplete: install it again.")


def _hugging_face(uri: str, offline: bool) -> Path:
    """A file of a repository on the Hugging Face Hub, or the folder of a whole model, through huggingface_hub's own cache."""
    match = _HF.fullmatch(uri)
    parts = [*(match["file"] or "").split("/"), *(match["revision"] or "").split("/")] if match else [".."]
    if not match or ".." in parts or "." in parts:
        raise DownloadError(f"{uri!r} is not of the form hf://org/repo[@revision][/file]. Correct it.")
    repo, revision = match["repo"], match["revision"]
    if match["file"]:
        return _hf_file(repo, match["file"], revision, offline)
    config = _hf_file(repo, "config.json", revision, offline)
    for name in _HF_CONFIGS[1:]:
        _hf_optional(repo, name, revision, offline)
    for name in _HF_WEIGHTS:
        weights = _hf_optional(repo, name, revision, offline)
        if weights is None:
            continue
        if name.endswith(".index.json"):
            import json

            for shard in sorted(set(json.loads(weights.read_text())["weight_map"].values())):
                _hf_file(repo, shard, revision, offline)
        return config.parent
    raise DownloadError(
        f"{uri} has none of {', '.join(_HF_WEIGHTS)}. A repository without a file name must hold a model of transformers. "
        "Name the file: hf://org/repo/file."
    )


def _hf_optional(repo: str, name: str, revision: str | None, offline: bool) -> Path | None:
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    try:
        return _hf_file(repo, name, revision, offline)
    except DownloadError as error:
        cause = error.__cause__
        absent = isinstance(cause, EntryNotFoundError) and not isinstance(cause, LocalEntryNotFoundError)
        if absent or isinstance(error, OfflineError):
            return None
        raise


def _hf_file(repo: str, name: str, revision: str | None, offline: bool) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError, RepositoryNotFoundError

    where = f"hf://{repo}{'@' + revision if revision else ''}/{name}"
    try:
        return Path(hf_hub_download(repo, name, revision=revision, local_files_only=offline))
    except GatedRepoError as error:
        raise DownloadError(
            f"{where} is gated. Its owner wants every user to accept the terms. Accept them at https://huggingface.co/{repo}, "
            "then log in with `hf auth login`."
        ) from error
    except RepositoryNotFoundError as error:
        raise DownloadError(
            f"{where}: there is no such repository, or it is private. Check the name, or `hf auth login`."
        ) from error
    except LocalEntryNotFoundError as error:
        if offline:
            raise OfflineError(
                f"{where} is not in the cache and offline mode is on. Unset HUBCORE_OFFLINE and HF_HUB_OFFLINE."
            ) from error
        raise DownloadError(
            f"{where} is not in the cache and the Hub cannot be reached ({error}). Check the network."
        ) from error
    except (OSError, ValueError, RuntimeError) as error:
        raise DownloadError(
            f"{where} cannot be fetched: {type(error).__name__}: {error}. Check the name and the network."
        ) from error
