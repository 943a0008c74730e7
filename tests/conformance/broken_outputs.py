"""Upstreams whose attributes or outputs break the contract."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from hubcore import UpstreamOutput
from tests.conformance.breaking import Edited, as_kind, breaks, breaks_with
from tests.toys import ToyUpstream

breaks_with("attributes", "hidden_sizes has 2 entries, but layer_names has 3", hidden_sizes=(8, 8))
breaks_with("attributes", "hidden_sizes is '8'", hidden_sizes="8")
breaks_with("attributes", "block_1 more than once", layer_names=("input", "block_1", "block_1"))
breaks_with("attributes", "layer_names is ['input', 'a', 'b']", layer_names=["input", "a", "b"])
breaks_with("attributes", "frame_stride is 16.0", frame_stride=16.0)
breaks_with("attributes", "sample_rate is 0", sample_rate=0)
breaks_with("attributes", "num_layers is 9", num_layers=9)
breaks_with("attributes", "card is a str", card="toy")


@breaks("attributes", "NoCard is no Upstream: it lacks card")
class NoCard(ToyUpstream):
    def __init__(self) -> None:
        super().__init__()
        del self.card


@breaks("output_types", "the call returned a dict")
class ReturnsDict(Edited):
    def edit(self, output: UpstreamOutput) -> Any:
        return dict(output)


@breaks("output_types", "hidden_states is a list")
class ReturnsList(Edited):
    def edit(self, output: UpstreamOutput) -> Any:
        return replace(output, hidden_states=list(output.hidden_states))


@breaks("output_types", "expected (3, F, 8)")
class FramesFirst(Edited):
    def edit(self, output: UpstreamOutput) -> Any:
        return replace(output, hidden_states=tuple(state.transpose(0, 1) for state in output.hidden_states))


@breaks("output_types", "layer 1 (block_1) has 19 frames, but layer 0 has 20")
class LosesFrame(Edited):
    def edit(self, output: UpstreamOutput) -> Any:
        first, second, third = output.hidden_states
        return replace(output, hidden_states=(first, second[:, 1:], third))


@breaks("output_types", "2 hidden states came back, but layer_names has 3")
class LosesInput(Edited):
    def edit(self, output: UpstreamOutput) -> Any:
        return replace(output, hidden_states=output.hidden_states[1:])


@breaks("output_types", "is torch.int64, expected a float tensor")
class RoundsAway(Edited):
    def edit(self, output: UpstreamOutput) -> Any:
        return replace(output, hidden_states=tuple(state.long() for state in output.hidden_states))


@breaks("output_types", "the output's layer_names are ('a', 'b', 'c')")
class OtherNames(Edited):
    def edit(self, output: UpstreamOutput) -> Any:
        return replace(output, layer_names=("a", "b", "c"))


@breaks("output_types", "layers is (1, 2, 3)")
class CountsLayersFromOne(Edited):
    def edit(self, output: UpstreamOutput) -> Any:
        return replace(output, layers=(1, 2, 3))


class FirstAsLast(UpstreamOutput):
    @property
    def last_hidden_state(self) -> Tensor:
        return self.hidden_states[0]


@breaks("output_types", "last_hidden_state is not the last")
class ReturnsFirstAsLast(Edited):
    def edit(self, output: UpstreamOutput) -> Any:
        return as_kind(FirstAsLast, output)


class ShyOutput(UpstreamOutput):
    def __iter__(self) -> Any:
        return (key for key in super().__iter__() if key != "hidden_state_1")


@breaks("mapping", "the key 'hidden_state_1' is missing")
class LosesKey(Edited):
    def edit(self, output: UpstreamOutput) -> Any:
        return as_kind(ShyOutput, output)


class OffByOneOutput(UpstreamOutput):
    def __getitem__(self, key: str) -> Any:
        return self.hidden_states[int(key[-1]) - 1] if key.startswith("hidden_state_") else super().__getitem__(key)


@breaks("mapping", "output['hidden_state_0'] is not the tensor")
class CountsKeysFromOne(Edited):
    def edit(self, output: UpstreamOutput) -> Any:
        return as_kind(OffByOneOutput, output)


class BottomlessOutput(UpstreamOutput):
    def __contains__(self, key: object) -> bool:
        return str(key).startswith("hidden_state_") or super().__contains__(key)


@breaks("mapping", "the output has 'hidden_state_3', though its last layer is 2")
class HasAnyLayer(Edited):
    def edit(self, output: UpstreamOutput) -> Any:
        return as_kind(BottomlessOutput, output)


@breaks("lengths", "lengths is torch.int32 of shape (3,)")
class ShortInts(Edited):
    def edit(self, output: UpstreamOutput) -> Any:
        return replace(output, lengths=output.lengths.int())


@breaks("lengths", "lengths[2] is 21, but the hidden states have 20 frames")
class OneFrameTooMany(Edited):
    def edit(self, output: UpstreamOutput) -> Any:
        return replace(output, lengths=output.lengths + 1)


class AllValidOutput(UpstreamOutput):
    @property
    def mask(self) -> Tensor:
        return torch.ones_like(super().mask)


@breaks("lengths", "mask marks 20 frames of utterance 0, expected 13")
class ForgetsMask(Edited):
    def edit(self, output: UpstreamOutput) -> Any:
        return as_kind(AllValidOutput, output)


class FloatMaskOutput(UpstreamOutput):
    @property
    def mask(self) -> Tensor:
        return super().mask.float()


@breaks("lengths", "mask is torch.float32")
class FloatMask(Edited):
    def edit(self, output: UpstreamOutput) -> Any:
        return as_kind(FloatMaskOutput, output)


@breaks("featurizer", "padded() does not hold the features of utterance 0 and zeros beyond them")
@breaks("padding_is_zero", "layer 0 (input), utterance 0: values up to 1e-30 beyond its 13 frames")
class FillsPadding(Edited):
    def edit(self, output: UpstreamOutput) -> Any:
        for state in output.hidden_states:
            state.masked_fill_(~output.mask[..., None], 1e-30)
        return output


def retimed(words: str, edit: Callable[[Tensor], Tensor]) -> None:
    """Registers a toy whose frame times are edited; those of padding stay 0."""

    class Retimed(Edited):
        def edit(self, output: UpstreamOutput) -> Any:
            return replace(output, times=edit(output.times) * output.mask[..., None])

    breaks("frame_times", words)(Retimed)


retimed("is not one frame stride (0.0010 s) after the frame in front", lambda times: times * 0.9)
retimed("ends after the audio, which lasts", lambda times: times + 0.02)
retimed("starts before the audio", lambda times: times - 0.02)
retimed("does not end after it starts", lambda times: times.flip(-1))
retimed("frame 1 starts before the frame in front", lambda times: times[:, [1, 0, *range(2, times.shape[1])]])
retimed("covers the same audio", lambda times: times[:, :1].expand_as(times))


@breaks("frame_times", "frame_times() has shape (1, 20, 2), expected (3, 20, 2)")
class TimesOfOneRow(Edited):
    def edit(self, output: UpstreamOutput) -> Any:
        return replace(output, times=output.times[:1])


@breaks("frame_times", "frame_times() of utterance 0 is not 0 beyond its 13 frames")
class TimesOfPadding(Edited):
    def edit(self, output: UpstreamOutput) -> Any:
        return replace(output, times=output.times[output.lengths.argmax()].expand_as(output.times))


@breaks("frame_times", "is centred outside the audio")
class CentredOutside(Edited):
    """It says that it pads, so its windows may overhang, but not by more than half."""

    def __init__(self) -> None:
        super().__init__()
        self.min_samples = 39

    def edit(self, output: UpstreamOutput) -> Any:
        return replace(output, times=(output.times - 0.0024) * output.mask[..., None])

    def check_input(self, wavs: Any, lengths: Any = None) -> list[Tensor]:
        return [*wavs]


@breaks("extras", "extras has the key 'hidden_state_0', which already means")
class HidesALayer(Edited):
    def edit(self, output: UpstreamOutput) -> Any:
        return replace(output, extras={"hidden_state_0": output.lengths})


@breaks("extras", "extras has the key 0")
class NumbersExtras(Edited):
    def edit(self, output: UpstreamOutput) -> Any:
        return replace(output, extras={0: output.lengths})


@breaks("extras", "extras['alpha'] is on meta")
class ExtrasElsewhere(Edited):
    def edit(self, output: UpstreamOutput) -> Any:
        return replace(output, extras={"alpha": output.lengths.to("meta")})


@breaks("extras", "extras is a list")
class ListOfExtras(Edited):
    def edit(self, output: UpstreamOutput) -> Any:
        return replace(output, extras=[output.lengths])
