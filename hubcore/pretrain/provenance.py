"""The record of a run: `recipe.yaml`, resolved and with versions, and `card.yaml`, a registry record of the result."""

from __future__ import annotations

import functools
import importlib.metadata
import platform
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml

from hubcore.checkpoints.runs import CARD, MODEL
from hubcore.errors import OptionError
from hubcore.files import write_whole
from hubcore.pretrain.prepare import Prepared, resolve
from hubcore.pretrain.recipe import Recipe, read_recipe
from hubcore.text import plural, printable
from hubcore.version import VERSION

RECIPE = "recipe.yaml"
_HARMLESS = re.compile(
    r"name|run\.(?!seed)\w+|monitor\.\w+|data\.(workers|train|valid|exclude|max_unreadable)|optimization\.(max_updates|accumulate)"
)
"""Keys that may change where a run resumes; the files in the training manifests are compared with the checkpoint's."""


def write_recipe(run: Path, recipe: Recipe, *, init: str) -> None:
    """Writes the resolved recipe of a run and what it runs with; `init` is empty for fresh weights."""
    made_with = {**versions(recipe), "init": init}
    text = yaml.safe_dump({**recipe.plain(), "made_with": made_with}, sort_keys=False, default_flow_style=None, width=120)
    with write_whole(run / RECIPE) as temporary:
        temporary.write_text(text, encoding="utf-8")


def started_from(run: Path) -> str | None:
    """The weights that a run without a checkpoint yet was begun with, empty for fresh ones; None if it has not begun."""
    if not (run / RECIPE).is_file():
        return None
    init = read_recipe(str((run / RECIPE).absolute())).made_with.get("init")
    return init if isinstance(init, str) else None


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


@functools.cache
def git_revision(place: Path) -> str | None:
    """The commit that the git checkout around a folder is at; None where there is none, or no git.

    Example:
        >>> git_revision(Path("/")) is None
        True
    """
    git = shutil.which("git")
    if git is None:
        return None
    command = [git, "-C", str(place), "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)  # noqa: S603 - no shell
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def check_same_recipe(run: Path, recipe: Recipe) -> list[str]:
    """Compares a run's recipe with the one it is to resume with: the harmless differences, in words.

    Raises:
        OptionError: they differ in what decides the result.
    """
    # Options that came with a later version of hubcore have their defaults in the old recipe too.
    old, *_ = resolve(read_recipe(str((run / RECIPE).absolute())))
    before, now = _flat(old.plain()), _flat(recipe.plain())
    changed = {
        key: f"{key} was {before.get(key, 'not set')!r} and is {now.get(key, 'not set')!r}"
        for key in {**before, **now}
        if before.get(key) != now.get(key)
    }
    wrong = [text for key, text in changed.items() if not _HARMLESS.fullmatch(key)]
    if wrong:
        raise OptionError(
            f"{printable(run)} holds a run of another recipe: {'; '.join(wrong)}. When you resume, you may change only "
            "settings that do not affect the updates already done: max_updates, accumulate, run.* but the seed, monitor.*, "
            "where the same data are, data.exclude, and what is validated.",
            fix="Choose another --out, perhaps with --init from this run.",
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


def write_card(run: Path, prepared: Prepared, checkpoint: Path, state: Mapping[str, Any], *, init: str) -> None:
    """Writes the registry record of a run's newest checkpoint, whose state is `state`; `init` is empty for fresh weights."""
    recipe, about, hour = prepared.recipe, state["files"][MODEL], 3600 * prepared.sample_rate
    made = versions(recipe)
    revision = f", git {made['code_revision'][:12]}" if made["code_revision"] else ""
    data = f", data at git {made['data_revision'][:12]}" if made["data_revision"] else ""
    names = ", ".join(Path(name).name for name in recipe.data.train)
    uri = f"checkpoints/{checkpoint.name}/{MODEL}"
    record: dict[str, Any] = {
        "upstream": prepared.objective_class.upstream,
        **({"config": prepared.named_config} if prepared.named_config else {}),
        "sources": [{"uri": uri, "sha256": str(about["sha256"]), "size": int(about["size"])}],
        "license": recipe.run.license,
        "training_data": f"{names}, {prepared.train.corpus.samples / hour:.2f} h",
        "note": (
            f"{plural(state['update'], 'update')} ({state['samples'] / hour:.2f} h of audio seen) of the recipe {recipe.name}, "
            f"seed {recipe.run.seed}, from {f'the weights of {init}' if init else 'fresh weights'}; hubcore "
            f"{made['hubcore']}{revision}{data}, torch {made['torch']}"
        ),
    }
    name = re.sub(r"[^a-z0-9_.-]+", "_", run.resolve().name.lower()).lstrip("_.-")[:64]  # as a registry takes it
    card = {"version": 1, "upstreams": {name or "run": record}}
    with write_whole(run / CARD) as temporary:
        temporary.write_text(yaml.safe_dump(card, sort_keys=False, width=120), encoding="utf-8")


def has_card_of(run: Path, state: Mapping[str, Any]) -> bool:
    """True if a run's card is that of the checkpoint with this state.

    Example:
        >>> has_card_of(Path("/nowhere"), {"files": {MODEL: {"sha256": "0" * 64}}})
        False
    """
    try:
        return str(state["files"][MODEL]["sha256"]) in (run / CARD).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False
