"""`Wav2Vec2Pretraining`: a wav2vec 2.0 encoder with its pre-training heads, and the losses it learns from.

Shapes: `B` batch, `N` packed frames of all utterances, `M` masked frames of all utterances, `C` channels, `D` dim.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from hubcore.pretrain.initialise import load_pretraining_weights
from hubcore.pretrain.masked import MaskedPretraining, per_target
from hubcore.pretrain.objective import Batch, Figure, Losses, Term
from hubcore_wav2vec2.config import CONFIGS, Wav2Vec2Config
from hubcore_wav2vec2.model import Wav2Vec2Model
from hubcore_wav2vec2.pretrain.config import Wav2Vec2Objective
from hubcore_wav2vec2.pretrain.contrastive import Contrast, contrast, draw_negatives
from hubcore_wav2vec2.pretrain.quantizer import GumbelQuantizer, Quantized, gumbel_noise
from hubcore_wav2vec2.pretrain.start import START

_NOT_LEARNT = (
    "The contrastive task is not being learnt. The usual causes are audio that is silence or noise, targets that are all the "
    "same, and a learning rate that is too high. Listen to some of the files, lower optimization.lr, or raise "
    "optimization.warmup_updates."
)
FIGURES = {
    "accuracy": Figure(
        "accuracy",
        "accuracy {:.3f}",
        {
            "min_accuracy": _NOT_LEARNT,
            "max_accuracy": "The contrastive task has become trivial, so nothing more is learnt from it. The usual causes are "
            "masks that leave too much uncovered, and negatives that give themselves away by padding or silence. Raise "
            "objective.mask_prob or objective.mask_length, and look at the audio.",
        },
    ),
    "lead": Figure(limits={"min_lead": _NOT_LEARNT}),
    "code_perplexity": Figure(
        "perplexity of the codes",
        "perplexity {:.1f}",
        {
            "min_perplexity": "The quantiser has collapsed onto a few codes, so that targets hardly differ. The usual causes "
            "are a learning rate that is too high or warms up too fast, and a diversity term that is too weak for the batch. "
            "Lower optimization.lr, raise optimization.warmup_updates or objective.diversity_weight, or use larger batches "
            "(optimization.accumulate)."
        },
    ),
}


@dataclass(frozen=True)
class Draws:
    """Everything random in one forward pass, dropout apart; whatever is None is drawn."""

    mask: Tensor | None = None
    """`(N,)` bool, the masked frames among those that enter the transformer."""
    negatives: Tensor | None = None
    """`(M, K)` int64 indices of masked frames."""
    noise: Tensor | None = None
    """`(M, G, V)` Gumbel noise."""


@dataclass(frozen=True)
class Answers:
    """Outputs of the heads for a batch."""

    contrast: Contrast
    quantized: Quantized
    predictions: Tensor
    """`(M, final_dim)`."""
    targets: Tensor
    """`(M, final_dim)`."""
    counts: list[int]
    """Masked frames of each utterance."""
    temperature: float


class Wav2Vec2Pretraining(MaskedPretraining):
    """wav2vec 2.0's pre-training (Baevski et al. 2020, section 3): masked frames must be told from others of the utterance.

    Nothing is padded or cropped: masks, targets and negatives of an utterance come from its own frames, and its part of
    the loss is the same in any batch, but for the codebook diversity, which is a figure of the whole batch.

    Example:
        >>> from hubcore.pretrain.objective import Batch
        >>> from hubcore_wav2vec2 import CONFIGS
        >>> objective = Wav2Vec2Pretraining(CONFIGS["tiny"], Wav2Vec2Objective(final_dim=32, codebook_dim=32))
        >>> losses = objective(Batch([torch.randn(16000), torch.randn(9000)]), update=0, seed=1)
        >>> sorted(losses.terms), losses.sample_size > 0
        (['contrastive', 'diversity', 'features_penalty'], True)
    """

    upstream: ClassVar[str] = "wav2vec2"
    model_configs: ClassVar[Mapping[str, Wav2Vec2Config]] = CONFIGS
    config_class: ClassVar[type[Wav2Vec2Objective]] = Wav2Vec2Objective
    figures: ClassVar[Mapping[str, Figure]] = FIGURES
    config: Wav2Vec2Objective
    model_config: Wav2Vec2Config

    def __init__(self, model_config: Wav2Vec2Config, config: Wav2Vec2Objective, model: Wav2Vec2Model | None = None) -> None:
        super().__init__(model_config, config, model)
        self.quantizer = GumbelQuantizer(
            model_config.conv_dim, groups=config.codebook_groups, entries=config.codebook_entries, out_dim=config.codebook_dim
        )
        self.project_targets = nn.Linear(config.codebook_dim, config.final_dim)
        self.project_predictions = nn.Linear(model_config.dim, config.final_dim)

    def load_weights(self, path: Path) -> tuple[list[str], list[str]]:
        """Takes over the weights of a checkpoint of any layout; see `hubcore.pretrain.objective.Objective.load_weights`."""
        return load_pretraining_weights(self, path, START)

    def forward(self, batch: Batch, *, update: int, seed: int, given: Draws | None = None) -> Losses:
        """The losses of a batch; `given` replaces what would be drawn from `seed`."""
        features, frames, squares = self.features(batch)
        answers = self.answer(features, frames, update=update, seed=seed, given=given)
        return self.losses(answers, frames, squares)

    def answer(self, features: Tensor, frames: Sequence[int], *, update: int, seed: int, given: Draws | None = None) -> Answers:
        """Masks features `(N, C)`, runs the transformer, and compares its answers with the quantised features."""
        config, given = self.config, given or Draws()
        generator = torch.Generator().manual_seed(seed)
        mask = self.draw_mask(frames, seed) if given.mask is None else given.mask.cpu()
        counts = [int(part.sum()) for part in mask.split(list(frames))]
        masked = mask.nonzero()[:, 0].to(features.device)  # (M,)

        x = self.encode(features, frames, masked)

        noise = given.noise
        if noise is None and self.training:
            noise = gumbel_noise((len(masked), *self.quantizer.codebook.shape[:2]), generator)
        negatives = draw_negatives(counts, config.num_negatives, generator) if given.negatives is None else given.negatives
        unmasked = functional.dropout(features[masked], config.dropout_features, self.training)
        temperature = config.temperature_at(update)
        quantized = self.quantizer(
            unmasked, temperature=temperature, noise=None if noise is None else noise.to(features.device)
        )
        targets = self.project_targets(quantized.vectors)
        predictions = self.project_predictions(x[masked])
        result = contrast(
            predictions, targets, quantized.codes, negatives.to(features.device), counts, config.logit_temperature
        )
        return Answers(result, quantized, predictions, targets, counts, temperature)

    def losses(self, answers: Answers, frames: Sequence[int], squares: Tensor) -> Losses:
        """The weighted sum of contrastive loss, codebook diversity and penalty of large features."""
        config = self.config
        size = sum(answers.counts)
        entries = config.codebook_groups * config.codebook_entries
        diversity = (entries - answers.quantized.prob_perplexity) / entries
        terms = {
            "contrastive": Term(answers.contrast.loss),
            "diversity": Term(diversity, config.diversity_weight, "mean"),
            "features_penalty": Term(per_target(squares, answers.counts), config.features_penalty_weight, "mean"),
        }
        figures = {
            "accuracy": (answers.contrast.correct.item() / max(size, 1), size),
            "lead": ((answers.contrast.correct - answers.contrast.by_chance).item() / max(size, 1), size),
            "code_perplexity": (answers.quantized.code_perplexity.item(), size),
            "prob_perplexity": (answers.quantized.prob_perplexity.item(), size),
            "temperature": (answers.temperature, size),
            "masked": (size / sum(frames), sum(frames)),
        }
        return Losses(size, terms, figures)
