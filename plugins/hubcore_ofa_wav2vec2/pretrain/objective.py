"""`OfaWav2Vec2Pretraining`: wav2vec 2.0's pre-training over frames that CIF has merged, at a lambda drawn for each batch.

Shapes: `B` batch, `N` packed convolutional frames, `M` masked compressed frames, `C` channels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, cast

import torch
from torch import Tensor

from hubcore.errors import OptionError
from hubcore.pretrain.initialise import load_pretraining_weights
from hubcore.pretrain.masked import per_target
from hubcore.pretrain.objective import Batch, Figure, Losses, Term
from hubcore.ragged import pad_packed, wide_dtype
from hubcore_ofa_wav2vec2.checkpoint import READER
from hubcore_ofa_wav2vec2.cif import fire, integrate_and_fire, without_nan
from hubcore_ofa_wav2vec2.config import CONFIGS, OfaWav2Vec2Config, drawn_range
from hubcore_ofa_wav2vec2.lambd import check_lambd, mix
from hubcore_ofa_wav2vec2.model import OfaWav2Vec2Model, build_model
from hubcore_ofa_wav2vec2.pretrain.config import OfaWav2Vec2Objective
from hubcore_ofa_wav2vec2.pretrain.guidance import (
    Guide,
    check_guidance,
    draw_lambd,
    frame_loss,
    guide_for,
    pad_alpha,
    segmentation_loss,
)
from hubcore_ofa_wav2vec2.segments.store import Segment
from hubcore_wav2vec2.checkpoint import READER as PLAIN_READER
from hubcore_wav2vec2.pretrain.objective import FIGURES as WAV2VEC2_FIGURES
from hubcore_wav2vec2.pretrain.objective import Draws, Wav2Vec2Pretraining
from hubcore_wav2vec2.pretrain.start import START

FIGURES = {
    **WAV2VEC2_FIGURES,
    "alpha_mean": Figure("alpha, mean", "alpha {:.3f}"),
    "frame_period_ms": Figure("frame period (ms)", "{:.1f} ms a frame"),
}


class OfaWav2Vec2Pretraining(Wav2Vec2Pretraining):
    """OFA wav2vec 2.0's pre-training (Chen, Meng, Lee 2023, section 2): the same task over compressed frames.

    Lambda is drawn for each batch, so that one model learns every frame rate. What a frame carries, alpha, learns from the
    contrastive task through the frames it makes, and from segments found beforehand: it should come close to pseudo alpha
    (frame loss), sum to the number of segments at each boundary (segmentation loss), and fire for a given share of frames
    (cardinality loss, off by default).

    Example:
        >>> from hubcore_ofa_wav2vec2 import CONFIGS
        >>> config = OfaWav2Vec2Objective(final_dim=32, codebook_dim=32, segmentation_weight=0.0, frame_weight=0.0)
        >>> objective = OfaWav2Vec2Pretraining(CONFIGS["tiny"], config)
        >>> losses = objective(Batch([torch.randn(16000), torch.randn(9000)]), update=0, seed=1, lambd=0.5)
        >>> losses.figures["lambda"]
        (0.5, 2)
    """

    upstream: ClassVar[str] = "ofa_wav2vec2"
    model_configs: ClassVar[Mapping[str, OfaWav2Vec2Config]] = CONFIGS
    config_class: ClassVar[type[OfaWav2Vec2Objective]] = OfaWav2Vec2Objective
    figures: ClassVar[Mapping[str, Figure]] = FIGURES
    guided_by = "segments"
    config: OfaWav2Vec2Objective
    model: OfaWav2Vec2Model

    def __init__(
        self, model_config: OfaWav2Vec2Config, config: OfaWav2Vec2Objective, model: OfaWav2Vec2Model | None = None
    ) -> None:
        super().__init__(model_config, config, build_model(model_config) if model is None else model)

    @classmethod
    def fit_model_config(cls, model_config: OfaWav2Vec2Config, config: OfaWav2Vec2Objective) -> OfaWav2Vec2Config:
        """The config with the lambdas that training will draw."""
        drawn = drawn_range(config.lambd_draw, config.upper_lambd)
        return replace(model_config, lambd_range=drawn or model_config.lambd_range)

    @classmethod
    def open_guidance(cls, paths: Sequence[Path], model_config: Any, config: Any) -> Mapping[str, Any] | None:  # noqa: ARG003
        """The segments of a corpus by utterance; see `hubcore_ofa_wav2vec2.segments.open_segments`."""
        from hubcore_ofa_wav2vec2.segments import open_segments

        if not paths:
            return None
        segments = open_segments(paths)
        # The original does not say what its alphas add up to; ours, in either layout, add up to the number of segments.
        segments.strict = getattr(segments, "exact", True)
        return cast("Mapping[str, Any]", segments)

    @classmethod
    def needs_guidance(cls, config: OfaWav2Vec2Objective) -> bool:
        """True if alpha is to learn from segments."""
        return config.needs_segments

    def variants(self) -> Mapping[str, Mapping[str, Any]]:
        """Four frame rates to validate at, 20 ms among them; one where lambda has no influence."""
        if not self.model.mixing:
            return {"": {}}
        return {f"lambda_{lambd:g}": {"lambd": lambd} for lambd in (0.0, 0.5, 0.75, 1.0)}

    def load_weights(self, path: Path) -> tuple[list[str], list[str]]:
        """Takes over a checkpoint of OFA or plain wav2vec 2.0, whose alpha predictor then stays fresh."""
        return load_pretraining_weights(self, path, START, readers=(PLAIN_READER, READER), may_be_fresh="alpha_predictor.")

    def forward(
        self, batch: Batch, *, update: int, seed: int, given: Draws | None = None, lambd: float | None = None
    ) -> Losses:
        """The losses of a batch; `given` and `lambd` replace what would be drawn from `seed`."""
        features, frames, squares = self.features(batch)
        alpha = self.model.alpha_predictor(features, frames)
        if lambd is None:
            # One seed must not give the same numbers to lambda and to what `answer` draws.
            generator = torch.Generator().manual_seed((seed * 0x9E3779B1 + 1) % 2**63)
            lambd = draw_lambd(self.config.lambd_draw, self.config.upper_lambd, generator)
        if self.model.mixing:
            each = check_lambd(lambd, len(frames), alpha.device).expand(len(frames))
            mixed = mix(alpha, each, frames)
        else:
            mixed = alpha.to(wide_dtype(alpha.device))
        if self.config.compat == "original":
            # Every utterance gets as many frames as the longest; what they hold beyond their own is left-over mass, or zeros.
            known, weights = without_nan(features, mixed)
            padded = pad_packed(known, frames), pad_packed(weights[:, None], frames)[..., 0]
            rows = integrate_and_fire(*padded, tail="partial").cif_out
            compressed, lengths = rows.flatten(0, 1), [rows.shape[1]] * len(frames)
        else:
            fired = fire(features, mixed, frames)
            compressed, lengths = fired.frames, fired.lengths
        answers = self.answer(compressed, lengths, update=update, seed=seed, given=given)
        losses = self.losses(answers, lengths, squares)
        return self._guided(losses, batch, list(alpha.split(frames)), list(mixed.split(frames)), answers.counts, lengths, lambd)

    def _guided(
        self,
        losses: Losses,
        batch: Batch,
        alpha: list[Tensor],
        mixed: list[Tensor],
        counts: list[int],
        lengths: list[int],
        lambd: float,
    ) -> Losses:
        """Adds what guides alpha to the losses and the figures."""
        config, count = self.config, len(alpha)
        ratio = torch.stack([part.float().mean() for part in mixed])  # (B,)
        cardinality = segmentation = frame = torch.cat(alpha).sum() * 0  # no number where alpha is none
        if config.cardinality_weight > 0:
            off = ratio - config.target_ratio
            # The original compares the mean of the batch, so that utterances may make up for each other.
            original = config.compat == "original"
            cardinality = off.mean().abs() if original else per_target(off.abs(), counts)
        if config.needs_segments:
            guides = self._guides(check_guidance(batch.guidance, count), batch, alpha)
            padded = config.compat == "original"
            if padded:
                alpha, guides = pad_alpha(alpha, guides)
            if config.segmentation_weight > 0:
                segmentation = per_target(segmentation_loss(alpha, guides, padded=padded), counts)
            if config.frame_weight > 0:
                frame = per_target(frame_loss(alpha, guides), counts)
        terms = {
            "cardinality": Term(cardinality, config.cardinality_weight, "mean"),
            "segmentation": Term(segmentation, config.segmentation_weight, "mean"),
            "frame": Term(frame, config.frame_weight, "mean"),
        }
        frames = sum(len(part) for part in mixed)
        own = torch.cat(alpha).detach()
        figures = {
            **losses.figures,
            "alpha_mean": (own.mean().item(), frames),
            "mixed_alpha_mean": (float(torch.cat(mixed).detach().mean()), frames),
            "frame_period_ms": (1000 * self._seconds(frames) / sum(lengths), sum(lengths)),
            "lambda": (float(lambd), count),
        }
        return Losses(losses.sample_size, {**losses.terms, **terms}, figures)

    def _guides(self, guidance: Sequence[Segment], batch: Batch, alpha: Sequence[Tensor]) -> list[Guide]:
        if self.config.compat == "original":  # never cropped with the audio
            return [guide_for(segment, 0, len(segment.alpha)) for segment in guidance]
        stride = self.model.extractor.stride
        starts = batch.starts or [0] * len(alpha)
        guides = []
        for segment, start, part in zip(guidance, starts, alpha, strict=True):
            first = start // stride
            if first + len(part) > len(segment.alpha):
                raise OptionError(
                    f"segments of {len(segment.alpha)} frames are to guide frames {first + 1} to {first + len(part)}. They are "
                    f"on another grid than this model's, a frame every {stride} samples. Use model.conv_layers of the strides "
                    "that they were made for."
                )
            guides.append(guide_for(segment, first, len(part)))
        return guides

    def _seconds(self, frames: int) -> float:
        return frames * self.model.extractor.stride / self.model_config.sample_rate
