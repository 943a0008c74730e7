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
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional

from hubcore.errors import OptionError
from hubcore.ragged import wide_dtype

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
    wide = wide_dtype(alpha.device)
    sums = [_snapped(part.cumsum(0), beta) for part in torch.split(alpha.to(wide), list(lengths))]
    upper = torch.cat(sums)  # (N,) where each frame's interval ends
    lower = torch.cat([torch.cat([part.new_zeros(1), part[:-1]]) for part in sums])  # (N,) and where it begins
    mass = torch.stack([part[-1] for part in sums])
    fires = [int(count) for count in (mass.detach() / beta).floor().tolist()]
    source, output, weight = _overlaps(lower, upper, beta)

    # One more row than fires for each utterance: its tail.
    per_frame = torch.repeat_interleave(torch.tensor(lengths, device=alpha.device))  # (N,) the utterance of each frame
    first_row = torch.tensor(_offsets([count + 1 for count in fires]), device=alpha.device)
    row = output + first_row[per_frame[source]]
    precise = torch.promote_types(frames.dtype, torch.float32)
    summed = frames.new_zeros(sum(fires) + len(fires), frames.shape[1], dtype=precise)
    summed = summed.index_add(0, row, frames[source].to(precise) * weight.to(precise)[:, None])

    ends = _ends(lower, upper, source, output, beta, lengths, per_frame)
    kept, counts, spans, at, seen = [], [], [], 0, 0
    begins = _offsets(lengths)
    for u, count in enumerate(fires):
        whole, rest = summed[at : at + count], summed[at + count : at + count + 1]
        utterance_ends = ends[seen : seen + count]
        at, seen = at + count + 1, seen + count
        left = mass[u] - beta * count
        length = ends.new_full((1,), float(lengths[u]))
        if count == 0 and at_least_one:
            if left.item() > 1e-6:
                rest = rest * (beta / left).to(precise)
            else:  # nothing to weigh the frames with: all count alike
                # Plus nothing: alpha and lambda stay in the graph, with a gradient of 0.
                rest = beta * frames[begins[u] : begins[u] + lengths[u]].to(precise).mean(0, keepdim=True) + 0 * rest
            whole, utterance_ends = rest, length
        elif tail == "partial" or (tail == "keep" and left.item() >= max(tail_threshold, 1e-6)):
            whole = torch.cat([whole, rest * (beta / left).to(precise) if tail == "keep" else rest])
            utterance_ends = torch.cat([utterance_ends, length])
        kept.append(whole)
        counts.append(len(whole))
        starts = torch.cat([utterance_ends.new_zeros(1), utterance_ends[:-1]])[: len(utterance_ends)]
        spans.append(torch.stack([starts, utterance_ends], dim=-1))
    return Fired(torch.cat(kept).to(frames.dtype), counts, torch.cat(spans), mass)


def without_nan(frames: Tensor, alpha: Tensor) -> tuple[Tensor, Tensor]:
    """Frames and weights; a frame whose weight is no number weighs 1 and is no number itself, so that nothing hides it.

    Example:
        >>> without_nan(torch.ones(2, 1), torch.tensor([float("nan"), 0.5]))[1].tolist()
        [1.0, 0.5]
    """
    known = alpha.isfinite()
    if bool(known.all()):
        return frames, alpha
    return frames.masked_fill(~known[..., None], float("nan")), alpha.masked_fill(~known, 1.0)


def _offsets(lengths: Sequence[int]) -> list[int]:
    """Begin of each of several pieces that lie end to end."""
    return [0, *accumulate(lengths)][: len(lengths)]


def _snapped(sums: Tensor, beta: float) -> Tensor:
    """Running sums, whole outputs being exactly whole: ten weights of 1.1 make 11 outputs, and rounding must not lose one."""
    whole = (sums.detach() / beta).round() * beta
    return torch.where((whole - sums.detach()).abs() < 1e-9, sums + (whole - sums).detach(), sums)


def _overlaps(lower: Tensor, upper: Tensor, beta: float) -> tuple[Tensor, Tensor, Tensor]:
    """Every overlap of a frame's interval with an output's: frame, output (within its utterance) and length.

    The bounds of outputs are constants, those of frames carry gradients; at a tie the frame's own bound is the one that
    counts, as in the original's arithmetic.
    """
    first = (lower.detach() / beta).floor().long()  # (N,) the output that each frame begins in
    last = (upper.detach() / beta).floor().long()  # and ends in
    counts = last - first + 1
    source = torch.repeat_interleave(counts)
    step = torch.arange(len(source), device=source.device) - (counts.cumsum(0) - counts)[source]
    output = first[source] + step
    begin = torch.where(step == 0, lower[source], beta * output)
    end = torch.where(step == counts[source] - 1, upper[source], beta * (output + 1))
    return source, output, end - begin


def _ends(
    lower: Tensor, upper: Tensor, source: Tensor, output: Tensor, beta: float, lengths: Sequence[int], per_frame: Tensor
) -> Tensor:
    """End of each output that fires, in frames of its utterance: a frame spends its mass evenly over its own time."""
    low, high = lower.detach()[source], upper.detach()[source]
    edge = beta * (output + 1)
    crosses = output < (high / beta).floor().long()  # the frame goes on beyond this output
    starts = torch.tensor(_offsets(lengths), device=source.device)
    index = source - starts[per_frame[source]]
    share = (edge - low) / (high - low).clamp_min(torch.finfo(low.dtype).tiny)
    return (index + share.clamp(0, 1))[crosses]


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
