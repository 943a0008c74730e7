"""A recipe: everything that decides a pre-training run, from a YAML file and overrides such as `optimization.lr=1e-4`.

Relative paths are taken from the working folder and made absolute. Imports no torch.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from hubcore.errors import OptionError, nearest_hint
from hubcore.fields import Above, AtLeast, Between, Probability, Where, build, unknown_key
from hubcore.files import read_small
from hubcore.strict_yaml import StrictYamlError, parse_yaml
from hubcore.text import printable

Positive = Annotated[int, AtLeast(1)]
Count = Annotated[int, AtLeast(0)]
NotNegative = Annotated[float, AtLeast(0)]
Seed = Annotated[int, Between(0, 2**63, "[)")]
_LARGEST = 1 << 20
"""Bytes of a recipe, at most."""
RECIPES = Path(__file__).parent / "recipes"
"""The shipped recipes."""


@dataclass(frozen=True)
class DataSection:
    """The audio, and how it is cut into batches."""

    train: tuple[str, ...] = ()
    """Manifests (root on line 1, then `relpath TAB samples`). fairseq: `task.data`, `dataset.train_subset`."""
    valid: tuple[str, ...] = ()
    """Manifests to validate on; none if empty. fairseq: `dataset.valid_subset`."""
    segments: Annotated[tuple[str, ...], Between(0, 2)] = ()
    """Supervision for an objective that learns from segments: a path, or the original's two roots, alphas first."""
    units: tuple[str, ...] = ()
    """Files of units for an objective that predicts them. fairseq: `task.label_dir`, `task.labels`."""
    max_samples_per_batch: Positive = 1_400_000
    """Samples in one micro-batch, at most. fairseq: `dataset.max_tokens`."""
    min_samples: Positive = 32_000
    """Utterances below this are left out. fairseq: `task.min_sample_size`."""
    max_samples: int | None = None
    """Longer utterances are cropped to this, at a new place each epoch. fairseq: `task.max_sample_size`."""
    workers: Count = 2
    """Threads that read audio ahead; 0 reads when it is needed. fairseq: `dataset.num_workers`."""
    exclude: tuple[str, ...] = ()
    """Utterances that are not learnt from, by their paths below the manifest's root; may change where a run resumes."""
    max_unreadable: Count = 100
    """Files that may turn out unreadable or changed before the run stops."""

    def __post_init__(self) -> None:
        if self.max_samples is not None and self.max_samples < self.min_samples:
            raise OptionError(
                f"max_samples is {self.max_samples}, below min_samples, {self.min_samples}, so that no utterance could be "
                "used. Raise max_samples."
            )


@dataclass(frozen=True)
class OptimizationSection:
    """Optimization: AdamW, linear warm-up, polynomial decay."""

    max_updates: Positive = 100_000
    """Updates of the whole run. fairseq: `optimization.max_update`."""
    lr: NotNegative = 5e-4
    """The learning rate at the end of the warm-up. fairseq: `optimization.lr`."""
    warmup_updates: Count = 0
    """Updates over which it rises from 0. fairseq: `lr_scheduler.warmup_updates`."""
    end_lr: NotNegative = 0.0
    """The learning rate at `max_updates`. fairseq: `lr_scheduler.end_learning_rate`."""
    power: NotNegative = 1.0
    """Of the decay between the two; 1 is a straight line. fairseq: `lr_scheduler.power`."""
    betas: tuple[Probability, Probability] = (0.9, 0.98)
    """Decay of the two moments. fairseq: `optimizer.adam_betas`."""
    eps: Annotated[float, Above(0)] = 1e-6
    """Added to the root of the second moment. fairseq: `optimizer.adam_eps`."""
    eps_form: Literal["torch", "fairseq"] = "torch"
    """"torch" adds it to the corrected moment's root; "fairseq" to the root as it is, where it weighs more at first: divided by
    `sqrt(1 - betas[1]**step)`, seven times as much at the first update."""
    weight_decay: NotNegative = 0.01
    """Each update takes `lr * weight_decay` of every weight away. fairseq: `optimizer.weight_decay`."""
    clip_norm: NotNegative = 0.0
    """Largest norm of the gradient; 0 for no limit. fairseq: `optimization.clip_norm`."""
    accumulate: Positive = 1
    """Micro-batches of an update, for each process. fairseq: `optimization.update_freq`."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Numbers that the forward pass computes with; weights stay in fp32. fairseq: `common.fp16`, `common.bf16`."""

    def learning_rate(self, update: int) -> float:
        """The learning rate after `update` updates: a linear rise, then a polynomial fall. fairseq: `polynomial_decay`.

        (The rise is one update earlier than fairseq's, whose first update has the rate 0 and changes nothing.)

        Example:
            >>> options = OptimizationSection(max_updates=10, lr=1.0, warmup_updates=5)
            >>> [round(options.learning_rate(update), 3) for update in (0, 4, 5, 6, 9)]
            [0.2, 1.0, 1.0, 0.8, 0.2]
        """
        if update < self.warmup_updates:
            return self.lr * (update + 1) / self.warmup_updates
        if update >= self.max_updates:
            return self.end_lr
        left = 1 - (update - self.warmup_updates) / (self.max_updates - self.warmup_updates)
        return float((self.lr - self.end_lr) * left**self.power + self.end_lr)


