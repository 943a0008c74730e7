"""A small objective for testing the loop: it tells masked frames of wav2vec2's own tiny encoder from others, in a few ms.

It is deterministic given batch, update and seed, uses torch's global generator too (dropout), and can be told to misbehave.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn import functional

from hubcore.errors import OptionError
from hubcore.pretrain.objective import Batch, Figure, Losses, Objective, Term
from hubcore_wav2vec2 import CONFIGS, Wav2Vec2Config, build_model
from hubcore_wav2vec2.checkpoint import READER

SMALL = replace(
    CONFIGS["tiny"],
    conv_layers=((8, 10, 5), (8, 8, 8), (8, 8, 8)),
    dim=8,
    num_layers=1,
    num_heads=2,
    ffn_dim=16,
    pos_conv_kernel=4,
    pos_conv_groups=2,
)


@dataclass(frozen=True)
class ToyConfig:
    dropout: float = 0.1
    spread_weight: float = 0.1
    needs: bool = False
    """Whether it wants guidance."""
    no_targets_at: tuple[int, ...] = ()
    """Updates in which it finds none."""
    nan_at: int = -1
    """The update whose loss is no number."""
    constant_perplexity: float | None = None
    skip: bool = False
    """Whether it leaves its extra layer out at random, so that it gets no gradient."""


class ToyPretraining(Objective):
    upstream: ClassVar[str] = "wav2vec2"
    model_configs: ClassVar[Mapping[str, Wav2Vec2Config]] = {"small": SMALL}
    config_class: ClassVar[type[ToyConfig]] = ToyConfig
    guided_by = "segments"
    figures: ClassVar[Mapping[str, Figure]] = {
        "accuracy": Figure("accuracy"),
        "code_perplexity": Figure("perplexity", "perplexity {:.1f}", {"min_perplexity": "The toy has collapsed. Play less."}),
    }

    def __init__(self, model_config: Wav2Vec2Config, config: ToyConfig) -> None:
        super().__init__(model_config, config)
        self.model = build_model(model_config)
        self.extra = nn.Linear(model_config.dim, model_config.dim)
        self.head = nn.Linear(model_config.dim, model_config.conv_dim)

    @property
    def skips_parameters(self) -> bool:
        return self.config.skip

    @classmethod
    def open_guidance(cls, paths: Sequence[Path], model_config: Wav2Vec2Config, config: ToyConfig) -> Mapping[str, Any] | None:
        if not paths:
            return None
        lines = paths[0].read_text().splitlines()
        return dict(line.split("\t") for line in lines)

    def variants(self) -> Mapping[str, Mapping[str, Any]]:
        return {"plain": {}, "loud": {"gain": 2.0}}

    def load_weights(self, path: Path) -> tuple[list[str], list[str]]:
        _, model, _ = READER.read(path)
        self.model.load_state_dict(model.state_dict())
        return [f"model.{name}" for name in model.state_dict()], ["extra.bias", "extra.weight", "head.bias", "head.weight"]

    def forward(self, batch: Batch, *, update: int, seed: int, gain: float = 1.0) -> Losses:
        config = self.config
        if config.needs and batch.guidance is None:
            raise OptionError("no guidance")
        generator = torch.Generator().manual_seed(seed)
        features, frames = self.model.convolve([wav * gain for wav in batch.wavs])  # (N, C)
        masked = torch.rand(len(features), generator=generator).to(features.device) < 0.5
        x = functional.dropout(self.model.projection(self.model.feature_norm(features)), config.dropout, self.training)
        x = x.masked_fill(masked[:, None], 0.0)
        [x] = self.model.encoder(x, frames, [1])
        if not config.skip or not self.training or torch.rand((), generator=generator) < 0.3:
            x = x + self.extra(x)
        wanted = self.model.feature_norm(features).detach()
        error = (self.head(x) - wanted).float().square().mean(1)[masked]
        if update in config.no_targets_at and self.training:
            error = error[:0]
        spread = features.float().square().mean()
        size = len(error)
        weight = float("nan") if update == config.nan_at else 1.0
        perplexity = config.constant_perplexity
        figures = {
            "accuracy": (torch.rand((), generator=generator).item(), float(size)),
            "code_perplexity": (perplexity if perplexity is not None else 5.0 + float(x.detach().std()), float(size)),
        }
        terms = {"error": Term(error.sum(), weight), "spread": Term(spread, config.spread_weight, over="mean")}
        return Losses(size, terms, figures)
