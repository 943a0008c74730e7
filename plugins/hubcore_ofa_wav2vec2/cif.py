"""Continuous integrate-and-fire: frames are summed, weighted by alpha, until the weights reach a threshold.

Dong and Xu 2020 (CIF); Chen, Meng, Lee 2023, section 2.1 (as used here). Frame i carries the mass `alpha[i]`, so the frames
of an utterance divide the line from 0 to the sum of alpha into intervals; output j is what falls between `beta * j` and
`beta * (j + 1)`. Every weight is therefore the overlap of two intervals, computed for all frames at once, in float64.

Shapes: `B` batch, `F` frames, `N` packed frames of all utterances, `M` packed outputs, `C` channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional

from hubcore.errors import OptionError
from hubcore.nn.padded import Padded, together
from hubcore.ragged import pad_packed, taken, wide_dtype
from hubcore.strategy import Counts, counted, few_calls, numbers_on

Tail = Literal["drop", "keep", "partial"]


@dataclass(frozen=True)
class Fired:
    """The outputs of all utterances, packed."""

    frames: Tensor
    """`(M, C)`, in the dtype of the input."""
    lengths: list[int]
    """Outputs of each utterance."""
    spans: Tensor
    """`(M, 2)` float64, where each output starts and ends, in input frames: 1.5 is the middle of the second frame."""
    mass: Tensor
    """`(B,)` float64, the sum of alpha of each utterance."""


def fire(
    frames: Tensor,
    alpha: Tensor,
    lengths: Sequence[int],
    *,
    beta: float = 1.0,
    tail: Tail = "drop",
    tail_threshold: float = 0.5,
    at_least_one: bool = True,
) -> Fired:
    """Integrates and fires packed frames; each utterance gives exactly what it gives alone.

    An utterance gives `floor(sum(alpha) / beta)` outputs. What is left after the last is dropped, or kept as one more
    output, scaled to a whole one, if it is at least `tail_threshold` (torch_cif: `is_training=False`, `tail_thres`).

    Args:
        frames: `(N, C)`.
        alpha: `(N,)`, not negative; one that is NaN or infinite makes its outputs NaN.
        lengths: frames of each utterance.
        beta: the mass of one output.
        tail: "drop", "keep", or "partial" (the tail as it is, unscaled, whatever its mass).
        tail_threshold: smallest mass that "keep" keeps.
        at_least_one: whether an utterance too weak to fire gives one output all the same: all of its mass, scaled to a whole
            output; its plain mean times `beta` where there is no mass at all.

    Example:
        >>> fired = fire(torch.ones(4, 2), torch.full((4,), 0.5), [4])
        >>> fired.frames.tolist(), fired.spans.tolist()
        ([[1.0, 1.0], [1.0, 1.0]], [[0.0, 2.0], [2.0, 4.0]])
    """
    if tail not in get_args(Tail) or not beta > 0:
        raise OptionError(f"tail is {tail!r} and beta {beta}. tail must be one of {', '.join(get_args(Tail))}, beta above 0.")
    frames, alpha = without_nan(frames, alpha)
    wide, device, batch = wide_dtype(alpha.device), alpha.device, Counts.of(lengths)
    owner, place = batch.places(device)  # (N,) the utterance of each frame, and where in it
    sums = _snapped(pad_packed(alpha.to(wide)[:, None], batch)[..., 0].cumsum(1), beta)  # (B, F)
    upper = sums[owner, place]  # (N,) where each frame's interval ends
    lower = functional.pad(sums[:, :-1], (1, 0))[owner, place]  # (N,) and where it begins
    mass = sums[:, -1]
    first = (lower.detach() / beta).floor().long()  # (N,) the output that each frame begins in
    parts = (upper.detach() / beta).floor().long() - first + 1  # (N,) and in how many outputs it is
    # The one time that the host waits for the device: how many outputs there are depends on alpha.
    known = torch.cat([mass.detach(), (mass.detach() / beta).floor(), parts.sum()[None].to(wide)]).tolist()
    fires = [int(count) for count in known[len(batch) : -1]]
    source, output, weight = _overlaps(lower, upper, first, parts, int(known[-1]), beta)

    # One more row than fires for each utterance: its tail; and behind them all one for what is not used.
    begins = _offsets([count + 1 for count in fires])
    size = sum(fires) + len(fires) + 1
    row = output + numbers_on(device, begins)[owner[source]]
    precise = torch.promote_types(frames.dtype, torch.float32)
    summed = frames.new_zeros(size, frames.shape[1], dtype=precise)
    summed = summed.index_add(0, row, frames[source].to(precise) * weight.to(precise)[:, None])
    tails = numbers_on(device, [begin + count for begin, count in zip(begins, fires, strict=True)])
    ends, crosses = _ends(lower, upper, source, output, beta, place)
    ends = ends.new_zeros(size).scatter(0, row.where(crosses, size - 1), ends)
    ends = ends.index_copy(0, tails, numbers_on(device, batch).to(wide))

    left = [total - beta * count for total, count in zip(known, fires, strict=False)]
    alone = [count == 0 and at_least_one for count in fires]  # the tail is all there is
    longer = [tail == "partial" or (tail == "keep" and rest >= max(tail_threshold, 1e-6)) for rest in left]
    kept = counted([count + (a or b) for count, a, b in zip(fires, alone, longer, strict=True)], device)
    whole = [rest > 1e-6 if a else b and tail == "keep" for rest, a, b in zip(left, alone, longer, strict=True)]
    if any(whole):  # tails that are scaled to a whole output
        scaled = numbers_on(device, whole).bool()
        rest = (mass - beta * numbers_on(device, fires)).where(scaled, beta)
        summed = summed * summed.new_ones(size).index_copy(0, tails, (beta / rest).to(precise))[:, None]
    rows = taken(summed, kept, begins)
    for u in [u for u, (a, b) in enumerate(zip(alone, whole, strict=True)) if a and not b]:
        # Nothing to weigh the frames with: all count alike. Alpha and lambda stay in the graph, with a gradient of 0.
        at, begin = sum(kept[:u]), sum(batch[:u])
        plain = beta * frames[begin : begin + batch[u]].to(precise).mean(0, keepdim=True) + 0 * rows[at : at + 1]
        rows = torch.cat([rows[:at], plain, rows[at + 1 :]])
    ends = taken(ends, kept, begins)
    starts = ends.roll(1).masked_fill(Counts.of(kept).places(device)[1] == 0, 0.0)
    return Fired(rows.to(frames.dtype), kept, torch.stack([starts, ends], dim=-1), mass)


def fire_padded(frames: Tensor, alpha: Tensor, counts: Padded, *, tail: Tail) -> tuple[Tensor, Padded]:
    """`fire` at its default thresholds for a padded batch: from frames `(B x F, C)` and alpha `(B x F,)` outputs `(B x M, C)`.

    Example:
        >>> outputs, fired = fire_padded(torch.ones(4, 2), torch.full((4,), 0.5), Padded(torch.tensor([4]), 4), tail="drop")
        >>> outputs.tolist(), fired.lengths.tolist()
        ([[1.0, 1.0], [1.0, 1.0]], [2])
    """
    alpha = counts.apart(counts.zeroed(alpha[:, None]))[..., 0]  # (B, F)
    upper = _snapped(alpha.cumsum(1), 1.0)
    lower = functional.pad(upper, (1, 0)).narrow(1, 0, counts.longest)
    mass = upper.amax(1)
    fires = mass.floor()
    left = mass - fires
    kept = fires == 0
    if tail == "keep":
        kept = kept | (left >= 0.5)
    lengths = fires.long() + kept.long()
    longest: Any = lengths.max().item()
    torch._check(longest >= 1)
    output = torch.arange(longest, device=alpha.device)[None, :, None]  # (1, M, 1)
    weight = (torch.minimum(upper[:, None], output + 1) - torch.maximum(lower[:, None], output)).clamp(min=0)  # (B, M, F)
    # The last output of an utterance may be less than a whole one, and of no mass at all if nothing fires.
    partial = (output[..., 0] == fires[:, None]) & kept[:, None]
    plain = counts.mask()[:, None] / counts.lengths[:, None, None]
    scaled = torch.where(left[:, None, None] > 1e-6, weight / left.clamp(min=1e-6)[:, None, None], plain)
    weight = torch.where(partial[..., None], scaled, weight)
    precise = torch.promote_types(frames.dtype, torch.float32)
    outputs = weight.to(precise) @ counts.apart(counts.zeroed(frames)).to(precise)
    return together(outputs.to(frames.dtype)), Padded(lengths, longest)


def without_nan(frames: Tensor, alpha: Tensor) -> tuple[Tensor, Tensor]:
    """Frames and weights; a frame whose weight is no number weighs 1 and is no number itself, so that nothing hides it.

    Example:
        >>> without_nan(torch.ones(2, 1), torch.tensor([float("nan"), 0.5]))[1].tolist()
        [1.0, 0.5]
    """
    known = alpha.isfinite()
    if not few_calls(alpha.device) and bool(known.all()):
        return frames, alpha
    return frames.masked_fill(~known[..., None], float("nan")), alpha.masked_fill(~known, 1.0)


def _offsets(lengths: Sequence[int]) -> list[int]:
    """Begin of each of several pieces that lie end to end."""
    return [0, *accumulate(lengths)][: len(lengths)]


def _snapped(sums: Tensor, beta: float) -> Tensor:
    """Running sums, whole outputs being exactly whole: ten weights of 1.1 make 11 outputs, and rounding must not lose one."""
    whole = (sums.detach() / beta).round() * beta
    return torch.where((whole - sums.detach()).abs() < 1e-9, sums + (whole - sums).detach(), sums)


def _overlaps(
    lower: Tensor, upper: Tensor, first: Tensor, counts: Tensor, total: int, beta: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Every overlap of a frame's interval with an output's: frame, output (within its utterance) and length.

    A frame is in `counts` outputs from `first` on, all frames in `total`. The bounds of outputs are constants, those of frames
    carry gradients; at a tie the frame's own bound is the one that counts, as in the original's arithmetic.
    """
    source = torch.repeat_interleave(counts, output_size=total)
    step = torch.arange(total, device=source.device) - (counts.cumsum(0) - counts)[source]
    output = first[source] + step
    begin = torch.where(step == 0, lower[source], beta * output)
    end = torch.where(step == counts[source] - 1, upper[source], beta * (output + 1))
    return source, output, end - begin


