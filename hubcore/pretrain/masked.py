"""`MaskedPretraining`: an encoder some of whose frames are masked, and what such objectives share: wav2vec 2.0's, HuBERT's.

Shapes: `B` batch, `N` packed frames of all utterances, `M` masked frames of all utterances, `C` channels, `D` dim.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from hubcore.nn.speech_encoder import SpeechEncoder, build_speech_encoder
from hubcore.pretrain.masked_config import MaskedObjective
from hubcore.pretrain.masking import draw_masks
from hubcore.pretrain.objective import Batch, Objective

TRAINING_CHUNK = 200
"""Frames that the extractor computes at a time in training: the fastest of 25 to 1000, a tenth faster than extraction's 50."""


class MaskedPretraining(Objective):
    """Pre-training by masked frames. A subclass adds its heads and `forward`, from `features`, `draw_mask` and `encode`.

    The encoder is `model`, so a state dict of such a class is a checkpoint of its upstream with heads beside it.

    Args:
        model_config: the encoder's.
        config: an instance of `config_class`.
        model: the encoder, if it is not the plain one of `model_config`.
    """

    config_class: ClassVar[type[MaskedObjective]] = MaskedObjective
    config: MaskedObjective
    model: SpeechEncoder

    def __init__(self, model_config: Any, config: Any, model: SpeechEncoder | None = None) -> None:
        super().__init__(model_config, config)
        self.model = build_speech_encoder(model_config) if model is None else model
        # Backward keeps every intermediate anyway, so small chunks would save nothing here.
        self.model.extractor.chunk = TRAINING_CHUNK
        self.mask_embedding = nn.Parameter(torch.empty(model_config.dim).uniform_())

    @property
    def skips_parameters(self) -> bool:
        """True if layer drop may leave blocks without a gradient."""
        return self.config.layerdrop > 0

    @classmethod
    def crops_to_shortest(cls, config: MaskedObjective) -> bool:
        """True to crop batches as fairseq does."""
        return config.compat == "original"

    def convolve(self, batch: Batch) -> tuple[Tensor, Sequence[int]]:
        """Raw features `(N, C)`, whose gradient is scaled, and the frames of each utterance."""
        scale = self.config.feature_grad_scale
        with torch.set_grad_enabled(scale > 0 and torch.is_grad_enabled()):
            raw, frames = self.model.convolve(batch.wavs)
        return scale_gradient(raw, scale) if 0 < scale != 1 else raw, frames

    def features(self, batch: Batch) -> tuple[Tensor, Sequence[int], Tensor]:
        """Normalised features `(N, C)`, the frames of each utterance, and the mean square of its raw features, `(B,)`."""
        raw, frames = self.convolve(batch)
        return self.model.feature_norm(raw), frames, mean_squares(raw, frames)

    def draw_mask(self, frames: Sequence[int], seed: int) -> Tensor:
        """`(N,)` bool; an utterance in which fewer than two frames would be masked has no question to ask, and none is."""
        config, original = self.config, self.config.compat == "original"
        masks = draw_masks(
            frames,
            np.random.RandomState(seed % 2**32),
            mask_prob=config.mask_prob,
            mask_length=config.mask_length,
            mask_selection=config.mask_selection,
            mask_other=config.mask_other,
            no_overlap=config.no_mask_overlap,
            min_space=config.mask_min_space,
            mask_dropout=config.mask_dropout,
            same_count=original,
            equal_lengths=original,
        )
        return torch.cat([torch.from_numpy(mask if mask.sum() > 1 else np.zeros_like(mask)) for mask in masks])

    def encode(self, features: Tensor, frames: Sequence[int], masked: Tensor) -> Tensor:
        """The encoder's output `(N, D)` for features `(N, C)` of which those at `masked`, `(M,)` indices, are masked."""
        config = self.config
        x: Tensor = functional.dropout(self.model.projection(features), config.dropout_input, self.training)
        # index_put wants one dtype; under autocast the projection is narrower than the embedding.
        x = x.index_put((masked,), self.mask_embedding.to(x.dtype).expand(len(masked), -1))
        layerdrop = config.layerdrop if self.training else 0.0
        [x] = self.model.encoder(x, frames, [len(self.model.encoder.blocks)], layerdrop=layerdrop)
        return x


def mean_squares(raw: Tensor, frames: Sequence[int]) -> Tensor:
    """The mean square of each utterance's features `(N, C)`, `(B,)`: what the penalty of large features is made of.

    Example:
        >>> mean_squares(torch.tensor([[1.0, 1.0], [2.0, 2.0], [4.0, 4.0]]), [1, 2]).tolist()
        [1.0, 10.0]
    """
    squares = raw.to(torch.promote_types(raw.dtype, torch.float32)).square().mean(1)
    return torch.stack([part.mean() for part in squares.split(list(frames))])


def per_target(values: Tensor, counts: Sequence[int]) -> Tensor:
    """The mean of one value for each utterance `(B,)`, weighted by its targets, so that no utterance changes another's part.

    Example:
        >>> per_target(torch.tensor([1.0, 4.0]), [2, 1]).item()
        2.0
    """
    weights = values.new_tensor([float(count) for count in counts])
    return (values * weights).sum() / max(sum(counts), 1)


def scale_gradient(x: Tensor, factor: float) -> Tensor:
    """`x`, exactly, whose gradient is multiplied by `factor` on its way back. fairseq: `GradMultiply`.

    Example:
        >>> x = torch.ones(1, requires_grad=True)
        >>> scale_gradient(x, 0.1).backward()
        >>> round(x.grad.item(), 3)
        0.1
    """
    fixed = x.detach()
    return fixed + factor * (x - fixed)
