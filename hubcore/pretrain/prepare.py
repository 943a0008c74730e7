"""`prepare`: everything a run needs before its first update, from a recipe: classes, configs, data, guidance."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from hubcore.errors import OptionError, PluginError, UnknownUpstreamError
from hubcore.fields import build
from hubcore.loading import import_class
from hubcore.pretrain.data import BatchReader, Corpus, Cropping, Epochs, check_excluded, check_guidance, read_corpus
from hubcore.pretrain.objective import Objective
from hubcore.pretrain.objectives import find_objective
from hubcore.pretrain.recipe import Recipe, plain_values
from hubcore.registry.names import current_registry
from hubcore.text import listed, logger, printable

_log = logger("pretrain")


@dataclass(frozen=True)
class Data:
    """One corpus, ready to be read."""

    corpus: Corpus
    reader: BatchReader
    epochs: Epochs


@dataclass(frozen=True)
class Prepared:
    """A recipe with every name in it looked up."""

    recipe: Recipe
    """With the model's and the objective's options filled in."""
    objective_class: type[Objective]
    upstream_class: str
    """Name of the class that reads the result."""
    model_config: Any
    named_config: str | None
    """The name of the equal config that the class which reads the result has; None where it has none."""
    config: Any
    """The objective's config."""
    sample_rate: int
    train: Data
    valid: Data | None

    def build(self) -> Objective:
        """The objective with fresh weights, which come from the recipe's seed."""
        torch.manual_seed(self.recipe.run.seed)
        return self.objective_class(self.model_config, self.config)


def prepare(recipe: Recipe) -> Prepared:
    """Looks everything up and reads the manifests; no audio, no weights.

    Raises:
        OptionError: something in the recipe is impossible.
        PluginError: the objective's package is broken.
        ExtractionError: a manifest cannot be read.
    """
    recipe, cls, model_config, config = resolve(recipe)
    data, named = recipe.data, recipe.model["config"]
    if not data.train:
        raise OptionError(
            f"{recipe.source('data.train')}: data.train is empty. It names the manifests to learn from.",
            fix="Make one with `hubcore manifest`, and add data.train=train.tsv.",
        )
    needed = int(getattr(model_config, "receptive_field", 1))
    if min(data.min_samples, data.max_samples or data.min_samples) < needed:
        raise OptionError(
            f"{recipe.source('data.min_samples')}: data.min_samples is {data.min_samples}. The first frame of this model needs "
            f"{needed} samples. Raise it, to at least that."
        )
    rate, stride = int(getattr(model_config, "sample_rate", 16000)), int(getattr(model_config, "frame_stride", 1))
    # The guidance is opened once: training and validation share it.
    guidance = _guidance(recipe, cls, model_config, config)
    cropping = Cropping(data.max_samples, stride, to_shortest=cls.crops_to_shortest(config))

    def read(manifests: tuple[str, ...]) -> Data:
        corpus = read_corpus(manifests, data.min_samples, data.max_samples, data.max_samples_per_batch)
        check_guidance(corpus.utterances, guidance, cls.guided_by)
        lengths = [min(item.samples, data.max_samples or item.samples) for item in corpus.utterances]
        epochs = Epochs(lengths, seed=recipe.run.seed, max_samples_per_batch=data.max_samples_per_batch)
        reader = BatchReader(
            corpus.utterances, rate, cropping, guidance=guidance, seed=recipe.run.seed, exclude=frozenset(data.exclude)
        )
        return Data(corpus, reader, epochs)

    train, valid = read(data.train), read(data.valid) if data.valid else None
    check_excluded(data.exclude, train.corpus, *([valid.corpus] if valid else []))
    if train.corpus.too_short:
        names = [printable(item.key) for item in train.corpus.too_short]
        what = "%d utterances have fewer than %d samples (data.min_samples) and are left out: %s"
        _log.warning(what, len(names), data.min_samples, listed(names))
    upstream = _upstream_class(cls)
    return Prepared(
        recipe,
        cls,
        upstream.__name__,
        model_config,
        named if getattr(upstream, "configs", {}).get(named) == model_config else None,
        config,
        rate,
        train,
        valid,
    )


def _guidance(recipe: Recipe, cls: type[Objective], model_config: Any, config: Any) -> Mapping[str, Any] | None:
    """The supervision that an objective takes, opened.

    Raises:
        OptionError: it is missing, or given to an objective that takes none or another.
    """
    for other in ("segments", "units"):
        if other != cls.guided_by and getattr(recipe.data, other):
            learns = f"learns from {cls.guided_by or 'audio alone'}"
            raise OptionError(
                f"{recipe.source(f'data.{other}')}: data.{other} is set, but {cls.upstream} {learns}.",
                fix=f"Leave data.{other} out, or choose an upstream that learns from {other}.",
            )
    if not cls.guided_by:
        return None
    paths = getattr(recipe.data, cls.guided_by)
    if not paths and cls.needs_guidance(config):
        fix = {
            "segments": "Make them with `hubcore segment`, and add data.segments=segments; or set the weights of their losses "
            "to 0.",
            "units": "Make them with `hubcore units apply`, and add data.units=units.npz.",
        }[cls.guided_by]
        key = f"data.{cls.guided_by}"
        raise OptionError(f"{recipe.source(key)}: {key} is empty, but {cls.upstream} learns from {cls.guided_by}.", fix=fix)
    return cls.open_guidance([Path(path) for path in paths], model_config, config)


def resolve(recipe: Recipe) -> tuple[Recipe, type[Objective], Any, Any]:
    """The recipe with all options of model and objective filled in, the objective's class, and the configs of both.

    Raises:
        OptionError: an option is unknown or impossible.
        PluginError: the objective's package is broken.
    """
    cls = find_objective(recipe.upstream)
    values = dict(recipe.model)
    name = values.pop("config", None)
    if name not in cls.model_configs:
        raise OptionError(
            f"{recipe.source('model.config')}: model.config is {name!r}. It must be one of {', '.join(cls.model_configs)}; "
            "other fields of model change it."
        )
    named = cls.model_configs[name]
    model_config = build(type(named), values, prefix="model", where=recipe.source, start=named)
    config = build(cls.config_class, recipe.objective, prefix="objective", where=recipe.source)
    model_config = cls.fit_model_config(model_config, config)
    model = {"config": name, **plain_values(model_config)}
    return dataclasses.replace(recipe, model=model, objective=plain_values(config)), cls, model_config, config


def _upstream_class(cls: type[Objective]) -> type[Any]:
    """The class that loads the model that an objective trains."""
    what = f"{cls.__module__}.{cls.__name__} trains {cls.upstream!r}"
    try:
        family = current_registry().find(cls.upstream).family
    except UnknownUpstreamError as error:
        raise PluginError(f"{what}, but {error}") from error
    if family is None:
        raise PluginError(f"{what}, which no installed class loads.")
    return import_class(family)
