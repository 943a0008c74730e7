"""What a run says about itself: `recipe.yaml`, resolved and with versions, and `card.yaml`, a registry record of the result."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml

from hubcore.checkpoints.runs import CARD, MODEL
from hubcore.errors import CheckpointError, OptionError
from hubcore.pretrain.recipe import Recipe, read_yaml
from hubcore.text import printable
from hubcore.version import VERSION

RECIPE = "recipe.yaml"
_HARMLESS = re.compile(
    r"name|run\.(?!seed)\w+|monitor\.\w+|data\.(workers|train|valid|max_unreadable)|optimization\.(max_updates|accumulate)"
)
"""Keys that may change where a run resumes; the files in the training manifests are compared with the checkpoint's."""


def write_text(path: Path, text: str) -> None:
    """Writes a file, whole or not at all.

    Raises:
        CheckpointError: it cannot be written.
    """
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with open(part, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise CheckpointError(f"{printable(path)} could not be written ({error}). Make room or mend the disk.") from error


def write_recipe(run: Path, recipe: Recipe) -> None:
    """Writes the resolved recipe of a run and what it runs with."""
    text = yaml.safe_dump(
        {**recipe.plain(), "made_with": versions(recipe)}, sort_keys=False, default_flow_style=None, width=120
    )
    write_text(run / RECIPE, text)


def versions(recipe: Recipe) -> dict[str, Any]:
    """The software of a run, and the revision of the code and of the data where they are in git.

    Example:
        >>> from hubcore.pretrain.recipe import Recipe
        >>> versions(Recipe())["hubcore"] == VERSION
        True
    """
    try:
        accelerate = importlib.metadata.version("accelerate")
    except importlib.metadata.PackageNotFoundError:
        accelerate = None
    return {
        "hubcore": VERSION,
        "torch": str(torch.__version__),
        "python": platform.python_version(),
        "accelerate": accelerate,
        "code_revision": git_revision(Path(__file__).parent),
        "data_revision": git_revision(Path(recipe.data.train[0]).parent) if recipe.data.train else None,
    }


def git_revision(place: Path) -> str | None:
    """The commit that the git checkout around a folder is at; None where there is none.

    Example:
        >>> git_revision(Path("/")) is None
        True
    """
    for folder in (place.resolve(), *place.resolve().parents):
        git = folder / ".git"
        try:
            if git.is_file():  # a worktree
                git = (folder / git.read_text().partition("gitdir:")[2].strip()).resolve()
            if git.is_dir():
                return _head(git)
        except (OSError, UnicodeDecodeError):
            return None
    return None


def _head(git: Path) -> str | None:
    head = (git / "HEAD").read_text().strip()
    if not head.startswith("ref: "):
        return head or None
    name = head.removeprefix("ref: ")
    common = git / "commondir"
    roots = [git, (git / common.read_text().strip()).resolve()] if common.is_file() else [git]
    for root in roots:
        if (root / name).is_file():
            return (root / name).read_text().strip()
        packed = root / "packed-refs"
        for line in packed.read_text().splitlines() if packed.is_file() else ():
            revision, _, ref = line.partition(" ")
            if ref == name:
                return revision
    return None


def check_same_recipe(run: Path, recipe: Recipe) -> list[str]:
    """Compares a run's recipe with the one it is to go on with: the harmless differences, in words.

    Raises:
        OptionError: they differ in what decides the result.
    """
    old = {key: value for key, value in read_yaml(run / RECIPE).items() if key != "made_with"}
    before, now = _flat(old), _flat(recipe.plain())
    changed = {
        key: f"{key} was {before.get(key, 'not set')!r} and is {now.get(key, 'not set')!r}"
        for key in {**before, **now}
        if before.get(key) != now.get(key)
    }
    wrong = [text for key, text in changed.items() if not _HARMLESS.fullmatch(key)]
    if wrong:
        raise OptionError(
            f"{printable(run)} holds a run of another recipe: {'; '.join(wrong)}. A run goes on with the recipe it began with; "
            "only max_updates, accumulate, run.* but the seed, monitor.*, where the same data are, and what is validated may "
            "change. Choose another --out, perhaps with --init from this run."
        )
    return [text for key, text in changed.items() if key != "name"]


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            found.update(_flat(value, f"{prefix}{key}."))
        else:
            found[f"{prefix}{key}"] = value
    return found


def write_card(
    run: Path,
    recipe: Recipe,
    checkpoint: Path,
    state: Mapping[str, Any],
    *,
    upstream: str,
    config: str | None,
    corpus_hours: float,
    init: str,
) -> None:
    """Writes the registry record of a run's newest checkpoint.

    Args:
        run: the run's folder.
        recipe: its recipe.
        checkpoint: the checkpoint's folder.
        state: its state.
        upstream: name of the family that loads the result.
        config: the named config that the encoder has, if it has one.
        corpus_hours: hours of audio in the training manifests.
        init: what the run started from; empty for fresh weights.
    """
    about = state["files"][MODEL]
    made = versions(recipe)
    revision = f", git {made['code_revision'][:12]}" if made["code_revision"] else ""
    data = f", data at git {made['data_revision'][:12]}" if made["data_revision"] else ""
    names = ", ".join(Path(name).name for name in recipe.data.train)
    record: dict[str, Any] = {
        "upstream": upstream,
        **({"config": config} if config else {}),
        "sources": [
            {
                "uri": f"checkpoints/{checkpoint.name}/{MODEL}",
                "sha256": str(about["sha256"]),
                "size": int(about["size"]),
            }
        ],
        "license": recipe.run.license,
        "training_data": f"{names}, {corpus_hours:.2f} h",
        "note": (
            f"{state['update']} updates ({state['samples'] / state['sample_rate'] / 3600:.2f} h of audio seen) of the recipe "
            f"{recipe.name}, seed {recipe.run.seed}, from {f'the weights of {init}' if init else 'fresh weights'}; hubcore "
            f"{made['hubcore']}{revision}{data}, torch {made['torch']}"
        ),
    }
    card = {"version": 1, "upstreams": {_card_name(run): record}}
    write_text(run / CARD, yaml.safe_dump(card, sort_keys=False, width=120))


def has_card_of(run: Path, state: Mapping[str, Any]) -> bool:
    """Whether a run's card is that of the checkpoint with this state.

    Example:
        >>> has_card_of(Path("/nowhere"), {"files": {MODEL: {"sha256": "0" * 64}}})
        False
    """
    try:
        return str(state["files"][MODEL]["sha256"]) in (run / CARD).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False


def _card_name(run: Path) -> str:
    """A run's folder as a name that a registry takes."""
    name = re.sub(r"[^a-z0-9_.-]+", "_", run.resolve().name.lower()).lstrip("_.-")[:64]
    return name or "run"
