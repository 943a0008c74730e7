"""The contrastive task: tell the true target of a masked frame from targets of other frames (section 3 of the paper).

Shapes: `M` masked frames of all utterances, `K` negatives of each, `D` width of the comparison.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Contrast:
    """The answer to every question."""

    loss: Tensor
    """Scalar: sum of the cross entropies over all `M`, natural logarithm."""
    correct: Tensor
    """Scalar int64: frames whose true target is the most similar of all."""
    by_chance: Tensor
    """Scalar int64: the same where each frame's prediction is that of another frame of its utterance, half of them further."""
    logits: Tensor
    """`(M, 1 + K)`: cosine similarity over temperature, the true target first; -inf where a negative is the same target."""


def contrast(
    predictions: Tensor, targets: Tensor, codes: Tensor, negatives: Tensor, counts: Sequence[int], temperature: float
) -> Contrast:
    """Compares each prediction with its target and its negatives.

    The similarities of one utterance are one matrix product; what fairseq gathers into `(M, K, D)` is never made.

    Args:
        predictions: `(M, D)`.
        targets: `(M, D)`.
        codes: `(M, G)`; a negative with the codes of the true target is the same target, and left out.
        negatives: `(M, K)` indices of targets, of the same utterance.
        counts: masked frames of each utterance.
        temperature: divides the similarities.

    Example:
        >>> x = torch.eye(2)
        >>> result = contrast(x, x, torch.tensor([[0], [1]]), torch.tensor([[1], [0]]), [2], 0.1)
        >>> result.logits.tolist(), int(result.correct)
        ([[10.0, 0.0], [10.0, 0.0]], 2)
    """
    with torch.autocast(predictions.device.type, enabled=False):
        wide = torch.promote_types(predictions.dtype, torch.float32)
        x = functional.normalize(predictions.to(wide), dim=-1, eps=1e-8)
        y = functional.normalize(targets.to(wide), dim=-1, eps=1e-8)
        similarities, others, first = [x.new_empty(0, negatives.shape[1])], [x.new_empty(0, 1 + negatives.shape[1])], 0
        for count in counts:
            if count:
                own = slice(first, first + count)
                each, places = x[own] @ y[own].t(), negatives[own] - first
                similarities.append(each.gather(1, places))
                frames = torch.arange(count, device=places.device)[:, None]
                others.append(each.detach().roll(count // 2, 0).gather(1, torch.cat([frames, places], dim=1)))
            first += count
        wrong = torch.cat(similarities)  # (M, K)
        same = (codes[negatives] == codes[:, None]).all(-1)  # (M, K)
        true = (x * y).sum(-1, keepdim=True)
        logits = torch.cat([true, wrong], dim=1) / temperature
        logits = torch.cat([logits[:, :1], logits[:, 1:].masked_fill(same, float("-inf"))], dim=1)
        loss = (logits.logsumexp(-1) - logits[:, 0]).sum()
        shuffled = torch.cat(others)  # (M, 1 + K)
        shuffled[:, 1:].masked_fill_(same, float("-inf"))
    return Contrast(loss, _correct(logits), _correct(shuffled), logits)


def _correct(logits: Tensor) -> Tensor:
    """Number of rows whose first is the largest; one that is largest and smallest at once has no rival: no answer."""
    return ((logits.argmax(-1) == 0) & (logits.argmin(-1) != 0)).sum()


def draw_negatives(counts: Sequence[int], num_negatives: int, generator: torch.Generator) -> Tensor:
    """`(M, K)` int64: for each of the `M` masked frames of all utterances, `K` other masked frames of its own utterance.

    Args:
        counts: masked frames of each utterance, none of them exactly 1, where there is no other.
        num_negatives: `K`.
        generator: a CPU generator.

    Example:
        >>> draw_negatives([2], 1, torch.Generator().manual_seed(0)).tolist()
        [[1], [0]]
    """
    drawn, first = [torch.empty(0, num_negatives, dtype=torch.int64)], 0
    for count in counts:
        if count:
            others = torch.randint(0, count - 1, (count, num_negatives), generator=generator)
            others += others >= torch.arange(count)[:, None]  # steps over the frame itself
            drawn.append(others + first)
        first += count
    return torch.cat(drawn)
