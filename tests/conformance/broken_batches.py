"""Upstreams whose features depend on batch-mates, or whose frame counts are wrong."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from hubcore import UpstreamOutput
from tests.conformance.breaking import Edited, breaks, breaks_with
from tests.toys import KERNEL, ToyUpstream


class AcceptsFromKernel(ToyUpstream):
    """A toy that accepts what its convolution accepts, whatever `min_samples` says."""

    said: int

    def __init__(self) -> None:
        super().__init__()
        self.min_samples = self.said

    def check_input(self, wavs: Any, lengths: Any = None) -> list[Tensor]:
        self.min_samples = KERNEL
        try:
            return super().check_input(wavs, lengths)
        finally:
            self.min_samples = self.said


@breaks("min_samples", "min_samples is 50, but 49 samples gave 1 frames")
class NeedsLess(AcceptsFromKernel):
    said = 50


@breaks("min_samples", "min_samples is 30, but a clip of 30 samples is refused")
class NeedsMore(AcceptsFromKernel):
    said = 30


@breaks("min_samples", "40 samples give no frame")
class DropsLastFrame(Edited):
    def edit(self, output: UpstreamOutput) -> Any:
        return replace(output, lengths=output.lengths - 1)


@breaks("min_samples", "a clip of min_samples (40 samples): layer 0 (input) is not finite in 8 values")
class SpreadOverFrames(ToyUpstream):
    def frames(self, row: Tensor) -> Tensor:
        frames = super().frames(row)
        centred = frames - frames.mean(dim=0)
        return centred / (centred.square().sum(dim=0) / (len(frames) - 1)).sqrt()


@breaks("frame_counts", "frames in a batch")
class CountsPadding(Edited):
    def edit(self, output: UpstreamOutput) -> Any:
        return replace(output, lengths=torch.full_like(output.lengths, output.hidden_states[0].shape[1]))


@breaks("frame_counts", "40 samples gave 2 frames, but only 1 fit")
class RepeatsLastFrame(ToyUpstream):
    def frames(self, row: Tensor) -> Tensor:
        frames = super().frames(row)
        return torch.cat([frames, frames[-1:]])


@breaks("frame_counts", "fewer than the 1 of a shorter clip")
class SometimesLosesOne(ToyUpstream):
    def frames(self, row: Tensor) -> Tensor:
        frames = super().frames(row)
        return frames[:-1] if len(row) % 16 == 9 else frames


breaks_with("frame_counts", "expected 2: frame_stride is 8", frame_stride=8)


class Mixing(ToyUpstream):
    """A toy whose batch-mates can be mixed in before the convolution."""

    def forward(self, wavs: Any, lengths: Any = None, *, layers: Any = None) -> Any:
        return super().forward(self.mixed(self.check_input(wavs, lengths)), layers=layers)

    def mixed(self, rows: list[Tensor]) -> list[Tensor]:
        raise NotImplementedError


@breaks("batch_equals_alone", "different lengths, compared with each alone: utterance 0 (13 frames), layer 0 (input) differs")
class PaddedMoments(Mixing):
    """Mean and variance over a row and its padding, as group norm over a padded batch computes them."""

    def mixed(self, rows: list[Tensor]) -> list[Tensor]:
        longest = max(map(len, rows))
        power = [row.square().sum() / longest for row in rows]
        return [row / (p + 1e-5).sqrt() for row, p in zip(rows, power, strict=True)]


@breaks("batch_equals_alone", "equal lengths, compared with each alone")
class SharedScale(Mixing):
    def mixed(self, rows: list[Tensor]) -> list[Tensor]:
        same = len({len(row) for row in rows}) == 1
        return [row / torch.stack(rows).std() for row in rows] if same else [row / row.std() for row in rows]


@breaks("batch_equals_alone", "layer 2 (block_2) differs by")
class LeaksInLastBlock(Edited):
    def edit(self, output: UpstreamOutput) -> Any:
        *before, last = output.hidden_states
        return replace(output, hidden_states=(*before, last * (1 + 1e-4 * (len(output.lengths) - 1))))


@breaks("batch_equals_alone", "the layers are [1, 2] in 2 hidden states, expected [0, 1, 2] in 3")
class LosesLayerInBatch(Edited):
    def edit(self, output: UpstreamOutput) -> Any:
        if len(output.lengths) == 1:
            return output
        return replace(output, hidden_states=output.hidden_states[1:], layers=(1, 2), layer_names=output.layer_names[1:])


@breaks("batch_equals_alone", "layer 0 (input) has values that are not finite, first at frame 0. 2 more layers differ")
class NotFiniteInBatch(Edited):
    def edit(self, output: UpstreamOutput) -> Any:
        return output if len(output.lengths) == 1 else replace(output, hidden_states=_nan(output))


@breaks("batch_equals_alone", "has values that are not finite in the run that it is compared with")
class NotFiniteAlone(Edited):
    def edit(self, output: UpstreamOutput) -> Any:
        return output if len(output.lengths) > 1 else replace(output, hidden_states=_nan(output))


def _nan(output: UpstreamOutput) -> tuple[Tensor, ...]:
    return tuple(state * float("nan") for state in output.hidden_states)


@breaks("batch_equals_alone", "utterance 0 has 20 frames, expected 13")
class OneLengthForAll(CountsPadding):
    pass


@breaks("batch_order", "the batch in the order [3, 2, 1, 0]")
class FirstIsLouder(Mixing):
    def mixed(self, rows: list[Tensor]) -> list[Tensor]:
        return [rows[0] * 1.01, *rows[1:]]


@breaks("loud_mate", "next to a batch-mate 100 times louder")
class LimitsPeaksOfTheBatch(Mixing):
    def mixed(self, rows: list[Tensor]) -> list[Tensor]:
        peak = max(float(row.abs().max()) for row in rows)
        return [row / peak for row in rows] if peak > 1 else rows


@breaks("long_mate", "next to a batch-mate 10 times longer")
class CutsLongBatches(Mixing):
    def mixed(self, rows: list[Tensor]) -> list[Tensor]:
        return [row[:200] for row in rows] if max(map(len, rows)) > 2000 else rows


@breaks("silent_input", "a silent clip: layer 0 (input) is not finite in")
class DividesByPeak(Mixing):
    def mixed(self, rows: list[Tensor]) -> list[Tensor]:
        return [row / row.abs().max() for row in rows]

    def check_input(self, wavs: Any, lengths: Any = None) -> list[Tensor]:
        return list(wavs)


@breaks("silent_input", "next to a silent batch-mate")
class SilencedBySilence(Mixing):
    def mixed(self, rows: list[Tensor]) -> list[Tensor]:
        return rows if all(bool(row.any()) for row in rows) else [row * 0 for row in rows]


@breaks("tensor_form", "a (B, T) tensor with int64 lengths, compared with a list of waveforms: utterance 0 has 20 frames")
class IgnoresLengths(ToyUpstream):
    def forward(self, wavs: Any, lengths: Any = None, *, layers: Any = None) -> Any:
        return super().forward(wavs, None, layers=layers)


@breaks("tensor_form", "a (B, T) tensor with a list of lengths")
class IgnoresListOfLengths(ToyUpstream):
    def forward(self, wavs: Any, lengths: Any = None, *, layers: Any = None) -> Any:
        return super().forward(wavs, None if isinstance(lengths, list) else lengths, layers=layers)


@breaks("tensor_form", "a (B, T) tensor without lengths")
class TakesChannelsForRows(ToyUpstream):
    def forward(self, wavs: Any, lengths: Any = None, *, layers: Any = None) -> Any:
        if isinstance(wavs, Tensor) and lengths is None:
            wavs = wavs.mean(dim=0, keepdim=True).expand_as(wavs)
        return super().forward(wavs, lengths, layers=layers)