@dataclass(frozen=True)
class RunSection:
    """Everything that is kept of a run, and when."""

    seed: Seed = 1
    """All that is random comes from it. fairseq: `common.seed`."""
    save_every: Positive = 1000
    """Updates between two checkpoints; the last update is saved too. fairseq: `checkpoint.save_interval_updates`."""
    keep_last: Positive = 3
    """Newest checkpoints that are kept. fairseq: `checkpoint.keep_interval_updates`."""
    keep_every: Count = 0
    """Those at multiples of it are kept for good; 0 for none. fairseq: `checkpoint.keep_interval_updates_pattern`."""
    validate_every: Count = 1000
    """Updates between two validations; 0 for none. fairseq: `dataset.validate_interval_updates`."""
    log_every: Positive = 100
    """Updates that a row of metrics.jsonl sums up. fairseq: `common.log_interval`."""
    device: Literal["auto", "cpu"] = "auto"
    """`auto` takes a GPU where there is one. fairseq: `common.cpu`."""
    tensorboard: bool = True
    """Write event files, where tensorboard is installed. fairseq: `common.tensorboard_logdir`."""
    license: str = "unknown"
    """The licence of the weights, for the card."""


@dataclass(frozen=True)
class MonitorSection:
    """Limits of a collapse: a figure beyond its limit at `patience` rows in a row, after `grace_updates`."""

    max_skipped: Count = 10
    """Updates that may be skipped because their loss or gradient is NaN or infinite; overflows of fp16 do not count."""

    grace_updates: Count = 2000
    """Updates that may look like anything."""
    patience: Count = 5
    """Rows in a row; 0 turns the watch off, except for `max_skipped`."""
    min_perplexity: float = 0.0
    """Lowest perplexity of the codes that counts as alive, summed over groups; 0 for no limit."""
    min_accuracy: float = 0.0
    """Lowest accuracy of the contrastive task. 0 for no limit."""
    min_lead: float = -1.0
    """Lowest lead of the accuracy over chance, which is measured: the accuracy of each prediction at another frame. Counting
    candidates does not give it, because those equal to the answer are left out. -1 for no limit."""
    max_accuracy: float = 0.9999
    """Highest one: a task that is solved is trivial. 1 for no limit."""


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a run.

    Example:
        >>> read_recipe("tiny", ["data.train=train.tsv", "optimization.max_updates=200"]).optimization.max_updates
        200
    """

    upstream: str = ""
    """Entry-point name of the objective, such as `wav2vec2`. fairseq: `model._name`."""
    model: Mapping[str, Any] = field(default_factory=dict)
    """`config`, a named config of the family, and any field of it to change."""
    objective: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the objective's config: masking, quantiser, loss weights."""
    data: DataSection = field(default_factory=DataSection)
    optimization: OptimizationSection = field(default_factory=OptimizationSection)
    run: RunSection = field(default_factory=RunSection)
    monitor: MonitorSection = field(default_factory=MonitorSection)
    name: str = ""
    """The run's name; the file's name without its ending if it does not say."""
    made_with: Mapping[str, Any] = field(default_factory=dict, compare=False)
    """Versions that a run noted in its recipe.yaml; without effect, so that such a file is a recipe too."""
    source: Where = field(default=lambda _: "the recipe", repr=False, compare=False)
    """Says where a dotted key was set, for messages."""

    def plain(self) -> dict[str, Any]:
        """The recipe as YAML and JSON can hold it."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.compare}
        return {
            "name": self.name,
            **{key: plain_values(value) if dataclasses.is_dataclass(value) else value for key, value in values.items()},
        }


def plain_values(record: Any) -> dict[str, Any]:
    """The fields of a dataclass, tuples as lists.

    Example:
        >>> plain_values(DataSection())["train"]
        []
    """
    plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(record)))
    return plain


def shipped_recipes() -> list[str]:
    """Names of the recipes that come with hubcore.

    Example:
        >>> "tiny" in shipped_recipes()
        True
    """
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def read_recipe(source: str, overrides: Iterable[str] = ()) -> Recipe:
    """The recipe of a YAML file or of a shipped one by its bare name, with overrides `key.sub=value` applied.

    Raises:
        OptionError: no such file or name, not YAML, an unknown key, a value of the wrong type or out of range.
    """
    path = _find(source)
    values = read_yaml(path)
    set_by: dict[str, str] = {}
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not re.fullmatch(r"[A-Za-z_][\w.]*", key):
            raise OptionError(f"{override!r} is not an override. Write key.sub=value, as in optimization.lr=1e-4.")
        _set(values, key, _yaml(text, f"the value of {override!r}"), override)
        set_by[key] = override

    def where(key: str) -> str:
        return next((f"override {given!r}" for name, given in set_by.items() if f"{name}.".startswith(f"{key}.")), str(path))

    if "source" in values:  # a field, but no key
        raise unknown_key("source", [field.name for field in dataclasses.fields(Recipe)][:-1], "", where("source"))
    recipe = build(Recipe, {"name": path.stem, **values}, prefix="", where=where)
    if not recipe.upstream:
        raise OptionError(f"{path}: upstream is missing. It names the objective, such as wav2vec2. Add the line.")
    data = recipe.data
    absolute: dict[str, Any] = {
        name: tuple(str(Path(os.path.expanduser(each)).absolute()) for each in getattr(data, name))
        for name in ("train", "valid", "segments", "units")
    }
    return dataclasses.replace(recipe, data=dataclasses.replace(data, **absolute), source=where)


def _find(source: str) -> Path:
    path = Path(os.path.expanduser(source))
    if re.fullmatch(r"[A-Za-z0-9_]+", source) and not path.is_file():
        shipped = RECIPES / f"{source}.yaml"
        if shipped.is_file():
            return shipped
        hint = nearest_hint(source, shipped_recipes())
        raise OptionError(f"no recipe is called {source!r}. {hint} Name one of these, or a YAML file.")
    if not path.is_file():
        names = ", ".join(shipped_recipes())
        raise OptionError(f"{printable(path)} is not a file. A recipe is a YAML file, or one of {names}. Check the spelling.")
    return path


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises:
        OptionError: it cannot be read, or is something else.
    """
    try:
        text = read_small(path, _LARGEST).decode("utf-8-sig")
    except (OSError, ValueError) as error:
        raise OptionError(f"{printable(path)} cannot be read ({error}). A recipe is a UTF-8 text file. Correct it.") from error
    values = _yaml(text, printable(path))
    if not isinstance(values, dict):
        raise OptionError(f"{printable(path)} holds {values!r:.40}. A recipe is keys with values. Begin with `upstream: ...`.")
    return values


def _yaml(text: str, what: str) -> Any:
    try:
        return parse_yaml(text)
    except StrictYamlError as error:
        raise OptionError(f"{what}: {error}") from error


def _set(values: dict[str, Any], key: str, value: Any, override: str) -> None:
    """Sets a dotted key; the sections on the way are made if need be."""
    *sections, last = key.split(".")
    place = values
    for section in sections:
        inner = place.setdefault(section, {})
        if inner is None:
            inner = place[section] = {}
        if not isinstance(inner, dict):
            raise OptionError(f"override {override!r}: {section} is no section. It holds {inner!r:.40}. Correct the key.")
        place = inner
    place[last] = value