def _ends(lower: Tensor, upper: Tensor, source: Tensor, output: Tensor, beta: float, place: Tensor) -> tuple[Tensor, Tensor]:
    """End of the output in each overlap, in frames of its utterance, and whether it ends there.

    A frame spends its mass evenly over its own time; `place` is where it is in its utterance.
    """
    low, high = lower.detach()[source], upper.detach()[source]
    crosses = output < (high / beta).floor().long()  # the frame goes on beyond this output
    share = (beta * (output + 1) - low) / (high - low).clamp_min(torch.finfo(low.dtype).tiny)
    return place[source] + share.clamp(0, 1), crosses


@dataclass(frozen=True)
class CifOutput:
    """Result of `integrate_and_fire`; the names are those of torch_cif, and of the original's `cif_function`."""

    cif_out: Tensor
    """`(B, F', C)` outputs, zero beyond each length unless `tail="partial"`."""
    cif_lengths: Tensor
    """`(B,)` int64, outputs of each row."""
    alpha: Tensor
    """`(B, F)` the weights that were used: without padding, rescaled to `target_lengths` if given."""
    alpha_sum: Tensor
    """`(B,)` their sum before rescaling."""
    alpha_std: Tensor
    """`(B,)` their standard deviation before rescaling, over `F - 1`; NaN for a single frame."""
    delays: Tensor
    """`(B, F')` weighted mean source position of each output, counted from 1."""
    tail_weights: Tensor
    """`(B,)` mass left after the last output."""
    fire_index: Tensor
    """`(B, F)` int64, 1 where a frame completes an output."""
    reverse_alpha: Tensor
    """`(B, K)` frames from one completion to the next, zero beyond the completions of a row."""


