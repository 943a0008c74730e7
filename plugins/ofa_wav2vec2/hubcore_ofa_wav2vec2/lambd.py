"""lambda, the choice of frame rate: what it may be, how it mixes alpha, which one gives a frame period, how it is learnt.

Mixing (Chen, Meng, Lee 2023, section 2.2): from 0 to 1, `(1 - lambda) + lambda * alpha`, from one output for every frame to
the segments that alpha marks; from 1 to 2, `(2 - lambda) * alpha`, fewer still; below 0, `1 - lambda` whatever alpha is,
more outputs than frames.

Shapes: `B` batch, `N` packed frames of all utterances.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hubcore.errors import OptionError

HIGHEST = 2.0
"""The lambda at which every weight is 0; above it the mixing rule has no meaning."""


def check_lambd(value: Any, count: int, device: torch.device) -> Tensor:
    """Lambda as a `(count,)` float64 tensor; one that requires a gradient stays in its graph.

    Args:
        value: a number, one number for each utterance, or a tensor of either form.
        count: utterances.
        device: where to put it.

    Raises:
        OptionError: not a number, NaN, infinite, above 2, or as many as there are not utterances.

    Example:
        >>> check_lambd(0.5, 2, torch.device("cpu")).tolist()
        [0.5, 0.5]
    """
    wide = torch.float32 if device.type == "mps" else torch.float64
    if isinstance(value, Tensor):
        if value.dtype == torch.bool or value.is_complex():
            raise OptionError(f"lambd is a tensor of {value.dtype}. It must hold numbers, such as 0.5. Convert it.")
        lambd = value.to(device=device, dtype=wide)
    else:
        many = isinstance(value, Sequence) and not isinstance(value, str | bytes)
        for item in value if many else [value]:
            if not isinstance(item, numbers.Real) or isinstance(item, bool):
                raise OptionError(
                    f"lambd is {value!r:.60}. It must be a number, such as 0.5, or one number for each utterance. "
                    "0 keeps a frame every 20 ms, 1 gives about one for each phone."
                )
        lambd = torch.tensor([float(item) for item in value] if many else float(value), device=device, dtype=wide)
    if lambd.ndim > 1 or (lambd.ndim == 1 and lambd.shape[0] not in (1, count)):
        raise OptionError(
            f"lambd has shape {tuple(lambd.shape)} for {count} utterances. It must be one number, or one for each utterance."
        )
    lambd = lambd.reshape(-1).expand(count)
    known = lambd.detach()
    if not bool(known.isfinite().all()) or bool((known > HIGHEST).any()):
        bad = next(float(x) for x in known if not math.isfinite(x) or x > HIGHEST)
        raise OptionError(f"lambd is {bad}. It must be a finite number, at most {HIGHEST:g}: 0 to 1 is the usual range.")
    return lambd


def mix(alpha: Tensor, lambd: Tensor, lengths: Sequence[int]) -> Tensor:
    """The weights that are fired, `(N,)` in the dtype of `lambd`, from alpha `(N,)` and one lambda for each utterance `(B,)`.

    Example:
        >>> mix(torch.tensor([0.25, 0.25, 0.25]), torch.tensor([0.0, 1.0, -1.0]), [1, 1, 1]).tolist()
        [1.0, 0.25, 2.0]
    """
    counts = torch.tensor(lengths, device=lambd.device)
    each = lambd.repeat_interleave(counts, output_size=sum(lengths))  # (N,)
    alpha = alpha.to(lambd.dtype)
    mixed = torch.where(each <= 1, (1 - each) + each * alpha, (HIGHEST - each) * alpha)
    return torch.where(each < 0, 1 - each, mixed)


def lambd_for_period(alpha: Tensor, lengths: Sequence[int], frames_per_output: float) -> Tensor:
    """The lambda `(B,)` that gives each utterance the whole number of outputs nearest to a mean period.

    Args:
        alpha: `(N,)`.
        lengths: frames of each utterance.
        frames_per_output: the mean period, in frames; 2.25 is 45 ms where a frame is 20 ms.

    Example:
        >>> alpha = torch.full((100,), 0.2)
        >>> lambd = lambd_for_period(alpha, [100], 2.25)
        >>> int(mix(alpha, lambd, [100]).sum())
        44
    """
    wide = torch.float32 if alpha.device.type == "mps" else torch.float64
    masses = torch.stack([part.sum() for part in torch.split(alpha.detach().to(wide), list(lengths))])
    frames = torch.tensor(lengths, device=alpha.device, dtype=wide)
    wanted = frames / frames_per_output
    outputs = wanted.round().clamp_min(1)
    # Nothing is left over where rounding went up; the margin is far above what a sum in float32 may be off by.
    total = torch.where(wanted >= outputs, wanted, outputs + 1e-3)
    total = torch.where(total > frames, torch.where(wanted > frames, total, frames), total)
    return lambd_for_mass(total, masses, frames)


def lambd_for_mass(total: Tensor, alpha_sum: Tensor, frames: Tensor) -> Tensor:
    """The lambda at which the mixed weights of `frames` frames, whose alphas add up to `alpha_sum`, add up to `total`.

    Example:
        >>> lambd_for_mass(torch.tensor(30.0), torch.tensor(20.0), torch.tensor(40.0)).item()
        0.5
    """
    mixed = (frames - total) / (frames - alpha_sum)
    fewer = HIGHEST - total / alpha_sum
    return torch.where(total > frames, 1 - total / frames, torch.where(total >= alpha_sum, mixed, fewer))


class AdaptiveLambda(nn.Module):
    """A lambda that is trained with the downstream loss (adaptive compression; Chen, Meng, Lee 2023, section 2.3).

    Called, it gives a scalar tensor between `low` and `high`; pass it on as `model(wavs, lambd=adaptive())`. The number of
    outputs changes in steps, but what each output is made of changes smoothly, and so does the loss.

    Args:
        initial: where to start, strictly between `low` and `high`.
        low: smallest lambda.
        high: largest lambda.

    Raises:
        OptionError: the range is empty or beyond 2, or `initial` is outside it.

    Example:
        >>> adaptive = AdaptiveLambda(0.3)
        >>> round(adaptive().item(), 6), adaptive().requires_grad
        (0.3, True)
    """

    def __init__(self, initial: float = 0.5, low: float = 0.0, high: float = 1.0) -> None:
        super().__init__()
        if not low < initial < high <= HIGHEST:
            raise OptionError(
                f"low, initial and high are {low}, {initial} and {high}. They must rise, and high be at most {HIGHEST:g}. "
                "0, 0.5 and 1 are usual."
            )
        self.low, self.high = low, high
        share = (initial - low) / (high - low)
        self.logit = nn.Parameter(torch.tensor(math.log(share / (1 - share))))

    def forward(self) -> Tensor:
        """The present lambda, a scalar."""
        return self.low + (self.high - self.low) * torch.sigmoid(self.logit)

    def extra_repr(self) -> str:
        """What `print` shows."""
        return f"lambd={self().item():.4f}, low={self.low}, high={self.high}"
