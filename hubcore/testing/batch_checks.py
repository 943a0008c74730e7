"""Checks of promise 1: an utterance's frames and values depend on nothing but its own samples.

Shapes: `B` batch, `T` samples, `F` frames.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hubcore.errors import AudioError
from hubcore.protocol import Upstream, UpstreamOutput
from hubcore.testing.compare import BATCH_TOLERANCE, evaluating, expect_finite, expect_same_utterance
from hubcore.testing.inputs import PEAK, clip, clips, frame_unit

LOUD = 100.0
"""Factor by which the loud batch-mate is louder."""
LONG = 10
"""Factor by which the long batch-mate is longer."""


def _alone(upstream: Upstream, wavs: Sequence[Tensor]) -> list[UpstreamOutput]:
    return [upstream([wav]) for wav in wavs]


def check_min_samples(upstream: Upstream) -> None:
    """`min_samples` samples give a frame with finite values; one sample fewer is an `AudioError`."""
    fewest = upstream.min_samples
    with evaluating(upstream), torch.no_grad():
        try:
            output = upstream([clip(upstream, fewest)])
        except AudioError as error:
            raise AssertionError(f"min_samples is {fewest}, but a clip of {fewest} samples is refused: {error}") from error
        if int(output.lengths[0]) < 1:
            raise AssertionError(f"min_samples is {fewest}, but {fewest} samples give no frame.")
        expect_finite(output, what=f"a clip of min_samples ({fewest} samples)")
        try:
            shorter = upstream([clip(upstream, fewest - 1)])
        except AudioError:
            return
    raise AssertionError(
        f"min_samples is {fewest}, but {fewest - 1} samples gave {int(shorter.lengths[0])} frames, expected an AudioError."
    )


def check_frame_counts(upstream: Upstream) -> None:
    """Frame counts are exact: the same alone and in a batch, one more for each stride, never more than what fits."""
    samples = _edge_lengths(upstream)
    with evaluating(upstream), torch.no_grad():
        wavs = [clip(upstream, count, seed=index) for index, count in enumerate(samples)]
        together = upstream(wavs).lengths.tolist()
        alone = [int(output.lengths[0]) for output in _alone(upstream, wavs)]
    for index, count in enumerate(samples):
        if together[index] != alone[index]:
            raise AssertionError(
                f"utterance {index} of {count} samples has {together[index]} frames in a batch, {alone[index]} alone."
            )
    if upstream.frame_stride is not None:
        _expect_arithmetic(upstream, upstream.frame_stride, dict(zip(samples, alone, strict=True)))


def _edge_lengths(upstream: Upstream) -> list[int]:
    unit, field = frame_unit(upstream), upstream.receptive_field
    edges = {upstream.min_samples, field, field + unit, field + 2 * unit, 2 * unit, 5 * unit, 6 * unit}
    near = {edge + shift for edge in edges for shift in (-1, 0, 1)}
    # Every length is tried one stride later too, where a fixed-rate upstream has exactly one frame more.
    return sorted(n for n in near | {n + unit for n in near} if n >= upstream.min_samples)


def _expect_arithmetic(upstream: Upstream, stride: int, frames: dict[int, int]) -> None:
    # Without padding the first frame needs the whole receptive field; an upstream that pads can start one at any stride.
    padded = upstream.min_samples < upstream.receptive_field
    before = 0
    for samples, count in frames.items():
        fitting = samples // stride + 1 if padded else (samples - upstream.receptive_field) // stride + 1
        if count > fitting:
            raise AssertionError(
                f"{samples} samples gave {count} frames, but only {fitting} fit: receptive_field is "
                f"{upstream.receptive_field}, frame_stride {stride}, min_samples {upstream.min_samples}."
            )
        if count < before:
            raise AssertionError(f"{samples} samples gave {count} frames, fewer than the {before} of a shorter clip.")
        later = frames.get(samples + stride)
        if later is not None and later != count + 1:
            raise AssertionError(
                f"{samples} samples gave {count} frames and {samples + stride} samples gave {later}, expected {count + 1}: "
                f"frame_stride is {stride}, so that many samples more are one frame more."
            )
        before = count


def check_batch_equals_alone(upstream: Upstream, *, tolerance: float = BATCH_TOLERANCE) -> None:
    """An utterance has the same frames in a batch as alone, whether the batch's lengths differ or not."""
    with evaluating(upstream), torch.no_grad():
        for name, wavs in (("different", clips(upstream, (12, 5, 19, 8))), ("equal", _equal_clips(upstream))):
            output = upstream(wavs)
            for row, alone in enumerate(_alone(upstream, wavs)):
                what = f"a batch of {len(wavs)} utterances of {name} lengths, compared with each alone"
                expect_same_utterance(output, row, alone, 0, what=what, tolerance=tolerance)


