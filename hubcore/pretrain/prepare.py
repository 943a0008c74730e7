"""`prepare`: everything a run needs before its first update, from a recipe: classes, configs, data, guidance."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from hubcore.errors import OptionError, PluginError, UnknownUpstreamError
from hubcore.fields import build
from hubcore.loading import import_class
from hubcore.pretrain.data import BatchReader, Corpus, Cropping, Epochs, check_guidance, read_corpus
from hubcore.pretrain.objective import Objective
from hubcore.pretrain.objectives import find_objective
from hubcore.pretrain.recipe import Recipe, plain_values
from hubcore.registry.names import current_registry
from hubcore.text import printable

_log = logging.getLogger("hubcore.pretrain")
_SHOWN = 5


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
    """The config of that name that the class which reads the result has too; None where it has none that is equal."""
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
    cls = find_objective(recipe.upstream)
    model_config, named = _model_config(recipe, cls)
    config = build(cls.config_class, recipe.objective, prefix="objective", where=recipe.source)
    if not recipe.data.train:
        raise OptionError(
            f"{recipe.source('data.train')}: data.train is empty. It names the manifests to learn from. Make one with `hubcore "
            "manifest`, and add data.train=train.tsv."
        )
    rate = int(getattr(model_config, "sample_rate", 16000))
    # The guidance is opened once: training and validation share it.
    guidance: Mapping[str, Any] | None = cls.open_guidance([Path(path) for path in recipe.data.segments])
    stride = int(getattr(model_config, "frame_stride", 1))
    cropping = Cropping(recipe.data.max_samples, stride, to_shortest=cls.crops_to_shortest(config))
    resolved = dataclasses.replace(
        recipe,
        model={"config": recipe.model["config"], **plain_values(model_config)},
        objective=plain_values(config),
    )
    field = int(getattr(model_config, "receptive_field", 1))
    train = _data(recipe, recipe.data.train, guidance, cropping, rate, field)
    _report_short(train.corpus, recipe)
    valid = _data(recipe, recipe.data.valid, guidance, cropping, rate, field) if recipe.data.valid else None
    upstream = _upstream_class(cls)
    known = getattr(upstream, "configs", {}).get(named)
    return Prepared(
        resolved, cls, upstream.__name__, model_config, named if known == model_config else None, config, rate, train, valid
    )


def _model_config(recipe: Recipe, cls: type[Objective]) -> tuple[Any, str]:
    values = dict(recipe.model)
    name = str(values.pop("config", ""))
    if not name:
        raise OptionError(
            f"{recipe.source('model.config')}: model.config is missing. It is one of {', '.join(cls.model_configs)}; other "
            "fields of model change it. Add it."
        )
    if name not in cls.model_configs:
        raise OptionError(
            f"{recipe.source('model.config')}: model.config is {name!r}. It must be one of {', '.join(cls.model_configs)}. "
            "Correct it."
        )
    named = cls.model_configs[name]
    return build(type(named), values, prefix="model", where=recipe.source, start=named), name


def _upstream_class(cls: type[Objective]) -> type[Any]:
    """The class that loads what an objective trains."""
    try:
        family = current_registry().find(cls.upstream).family
    except UnknownUpstreamError as error:
        raise PluginError(f"{cls.__module__}.{cls.__name__} trains {cls.upstream!r}, but {error}") from error
    if family is None:
        raise PluginError(f"{cls.__module__}.{cls.__name__} trains {cls.upstream!r}, which no installed class loads.")
    return import_class(family)


def _data(
    recipe: Recipe,
    manifests: tuple[str, ...],
    guidance: Mapping[str, Any] | None,
    cropping: Cropping,
    sample_rate: int,
    field: int,
) -> Data:
    data = recipe.data
    shortest = data.min_samples if data.max_samples is None else min(data.min_samples, data.max_samples)
    if shortest < field:
        raise OptionError(
            f"{recipe.source('data.min_samples')}: data.min_samples is {data.min_samples}. The first frame of this model needs "
            f"{field} samples. Raise it, to at least that."
        )
    corpus = read_corpus(
        manifests,
        min_samples=data.min_samples,
        max_samples=data.max_samples,
        max_samples_per_batch=data.max_samples_per_batch,
    )
    check_guidance(corpus.utterances, guidance)
    lengths = [min(item.samples, data.max_samples or item.samples) for item in corpus.utterances]
    seed = recipe.run.seed
    reader = BatchReader(corpus.utterances, sample_rate=sample_rate, cropping=cropping, guidance=guidance, seed=seed)
    return Data(corpus, reader, Epochs(lengths, seed=seed, max_samples_per_batch=data.max_samples_per_batch))


def _report_short(corpus: Corpus, recipe: Recipe) -> None:
    if corpus.too_short:
        names = ", ".join(printable(item.key) for item in corpus.too_short[:_SHOWN])
        more = ", ..." if len(corpus.too_short) > _SHOWN else ""
        _log.warning(
            "%d utterances have fewer than %d samples (data.min_samples) and are left out: %s%s",
            len(corpus.too_short),
            recipe.data.min_samples,
            names,
            more,
        )
