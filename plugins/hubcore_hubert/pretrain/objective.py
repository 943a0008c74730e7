"""`HubertPretraining`: a HuBERT encoder with its heads, which predicts the units of masked frames.

Shapes: `B` batch, `N` packed frames of all utterances, `M` those that are asked for, `C` channels, `D` dim, `K` units of a set
of labels, `S` sets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from hubcore.errors import OptionError
from hubcore.pretrain.initialise import load_pretraining_weights
from hubcore.pretrain.masked import MaskedPretraining, mean_squares, per_target
from hubcore.pretrain.objective import Batch, Figure, Losses, Term
from hubcore_hubert.config import CONFIGS, HubertConfig
from hubcore_hubert.pretrain.config import HubertObjective
from hubcore_hubert.pretrain.labels import Labels, align
from hubcore_hubert.pretrain.start import START

_NOT_LEARNT = (
    "The units of masked frames are not being learnt. The usual causes are units of other audio or another frame rate "
    "(data.units, objective.label_rate), audio that is silence or noise, and a learning rate that is too high. Check the "
    "units, lower optimization.lr, or raise optimization.warmup_updates."
)
FIGURES = {
    "accuracy": Figure(
        "accuracy",
        "accuracy {:.3f}",
        {
            "min_accuracy": _NOT_LEARNT,
            "max_accuracy": "The units of masked frames are all guessed, so nothing more is learnt from them. The usual causes "
            "are masks that leave too much uncovered, and units that hardly change. Raise objective.mask_prob or "
            "objective.mask_length, or make more units.",
        },
    ),
    "accuracy_unmasked": Figure("accuracy of unmasked frames"),
    "lead": Figure(limits={"min_lead": _NOT_LEARNT}),
    "code_perplexity": Figure(
        "perplexity of the predicted units",
        "perplexity {:.1f}",
        {
            "min_perplexity": "The same few units are predicted everywhere. The usual causes are units that have collapsed "
            "themselves, and a learning rate that is too high. Look at the units, lower optimization.lr, or raise "
            "optimization.warmup_updates."
        },
    ),
}


class HubertPretraining(MaskedPretraining):
    """HuBERT's pre-training (Hsu et al. 2021, section II): the units of masked frames are predicted from what is around them.

    A frame's prediction is a softmax over the cosine similarities of its projection to a learnt embedding of each unit,
    divided by a temperature (equation 3). The loss is the cross entropy summed over frames and over sets of labels.

    Nothing is padded or cropped: an utterance's masks come from its own frames, and its part of the loss is the same in any
    batch.

    Example:
        >>> import numpy as np
        >>> config = HubertObjective(clusters=[20], final_dim=32)
        >>> objective = HubertPretraining(CONFIGS["tiny"], config)
        >>> batch = Batch([torch.randn(16000)], guidance=[np.arange(50)[None] % 20])
        >>> losses = objective(batch, update=0, seed=1)
        >>> sorted(losses.terms), losses.sample_size > 0
        (['features_penalty', 'masked', 'unmasked'], True)
    """

    upstream: ClassVar[str] = "hubert"
    model_configs: ClassVar[Mapping[str, HubertConfig]] = CONFIGS
    config_class: ClassVar[type[HubertObjective]] = HubertObjective
    figures: ClassVar[Mapping[str, Figure]] = FIGURES
    guided_by = "units"
    config: HubertObjective
    model_config: HubertConfig

    def __init__(self, model_config: HubertConfig, config: HubertObjective) -> None:
        super().__init__(model_config, config)
        heads = len(config.clusters) if config.untie_projections else 1
        self.project_predictions = nn.Linear(model_config.dim, config.final_dim * heads)
        self.label_embeddings = nn.Parameter(torch.empty(sum(config.clusters), config.final_dim).uniform_())

    @classmethod
    def open_guidance(
        cls, paths: Sequence[Path], model_config: HubertConfig, config: HubertObjective
    ) -> Mapping[str, Any] | None:
        """The units of each utterance."""
        return Labels.open(paths, config, model_config.sample_rate) if paths else None

    @classmethod
    def needs_guidance(cls, config: HubertObjective) -> bool:  # noqa: ARG003 - it always does
        """True: there is nothing to learn without units."""
        return True

    def load_weights(self, path: Path) -> tuple[list[str], list[str]]:
        """Takes over the weights of a checkpoint of any layout; heads of other units stay fresh."""
        return load_pretraining_weights(self, path, START)

    def forward(self, batch: Batch, *, update: int, seed: int, given: Tensor | None = None) -> Losses:  # noqa: ARG002
        """The losses of a batch; `given`, `(N,)` bool, replaces the masked frames that would be drawn from `seed`.

        Raises:
            OptionError: the batch has no labels, or an utterance's do not reach into its crop.
        """
        raw, computed = self.convolve(batch)
        aligned = self._align(batch, computed)
        frames = [part.shape[1] for part in aligned]
        if frames != list(computed):  # the labels end before the audio
            raw = torch.cat([part[:count] for part, count in zip(raw.split(list(computed)), frames, strict=True)])
        labels = torch.cat(aligned, dim=1).to(raw.device)  # (S, N)
        mask = self.draw_mask(frames, seed) if given is None else given.cpu()
        masked = mask.nonzero()[:, 0].to(raw.device)  # (M,)
        counts = [int(part.sum()) for part in mask.split(frames)]
        x = self.encode(self.model.feature_norm(raw), frames, masked)
        return self._losses(
            x, labels, masked, (~mask).nonzero()[:, 0].to(raw.device), counts, frames, mean_squares(raw, frames)
        )

    def _align(self, batch: Batch, frames: Sequence[int]) -> list[Tensor]:
        """The labels of each utterance's frames, `(S, F)`."""
        if batch.guidance is None:
            raise OptionError("the batch has no labels, and HuBERT predicts them.", fix="Set data.units.")
        shape, starts = self.model_config, batch.starts or [0] * len(frames)
        found = [
            align(
                labels,
                count,
                start=start,
                samples=len(wav),
                stride=shape.frame_stride,
                label_rate=self.config.label_rate,
                sample_rate=shape.sample_rate,
            )
            for labels, count, start, wav in zip(batch.guidance, frames, starts, batch.wavs, strict=True)
        ]
        fewest = min(part.shape[1] for part in found)
        if fewest == 0:
            raise OptionError(
                "the labels of an utterance do not reach into its crop.",
                fix="Raise data.min_samples and data.max_samples above a quarter of a second, or check data.units.",
            )
        return [part[:, :fewest] for part in found] if self.config.compat == "original" else found

    def _losses(
        self,
        x: Tensor,
        labels: Tensor,
        masked: Tensor,
        unmasked: Tensor,
        counts: list[int],
        frames: Sequence[int],
        squares: Tensor,
    ) -> Losses:
        """The weighted sum of both cross entropies and of the penalty of large features; fairseq: `HubertCriterion`."""
        config, covered, open_ = self.config, masked, unmasked
        loss_masked, guesses = self.predict(x[covered], labels[:, covered])
        with torch.set_grad_enabled(config.unmasked_weight > 0 and torch.is_grad_enabled()):
            loss_unmasked, open_guesses = self.predict(x[open_], labels[:, open_])
        # A frame counts as a target where its term has a weight.
        targets = [
            (config.masked_weight > 0) * count + (config.unmasked_weight > 0) * (total - count)
            for count, total in zip(counts, frames, strict=True)
        ]
        terms = {
            "masked": Term(loss_masked, config.masked_weight),
            "unmasked": Term(loss_unmasked, config.unmasked_weight),
            "features_penalty": Term(per_target(squares, targets), config.features_penalty_weight, "mean"),
        }
        size = len(covered)
        own = guesses == labels[:, covered]  # (S, M)
        others = torch.cat([part.roll(count // 2, 1) for part, count in zip(guesses.split(counts, 1), counts, strict=True)], 1)
        by_chance = others == labels[:, covered]
        figures = {
            "accuracy": (_mean(own), size),
            "accuracy_unmasked": (_mean(open_guesses == labels[:, open_]), len(open_)),
            "lead": (_mean(own) - _mean(by_chance), size),
            "code_perplexity": (_perplexity(guesses, config.clusters), size),
            "label_perplexity": (_perplexity(labels[:, covered], config.clusters), size),
            "masked_share": (size / sum(frames), sum(frames)),
        }
        return Losses(sum(targets), terms, figures)

    def predict(self, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The cross entropy of frames `(M, D)` with labels `(S, M)`, summed over both, and the likeliest units `(S, M)`."""
        config = self.config
        with torch.autocast(x.device.type, enabled=False):
            wide = torch.promote_types(x.dtype, torch.float32)
            projected = functional.linear(x.to(wide), self.project_predictions.weight, self.project_predictions.bias)
            heads = projected.split(config.final_dim, dim=1)
            loss, guesses = projected.sum() * 0, []
            sets = self.label_embeddings.split(config.clusters)
            for number, (embeddings, wanted) in enumerate(zip(sets, labels, strict=True)):
                logits = similarities(heads[number % len(heads)], embeddings) / config.logit_temperature  # (M, K)
                loss = loss + functional.cross_entropy(logits, wanted, reduction="sum")
                guesses.append(logits.detach().argmax(1))
        return loss, torch.stack(guesses)


def similarities(x: Tensor, embeddings: Tensor) -> Tensor:
    """Cosine similarities of frames `(M, D)` to the embedding of each unit `(K, D)`: `(M, K)`.

    Example:
        >>> similarities(torch.tensor([[2.0, 0.0]]), torch.eye(2)).tolist()
        [[1.0, 0.0]]
    """
    return functional.normalize(x, dim=-1, eps=1e-8) @ functional.normalize(embeddings.to(x.dtype), dim=-1, eps=1e-8).t()


def _mean(right: Tensor) -> float:
    return float(right.float().mean()) if right.numel() else 0.0


def _perplexity(units: Tensor, clusters: Sequence[int]) -> float:
    """Exp of the entropy of the units of each set `(S, M)`, summed over sets."""
    found = 0.0
    for row, count in zip(units, clusters, strict=True):
        if row.numel():
            share = torch.bincount(row, minlength=count).double() / row.numel()
            found += float(torch.exp(-torch.special.xlogy(share, share).sum()))
    return found
