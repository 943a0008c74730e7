"""A whole model of transformers: its configs, its weights in one file or in shards. Imports no torch."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from hubcore.errors import DownloadError, OfflineError
from hubcore.files import parse_json, read_small
from hubcore.hookspecs import Expectation
from hubcore.sources.hub.hugging_face import LONGEST_NAME, AbsentFileError, HubFile, hub_file

_OPTIONAL = ("preprocessor_config.json",)
WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
"""Files that hold the weights of a whole model, or list them, in the order of preference."""
_MOST_SHARDS = 1000
"""Each is asked for, so an index of many names would not end."""
_SHARD = re.compile(r"[\w.-]+\.(?:safetensors|bin)", re.ASCII)


def hub_model(model: HubFile, expected: Expectation, offline: bool) -> Path:
    """The folder of a whole model, fetched file by file if need be.

    Raises:
        DownloadError: it cannot be obtained, or is no model of transformers.
    """

    def part(name: str) -> Path:
        return hub_file(dataclasses.replace(model, name=name), Expectation(name=expected.name), offline)

    def optional(name: str) -> Path | None:
        try:
            return part(name)
        except (AbsentFileError, OfflineError):
            return None

    config = part("config.json")
    for name in _OPTIONAL:
        optional(name)
    for name in WEIGHTS:
        weights = optional(name)
        if weights is not None:
            for shard in _shards(weights) if name.endswith(".index.json") else ():
                part(shard)
            return config.parent
    raise (OfflineError if offline else DownloadError)(
        f"{model} has none of {', '.join(WEIGHTS)}{' in the cache' if offline else ''}. An address without a file name must "
        "be a model of transformers.",
        "Name the file: hf://org/repo/file.",
    )


def _shards(index: Path) -> list[str]:
    """The files that an index of shards names, all beside it."""
    try:
        names = sorted(set(parse_json(read_small(index, 16 << 20))["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DownloadError(f"{index} is not an index of shards ({error}).", "Use another repository.") from error
    if len(names) > _MOST_SHARDS:
        raise DownloadError(f"{index} names {len(names)} shards. At most {_MOST_SHARDS} are fetched.", "Name a file of it.")
    for name in names:
        if not isinstance(name, str) or not _SHARD.fullmatch(name) or len(name) > LONGEST_NAME:
            raise DownloadError(
                f"{index} names the shard {str(name)[:200]!r}, which is not a file beside it.", "Do not use that repository."
            )
    return names
