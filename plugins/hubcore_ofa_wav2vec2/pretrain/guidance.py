"""Losses of alpha beside the contrastive task: cardinality, segmentation and frame losses, and how lambda is drawn.

Shapes: `B` batch, `F` frames, `N` packed frames of all utterances.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from hubcore.errors import OptionError
from hubcore_ofa_wav2vec2.pretrain.config import LambdDraw
from hubcore_ofa_wav2vec2.segments.store import Segment


@dataclass(frozen=True)
class Guide:
    """Supervision of the frames of one utterance, which may be a part of its file."""

    alpha: Tensor
    """`(F,)` pseudo alpha."""
    ends: Tensor
    """`(S,)` int64, the last frame of each segment that ends here, counted from 0."""
    sums: Tensor
    """`(S,)` what alpha should sum to up to there, in segments: 1, 2, 3, ... less what a crop took of the first one."""


def guide_for(segment: Segment, first: int, frames: int) -> Guide:
    """The part of a file's segments that covers `frames` frames from frame `first` on.

    A segment of which the crop leaves a third counts a third.

    Example:
        >>> whole = Segment(torch.tensor([0.5, 0.5, 0.25, 0.25, 0.25, 0.25]), torch.tensor([2, 6]))
        >>> guide_for(whole, 1, 5).ends.tolist(), guide_for(whole, 1, 5).sums.tolist()
        ([0, 4], [0.5, 1.5])
    """
    ends = segment.boundaries
    inside = (ends > first) & (ends <= first + frames)
    here = ends[inside]
    before = ends[ends <= first]
    begin = int(before[-1]) if len(before) else 0  # where the segment began that the first frame belongs to
    after = ends[ends > first]
    length = int(after[0]) - begin if len(after) else 1
    lost = (first - begin) / length
    sums = torch.arange(1, len(here) + 1, dtype=torch.float32) - lost
    return Guide(segment.alpha[first : first + frames].float(), here - first - 1, sums)


def segmentation_loss(alpha: Sequence[Tensor], guides: Sequence[Guide], *, padded: bool = False) -> Tensor:
    """`(B,)`: mean distance, at the boundaries of each utterance, between summed alpha and the number of segments so far.

    Args:
        alpha: `(F_i,)` each, as predicted.
        guides: one for each utterance.
        padded: divides by the largest number of boundaries in the batch, as the original does.

    Example:
        >>> guide = Guide(torch.ones(4) / 2, torch.tensor([1, 3]), torch.tensor([1.0, 2.0]))
        >>> segmentation_loss([torch.full((4,), 0.5)], [guide]).tolist()
        [0.0]
    """
    most = max(len(guide.ends) for guide in guides)
    losses = []
    for predicted, guide in zip(alpha, guides, strict=True):
        sums = predicted.float().cumsum(0)[guide.ends.to(predicted.device)]
        distance = (sums - guide.sums.to(predicted.device)).abs().sum()
        losses.append(distance / max(most if padded else len(guide.ends), 1))
    return torch.stack(losses)


def frame_loss(alpha: Sequence[Tensor], guides: Sequence[Guide]) -> Tensor:
    """`(B,)`: mean distance between alpha and pseudo alpha, over the frames that both have.

    Example:
        >>> guide = Guide(torch.ones(4) / 2, torch.tensor([1, 3]), torch.tensor([1.0, 2.0]))
        >>> frame_loss([torch.full((4,), 0.75)], [guide]).tolist()
        [0.25]
    """
    losses = []
    for predicted, guide in zip(alpha, guides, strict=True):
        common = min(len(predicted), len(guide.alpha))
        wanted = guide.alpha[:common].to(predicted.device)
        losses.append((predicted[:common].float() - wanted).abs().sum() / max(common, 1))
    return torch.stack(losses)


def pad_alpha(alpha: Sequence[Tensor], guides: Sequence[Guide]) -> tuple[list[Tensor], list[Guide]]:
    """Alpha and pseudo alpha filled with zeros up to the longest of the batch, as the original compares them."""
    longest = max(*(len(part) for part in alpha), *(len(guide.alpha) for guide in guides))

    def fill(x: Tensor) -> Tensor:
        return functional.pad(x, (0, longest - len(x)))

    return [fill(part) for part in alpha], [Guide(fill(guide.alpha), guide.ends, guide.sums) for guide in guides]


def draw_lambd(draw: LambdDraw, upper: float, generator: torch.Generator) -> float:
    """One lambda from a distribution. The original: `mixup_distro`.

    Example:
        >>> 1 <= draw_lambd("scale", 1.0, torch.Generator().manual_seed(0)) < 2
        True
    """
    uniform = float(torch.rand((), generator=generator))
    if draw == "uniform":
        return uniform
    if draw == "uniform-fr":
        period = 20 + 70 * uniform  # ms, if alpha is 2/9 on average
        return 9 / 7 * (1 - 20 / period)
    if draw == "scale":
        return 1 + uniform
    return upper * uniform


def check_guidance(guidance: Sequence[Segment] | None, count: int) -> Sequence[Segment]:
    """The guidance of a batch, if it is there.

    Raises:
        OptionError: it is not.
    """
    if guidance is None or len(guidance) != count:
        raise OptionError(
            "segmentation_weight or frame_weight is above 0, but this batch has no segments. Alpha then learns boundaries from "
            "them. Set data.segments to what `hubcore segment` made, or both weights to 0."
        )
    return guidance
