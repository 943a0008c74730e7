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

import numpy as np
import torch
from torch import Tensor, nn

from hubcore.errors import OptionError
from hubcore.nn.padded import Padded, together
from hubcore.ragged import pad_packed, wide_dtype
from hubcore.strategy import few_calls, numbers_on

HIGHEST = 2.0
"""The lambda at which every weight is 0; above it the mixing rule has no meaning."""
LOWEST = -15.0
"""The lambda that makes 16 outputs of every frame; below it, it is more likely a mistake than a wish, and memory would end."""


def check_lambd(value: Any, count: int | None, device: torch.device) -> Tensor:
    """Lambda as a float64 tensor, a scalar or `(count,)`; one that requires a gradient stays in its graph.

    Args:
        value: a number, one number for each utterance, or a tensor or an array of either form.
        count: utterances; None where they are not known yet.
        device: where to put it. The values of a tensor on a GPU are not looked at, which would wait for it.

    Raises:
        OptionError: not a number, NaN, infinite, above 2, or as many as there are not utterances.

    Example:
        >>> check_lambd(0.5, 2, torch.device("cpu")).item(), check_lambd([0.1, 0.5], 2, torch.device("cpu")).tolist()
        (0.5, [0.1, 0.5])
    """
    wide = wide_dtype(device)
    if isinstance(value, np.ndarray) and value.dtype.kind in "iuf":
        value = value.tolist()
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
        try:
            lambd = torch.tensor([float(item) for item in value] if many else float(value), device=device, dtype=wide)
        except OverflowError as error:
            raise OptionError("lambd is too large a number. It must be at most 2: 0 to 1 is the usual range.") from error
    if lambd.ndim > 1 or (lambd.ndim == 1 and (not len(lambd) or len(lambd) not in (1, count or len(lambd)))):
        raise OptionError(
            f"lambd has shape {tuple(lambd.shape)}{'' if count is None else f' for {count} utterances'}. It must be one "
            "number, or one for each utterance. Pass a float for all of them."
        )
    known = lambd.detach().reshape(-1)
    if few_calls(device) and isinstance(value, Tensor):
        return lambd
    if not bool(known.isfinite().all()) or bool(((known > HIGHEST) | (known < LOWEST)).any()):
        bad = next(x for x in known.tolist() if not math.isfinite(x) or not LOWEST <= x <= HIGHEST)
        raise OptionError(f"lambd is {bad}. It must be a number from {LOWEST:g} to {HIGHEST:g}: 0 to 1 is the usual range.")
    return lambd


def mix(alpha: Tensor, lambd: Tensor, lengths: Sequence[int]) -> Tensor:
    """The weights that are fired, `(N,)` in the dtype of `lambd`, from alpha `(N,)` and one lambda for each utterance `(B,)`.

    Example:
        >>> mix(torch.tensor([0.25, 0.25, 0.25]), torch.tensor([0.0, 1.0, -1.0]), [1, 1, 1]).tolist()
        [1.0, 0.25, 2.0]
    """
    if isinstance(lengths, Padded):
        each = together(lambd[:, None].expand(-1, lengths.longest))
    else:
        each = lambd.repeat_interleave(numbers_on(lambd.device, lengths), output_size=sum(lengths))  # (N,)
    alpha = alpha.to(lambd.dtype)
    mixed = torch.where(each <= 1, (1 - each) + each * alpha, (HIGHEST - each) * alpha)
    return torch.where(each < 0, 1 - each, mixed)


def sums_of_each(values: Tensor, lengths: Sequence[int]) -> Tensor:
    """The sum of each utterance's values, `(B,)`, from those of all its frames `(N,)`.

    Example:
        >>> sums_of_each(torch.ones(3), [1, 2]).tolist()
        [1.0, 2.0]
    """
    if few_calls(values.device):
        return pad_packed(values[:, None], lengths).sum((1, 2))
    return torch.stack([part.sum() for part in torch.split(values, list(lengths))])


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
    wide = wide_dtype(alpha.device)
    alpha = alpha.detach().to(wide)
    if isinstance(lengths, Padded):
        masses, frames = lengths.apart(lengths.zeroed(alpha[:, None])).sum((1, 2)), lengths.lengths.to(wide)
    else:
        masses, frames = sums_of_each(alpha, lengths), numbers_on(alpha.device, lengths).to(wide)
    wanted = frames / frames_per_output
    outputs = wanted.round().clamp_min(1)
    # The sum of mixed weights must reach `outputs`, also where it is meant to equal it: the margin is far above what a sum
    # in float32 may be off by. More than a frame for each frame is asked for only where the period is that short.
    total = torch.maximum(wanted, outputs + 1e-3)
    total = torch.where(wanted <= frames, total.minimum(frames), total)
    return lambd_for_mass(total, masses, frames)


def lambd_for_mass(total: Tensor, alpha_sum: Tensor, frames: Tensor) -> Tensor:
    """The lambda at which the mixed weights of `frames` frames, whose alphas add up to `alpha_sum`, add up to `total`.

    Example:
        >>> lambd_for_mass(torch.tensor(30.0), torch.tensor(20.0), torch.tensor(40.0)).item()
        0.5
    """
    nothing = torch.zeros_like(total)
    # Where every alpha is 1, or the wish is a frame for each frame, 0 gives it; 0 / 0 would be no number.
    mixed = torch.where(total >= frames, nothing, (frames - total) / (frames - alpha_sum))
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
        """Settings for `print`."""
        return f"lambd={self().item():.4f}, low={self.low}, high={self.high}"
