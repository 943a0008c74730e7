"""Every check goes red, with the right words, on an upstream that is broken in exactly the property it proves."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from types import MappingProxyType
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from toy import STRIDE, WIDTH, ToyBlock, ToyUpstream

from hubcore import UpstreamOutput
from hubcore.errors import AudioError
from hubcore.testing import CHECKS

BROKEN: dict[str, list[tuple[Callable[[], Any], str]]] = {}


def breaks(check: str, words: str) -> Callable[[Any], Any]:
    """Registers an upstream (or a factory) that must turn `check` red, with `words` in its message."""

    def register(make: Any) -> Any:
        BROKEN.setdefault(check, []).append((make, words))
        return make

    return register


def changed(words_of: str, check: str, **attributes: Any) -> None:
    """Registers a toy with other attributes."""

    def make() -> ToyUpstream:
        toy = ToyUpstream()
        for name, value in attributes.items():
            setattr(toy, name, value)
        return toy

    make.__name__ = "toy_with_" + "_".join(attributes)
    breaks(check, words_of)(make)


class Edited(ToyUpstream):
    """A toy whose finished output is edited."""

    def forward(self, wavs: Any, lengths: Any = None, *, layers: Any = None) -> Any:
        return self.edit(super().forward(wavs, lengths, layers=layers))

    def edit(self, output: UpstreamOutput) -> Any:
        raise NotImplementedError


# Attributes ---------------------------------------------------------------------------------------------------------

changed("layer_names has 3", "attributes", hidden_sizes=(8, 8))
changed("block_1 more than once", "attributes", layer_names=("input", "block_1", "block_1"))
changed("frame_stride is 16.0", "attributes", frame_stride=16.0)
changed("num_layers is 9", "attributes", num_layers=9)
changed("card is a str", "attributes", card="toy")
changed("layer_names is ['a']", "attributes", layer_names=["a"])


@breaks("attributes", "it lacks card")
class NoCard(ToyUpstream):
    def __init__(self) -> None:
        super().__init__()
        del self.card


# Output -------------------------------------------------------------------------------------------------------------


@breaks("output_types", "returned a dict")
class ReturnsDict(Edited):
    def edit(self, output: UpstreamOutput) -> Any:
        return dict(output)


@breaks("output_types", "hidden_states is a list")
class ReturnsList(Edited):
    def edit(self, output: UpstreamOutput) -> Any:
        return dataclasses.replace(output, hidden_states=list(output.hidden_states))


@breaks("output_types", "expected (3, F, 8)")
class FramesFirst(Edited):
    def edit(self, output: UpstreamOutput) -> Any:
        return dataclasses.replace(output, hidden_states=tuple(s.transpose(0, 1) for s in output.hidden_states))


@breaks("output_types", "2 hidden states came back, but layer_names has 3")
class LosesInput(Edited):
    def edit(self, output: UpstreamOutput) -> Any:
        return dataclasses.replace(output, hidden_states=output.hidden_states[1:])


@breaks("output_types", "the output's layer_names")
class OtherNames(Edited):
    def edit(self, output: UpstreamOutput) -> Any:
        return dataclasses.replace(output, layer_names=("a", "b", "c"))


class ShyOutput(UpstreamOutput):
    """An output whose keys lack one layer."""

    def __iter__(self) -> Any:
        return (key for key in super().__iter__() if key != "hidden_state_1")


@breaks("mapping", "the key 'hidden_state_1' is missing")
class LosesKey(Edited):
    def edit(self, output: UpstreamOutput) -> Any:
        return ShyOutput(**{f.name: getattr(output, f.name) for f in dataclasses.fields(output)})


class OffByOneOutput(UpstreamOutput):
    """An output that counts its layers from 1."""

    def __getitem__(self, key: str) -> Any:
        return self.hidden_states[int(key[-1]) - 1] if key.startswith("hidden_state_") else super().__getitem__(key)


@breaks("mapping", "output['hidden_state_0'] is not the tensor")
class CountsFromOne(Edited):
    def edit(self, output: UpstreamOutput) -> Any:
        return OffByOneOutput(**{f.name: getattr(output, f.name) for f in dataclasses.fields(output)})


@breaks("lengths", "lengths is torch.int32")
class ShortInts(Edited):
    def edit(self, output: UpstreamOutput) -> Any:
        return dataclasses.replace(output, lengths=output.lengths.int())


@breaks("lengths", "lengths[2] is")
class OneFrameTooMany(Edited):
    def edit(self, output: UpstreamOutput) -> Any:
        return dataclasses.replace(output, lengths=output.lengths + 1)


class AllValidOutput(UpstreamOutput):
    """An output whose mask forgets the padding."""

    @property
    def mask(self) -> Tensor:
        return torch.ones_like(super().mask)


@breaks("lengths", "mask marks")
class ForgetsMask(Edited):
    def edit(self, output: UpstreamOutput) -> Any:
        return AllValidOutput(**{f.name: getattr(output, f.name) for f in dataclasses.fields(output)})


@breaks("padding_is_zero", "layer 1 (block_1), utterance 1: values up to 0.001")
class FillsPadding(Edited):
    def edit(self, output: UpstreamOutput) -> Any:
        output.hidden_states[1][~output.mask] = 1e-3
        return output


def retimed(words: str, edit: Callable[[Tensor], Tensor]) -> None:
    """Registers a toy whose frame times are edited, padding left at 0."""

    class Retimed(Edited):
        def edit(self, output: UpstreamOutput) -> Any:
            return dataclasses.replace(output, times=edit(output.times) * output.mask[..., None])

    breaks("frame_times", words)(Retimed)


retimed("one frame stride", lambda times: times * 0.999)
retimed("ends after the audio", lambda times: times + 0.02)
retimed("starts before the audio", lambda times: times - 0.02)
retimed("does not end after it starts", lambda times: times.flip(-1))
retimed("starts before the frame in front", lambda times: times.flip(1) + 1e-9)
retimed("covers the same audio", lambda times: times[:, :1].expand_as(times))


@breaks("frame_times", "expected (3,")
class TimesOfOneRow(Edited):
    def edit(self, output: UpstreamOutput) -> Any:
        return dataclasses.replace(output, times=output.times[:1])


@breaks("frame_times", "is not 0 beyond")
class TimesOfPadding(Edited):
    def edit(self, output: UpstreamOutput) -> Any:
        return dataclasses.replace(output, times=output.times[output.lengths.argmax()].expand_as(output.times))


@breaks("extras", "already means a part")
class HidesALayer(Edited):
    def edit(self, output: UpstreamOutput) -> Any:
        return dataclasses.replace(output, extras={"hidden_state_0": output.lengths})


@breaks("extras", "extras['alpha'] is on meta")
class ExtrasElsewhere(Edited):
    def edit(self, output: UpstreamOutput) -> Any:
        return dataclasses.replace(output, extras={"alpha": output.lengths.to("meta")})


@breaks("extras", "extras is a list")
class ListOfExtras(Edited):
    def edit(self, output: UpstreamOutput) -> Any:
        return dataclasses.replace(output, extras=[1])


# Frame counts -------------------------------------------------------------------------------------------------------

changed("expected an AudioError", "min_samples", min_samples=56)


@breaks("min_samples", "are not finite")
class SpreadOfOneFrame(ToyUpstream):
    def frames(self, row: Tensor) -> Tensor:
        frames = super().frames(row)
        return frames / frames.detach().std(dim=0).clamp_min(1e-3)


changed("expected an AudioError", "min_samples", min_samples=41)
BROKEN["min_samples"].pop()


class LooseLimits(ToyUpstream):
    """A toy that computes shorter clips than it says it does."""

    def check_input(self, wavs: Any, lengths: Any = None) -> list[Tensor]:
        self.min_samples, told = 40, self.min_samples
        try:
            return super().check_input(wavs, lengths)
        finally:
            self.min_samples = told


@breaks("min_samples", "41 samples, but")
class Unused(LooseLimits):
    pass


BROKEN["min_samples"] = BROKEN["min_samples"][1:2]


@breaks("min_samples", "gave 1 frames, expected an AudioError")
class SaysTooMuch(LooseLimits):
    def __init__(self) -> None:
        super().__init__()
        self.min_samples = 50
