"""The built-in implementations of the hook `hubcore_fetch`: `https://`, `hf://`, `package://`. Imports no torch."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

from hubcore.errors import DownloadError, OfflineError
from hubcore.hookspecs import hookimpl
from hubcore.sources.expectations import Expectation, expected

_PACKAGE = re.compile(r"package://(?P<package>[A-Za-z_]\w*)/(?P<file>[\w.-]+(?:/[\w.-]+)*)")
_HF_OPTIONAL = ("preprocessor_config.json",)
_HF_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
_SHARD = re.compile(r"[\w.-]+\.(?:safetensors|bin)", re.ASCII)


@hookimpl
def hubcore_fetch(uri: str, cache_dir: Path, offline: bool) -> Path | None:
    """The local file of a URI of one of the built-in schemes."""
    if uri.startswith("package://"):
        return _package(uri)
    if uri.startswith("hf://"):
        return _hugging_face(uri, offline)
    if uri.startswith(("https://", "http://")):
        from hubcore.sources.https.download import download

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
    from hubcore.sources.hub.hugging_face import AbsentFileError, HubFile, hub_file, parse_hub_uri

    model = parse_hub_uri(uri)
    if model.name:
        return hub_file(model, expected(uri), offline)

    def part(name: str) -> Path:
        return hub_file(HubFile(model.repo, model.revision, name), Expectation(uri, name=expected(uri).name), offline)

    def optional(name: str) -> Path | None:
        try:
            return part(name)
        except (AbsentFileError, OfflineError):
            return None

    config = part("config.json")
    for name in _HF_OPTIONAL:
        optional(name)
    for name in _HF_WEIGHTS:
        weights = optional(name)
        if weights is None:
            continue
        if name.endswith(".index.json"):
            for shard in _shards(weights):
                part(shard)
        return config.parent
    kind = OfflineError if offline else DownloadError
    raise kind(
        f"{uri} has none of {', '.join(_HF_WEIGHTS)}{' in the cache' if offline else ''}. A repository without a file name "
        "must hold a model of transformers. Name the file: hf://org/repo/file."
    )


def _shards(index: Path) -> list[str]:
    """The files that an index of shards names, all beside it."""
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DownloadError(f"{index} is not an index of shards ({error}). The repository is damaged. Use another.") from error
    for name in names:
        if not isinstance(name, str) or not _SHARD.fullmatch(name):
            raise DownloadError(f"{index} names the shard {name!r}, which is no file beside it. Do not use that repository.")
    return names