def integrate_and_fire(
    frames: Tensor,
    alpha: Tensor,
    *,
    beta: float = 1.0,
    padding_mask: Tensor | None = None,
    target_lengths: Tensor | None = None,
    gamma: float = 0.0,
    eps: float = 1e-4,
    tail: Tail = "drop",
    tail_threshold: float = 0.5,
) -> CifOutput:
    """`fire` for a padded batch, with the options of the original's `cif_function`.

    Args:
        frames: `(B, F, C)`.
        alpha: `(B, F)`, not negative.
        beta: the mass of one output.
        padding_mask: `(B, F)` bool, True where a frame is padding; its weight becomes 0.
        target_lengths: `(B,)`; alpha is scaled so that each row fires so often (used in training).
        gamma: how far that scaling is taken back, 0 (not) to 1 (wholly).
        eps: mass added to the target, so that rounding cannot lose the last output.
        tail: "drop" and "keep" as in `fire`; "partial" leaves the unfinished sum behind the last output where a longer row
            makes room for it, as the original does in training (`is_training=True`).
        tail_threshold: torch_cif: `tail_thres`.

    Raises:
        OptionError: shapes that do not fit, or a negative weight.

    Example:
        >>> out = integrate_and_fire(torch.ones(1, 4, 2), torch.tensor([[0.5, 0.5, 0.5, 0.9]]))
        >>> out.cif_lengths.tolist(), out.delays.tolist()
        ([2], [[1.5, 3.5]])
    """
    if tail not in get_args(Tail):
        raise OptionError(f"tail is {tail!r}. It must be one of {', '.join(get_args(Tail))}.")
    if frames.ndim != 3 or alpha.shape != frames.shape[:2]:
        raise OptionError(
            f"frames has shape {tuple(frames.shape)} and alpha {tuple(alpha.shape)}. They must be (B, F, C) and (B, F). "
            "Give each frame one weight."
        )
    wide = wide_dtype(alpha.device)
    weights = alpha.to(wide)
    if padding_mask is not None:
        weights = weights.masked_fill(padding_mask, 0.0)
    if not bool((weights >= 0).all()):
        raise OptionError("alpha has a negative weight or NaN. Weights are masses, 0 or more. Pass them through a sigmoid.")
    alpha_sum = weights.sum(1)
    spread = (weights - weights.mean(1, keepdim=True)).square().sum(1) / (weights.shape[1] - 1 or float("nan"))
    if target_lengths is not None:
        ratio = (beta * target_lengths.to(wide) + eps) / alpha_sum
        weights = weights * (gamma + (1 - gamma) * ratio)[:, None]
    batch, count, channels = frames.shape
    # Positions travel through the same weights as frames do, as one more channel.
    precise = torch.promote_types(frames.dtype, torch.float32)
    position = torch.arange(1, count + 1, device=frames.device, dtype=precise).expand(batch, count)[..., None] / beta
    carried = torch.cat([frames.to(precise), position], dim=-1).flatten(0, 1)
    fired = fire(carried, weights.flatten(), [count] * batch, beta=beta, tail="partial", at_least_one=False)
    fires = torch.tensor([n - 1 for n in fired.lengths], device=frames.device)
    left = fired.mass - beta * fires
    grows = (left >= tail_threshold) & (target_lengths is None and tail == "keep")
    scale = torch.where(grows, beta / left.clamp_min(torch.finfo(wide).tiny), torch.ones_like(left)).to(precise)
    lengths = fires + grows
    longest = int(lengths.max())
    outputs, positions = [], []
    for part, number, factor in zip(torch.split(fired.frames, fired.lengths), lengths.tolist(), scale, strict=True):
        scaled = torch.cat([part[:-1, :channels], part[-1:, :channels] * factor])
        outputs.append(scaled[: min(number + (tail == "partial"), longest)])
        positions.append(part[: min(number + 1, longest), channels:])
    upper = weights.detach().cumsum(1)
    lower = torch.cat([upper.new_zeros(batch, 1), upper[:, :-1]], dim=1)
    completes = (upper / beta).floor().long() > (lower / beta).floor().long()  # (B, F)
    return CifOutput(
        cif_out=pad_to(outputs, longest).to(frames.dtype),
        cif_lengths=lengths,
        alpha=weights.to(alpha.dtype),
        alpha_sum=alpha_sum,
        alpha_std=spread.sqrt(),
        delays=pad_to(positions, longest)[..., 0],
        tail_weights=left,
        fire_index=completes.long(),
        reverse_alpha=_reverse_alpha(lower, upper, completes, beta),
    )


def pad_to(rows: Sequence[Tensor], longest: int) -> Tensor:
    """`(F_i, C)` tensors as one `(B, longest, C)` tensor, zeros behind each."""
    return torch.stack([functional.pad(row, (0, 0, 0, longest - len(row))) for row in rows])


def _reverse_alpha(lower: Tensor, upper: Tensor, completes: Tensor, beta: float) -> Tensor:
    """`(B, K)` frames between the last completions of successive firing frames, K being the most that a row has."""
    crossing = (upper / beta).floor() * beta
    share = (crossing - lower) / (upper - lower).clamp_min(torch.finfo(upper.dtype).tiny)
    where = torch.arange(upper.shape[1], device=upper.device) + share  # (B, F)
    rows = []
    for place, hit in zip(where, completes, strict=True):
        ends = place[hit]
        rows.append(torch.diff(ends, prepend=ends.new_zeros(1))[:, None] if len(ends) else ends[:, None])
    return pad_to(rows, max(len(row) for row in rows))[..., 0]