def _equal_clips(upstream: Upstream) -> list[Tensor]:
    samples = upstream.min_samples + 9 * frame_unit(upstream) + 1
    return [clip(upstream, samples, seed=seed) for seed in (11, 12, 13)]


def check_batch_order(upstream: Upstream, *, tolerance: float = BATCH_TOLERANCE) -> None:
    """Another order of the batch gives the same frames in that order."""
    with evaluating(upstream), torch.no_grad():
        wavs = clips(upstream, (12, 5, 19, 8))
        want = upstream(wavs)
        for order in ([3, 2, 1, 0], [1, 3, 0, 2]):
            output = upstream([wavs[row] for row in order])
            for row, source in enumerate(order):
                what = f"the batch in the order {order}, compared with the order [0, 1, 2, 3]"
                expect_same_utterance(output, row, want, source, what=what, tolerance=tolerance)


def _expect_same_beside(upstream: Upstream, mate: Tensor, *, what: str, tolerance: float) -> None:
    wavs = clips(upstream, (12, 5))
    batch = [wavs[0], mate, wavs[1]]
    with evaluating(upstream), torch.no_grad():
        output = upstream(batch)
        for row, alone in zip((0, 2), _alone(upstream, wavs), strict=True):
            expect_same_utterance(output, row, alone, 0, what=what, tolerance=tolerance)


def check_loud_mate(upstream: Upstream, *, tolerance: float = BATCH_TOLERANCE) -> None:
    """A batch-mate a hundred times louder changes nothing."""
    mate = clip(upstream, upstream.min_samples + 9 * frame_unit(upstream) + 2, seed=21) * LOUD
    what = f"next to a batch-mate {LOUD:g} times louder (utterance 1), compared with alone"
    _expect_same_beside(upstream, mate, what=what, tolerance=tolerance)


def check_long_mate(upstream: Upstream, *, tolerance: float = BATCH_TOLERANCE) -> None:
    """A batch-mate ten times longer changes nothing."""
    mate = clip(upstream, LONG * (upstream.min_samples + 12 * frame_unit(upstream)), seed=22)
    what = f"next to a batch-mate {LONG} times longer (utterance 1), compared with alone"
    _expect_same_beside(upstream, mate, what=what, tolerance=tolerance)


def check_silent_input(upstream: Upstream, *, tolerance: float = BATCH_TOLERANCE) -> None:
    """A clip of zeros gives finite values and changes nothing for its batch-mates."""
    silence = torch.zeros_like(clip(upstream, upstream.min_samples + 9 * frame_unit(upstream) + 2))
    with evaluating(upstream), torch.no_grad():
        expect_finite(upstream([silence]), what="a silent clip")
    what = "next to a silent batch-mate (utterance 1), compared with alone"
    _expect_same_beside(upstream, silence, what=what, tolerance=tolerance)


def check_tensor_form(upstream: Upstream, *, tolerance: float = BATCH_TOLERANCE) -> None:
    """A `(B, T)` tensor with `lengths` gives what the list gives, whatever lies beyond the lengths."""
    with evaluating(upstream), torch.no_grad():
        wavs = clips(upstream)
        want = upstream(wavs)
        counts = [len(wav) for wav in wavs]
        padded = torch.stack([clip(upstream, max(counts), seed=30 + row) for row in range(len(wavs))]) * (1 / PEAK)
        for row, wav in enumerate(wavs):
            padded[row, : len(wav)] = wav
        equal = _equal_clips(upstream)
        forms = [
            ("a (B, T) tensor with int64 lengths", upstream(padded, torch.tensor(counts, device=padded.device)), want),
            ("a (B, T) tensor with a list of lengths", upstream(padded, counts), want),
            ("a tuple of waveforms", upstream(tuple(wavs)), want),
            ("a (B, T) tensor without lengths", upstream(torch.stack(equal)), upstream(equal)),
        ]
    for form, output, expected in forms:
        for row in range(len(expected.lengths)):
            what = f"{form}, compared with a list of waveforms"
            expect_same_utterance(output, row, expected, row, what=what, tolerance=tolerance)
