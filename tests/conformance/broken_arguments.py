"""Upstreams that misread layers, or accept what they must refuse."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from hubcore import UpstreamOutput
from hubcore.errors import AudioError
from hubcore.ragged import check_wavs
from tests.conformance.breaking import Edited, as_kind, breaks
from tests.toys import BLOCKS, ToyUpstream


@breaks("layer_selection", "layers=[0] gave 3 hidden states said to be layers [0, 1, 2], expected [0]")
class IgnoresLayers(ToyUpstream):
    def check_layers(self, layers: Any) -> tuple[int, ...]:
        return super().check_layers(None)


@breaks("layer_selection", "layers=[2, 0] gave 2 hidden states said to be layers [0, 2], expected [2, 0]")
class SortsLayers(ToyUpstream):
    def check_layers(self, layers: Any) -> tuple[int, ...]:
        return tuple(sorted(super().check_layers(layers)))


@breaks("layer_selection", "layers=[2], compared with all layers: utterance 0, layer 2 (block_2) differs by")
class SkipsFinalNorm(ToyUpstream):
    """The last norm is left out as soon as layers are chosen, as in fairseq's `extract_features(layer=)`."""

    def forward(self, wavs: Any, lengths: Any = None, *, layers: Any = None) -> Any:
        output = super().forward(wavs, lengths, layers=layers)
        if layers is not None:
            return output
        *before, last = output.hidden_states
        return replace(output, hidden_states=(*before, nn.functional.layer_norm(last, last.shape[-1:])))


@breaks("layer_selection", "layers=[0] gave the names ('input', 'block_1', 'block_2')")
class NamesAllLayers(ToyUpstream):
    def forward(self, wavs: Any, lengths: Any = None, *, layers: Any = None) -> Any:
        return replace(super().forward(wavs, lengths, layers=layers), layer_names=self.layer_names)


@breaks("layer_selection", "layers=[-1] gave 1 hidden state said to be layers [-1], expected [2]")
class KeepsNegative(ToyUpstream):
    def forward(self, wavs: Any, lengths: Any = None, *, layers: Any = None) -> Any:
        return replace(super().forward(wavs, lengths, layers=layers), layers=tuple(layers or range(BLOCKS + 1)))


@breaks("layer_selection", "layers=[0] gave lengths [12, 5, 19], expected [13, 6, 20]")
class OtherLengthsForSomeLayers(ToyUpstream):
    def forward(self, wavs: Any, lengths: Any = None, *, layers: Any = None) -> Any:
        output = super().forward(wavs, lengths, layers=layers)
        return output if layers is None else replace(output, lengths=output.lengths - 1)


class LastIsLast(UpstreamOutput):
    @property
    def last_hidden_state(self) -> Tensor:
        return self.hidden_states[-1]


@breaks("layer_selection", "layers=[2, 0]: last_hidden_state is not layer 2, the deepest one asked for")
class TakesLastForDeepest(Edited):
    def edit(self, output: UpstreamOutput) -> Any:
        return as_kind(LastIsLast, output)


@breaks("layers_stop_early", "layers=[0] ran block 2 of 2 (ToyBlock), but layer 0 is the input of block 1")
class RunsEveryBlock(ToyUpstream):
    def states(self, row: Tensor, deepest: int) -> list[Tensor]:
        return super().states(row, BLOCKS)


@breaks("layers_stop_early", "layers=[1] ran block 2 of 2 (ToyBlock), but layer 1 is the output of block 1")
class RunsOneTooMany(ToyUpstream):
    def states(self, row: Tensor, deepest: int) -> list[Tensor]:
        return super().states(row, deepest + (deepest > 0))


@breaks("layers_stop_early", "block 1 ran although its output was not asked for")
class RunsEverySequentialBlock(RunsEveryBlock):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*self.blocks)


@breaks("layers_stop_early", "block 2 ran although its output was not asked for")
class RunsOneSequentialBlockTooMany(RunsOneTooMany):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*self.blocks)


@breaks("bad_layers", "layers=[3] was accepted, expected OptionError")
class ClampsLayers(ToyUpstream):
    def check_layers(self, layers: Any) -> tuple[int, ...]:
        return super().check_layers([max(-3, min(2, layer)) for layer in layers])


@breaks("bad_layers", "layers=[3] raised IndexError")
class IndexesBlindly(ToyUpstream):
    def check_layers(self, layers: Any) -> tuple[int, ...]:
        return tuple(range(BLOCKS + 1)[layer] for layer in layers)


@breaks("bad_layers", "layers=[] was accepted")
class TakesNoneForAll(ToyUpstream):
    def check_layers(self, layers: Any) -> tuple[int, ...]:
        return super().check_layers(layers or None)


@breaks("unknown_keyword", "the keyword no_such_option was accepted")
class SwallowsKeywords(ToyUpstream):
    def forward(self, wavs: Any, lengths: Any = None, *, layers: Any = None, **options: Any) -> Any:
        return super().forward(wavs, lengths, layers=layers)


class Lenient(ToyUpstream):
    """A toy that repairs waveforms before they are checked."""

    def check_input(self, wavs: Any, lengths: Any = None) -> list[Tensor]:
        if isinstance(wavs, Tensor) and lengths is not None:
            wavs = [row[: int(n)] for row, n in zip(wavs, lengths, strict=False)]
        return super().check_input([self.repaired(wav) for wav in wavs])

    def repaired(self, wav: Tensor) -> Tensor:
        return wav


@breaks("rejects_short", "a waveform of 39 samples as item 3 of a batch was accepted, expected AudioError")
class PadsShortOnes(Lenient):
    def repaired(self, wav: Tensor) -> Tensor:
        return nn.functional.pad(wav, (0, max(0, self.min_samples - len(wav))))


@breaks("rejects_short", "the AudioError does not name item 3. It says: too short")
class NamesNothing(ToyUpstream):
    def check_input(self, wavs: Any, lengths: Any = None) -> list[Tensor]:
        if any(len(wav) < self.min_samples for wav in wavs):
            raise AudioError("too short")
        return super().check_input(wavs, lengths)


@breaks("rejects_short", "raised RuntimeError")
class CrashesInConvolution(ToyUpstream):
    def check_input(self, wavs: Any, lengths: Any = None) -> list[Tensor]:
        return list(wavs)


@breaks("rejects_nonfinite", "a waveform whose first sample is nan as item 3 of a batch was accepted")
class TakesNanForZero(Lenient):
    def repaired(self, wav: Tensor) -> Tensor:
        return wav.nan_to_num()


@breaks("rejects_nonfinite", "a waveform whose last sample is nan as item 3 of a batch was accepted")
class LooksAtFirstSample(ToyUpstream):
    def check_input(self, wavs: Any, lengths: Any = None) -> list[Tensor]:
        if any(not bool(wav[0].isfinite()) for wav in wavs):
            return super().check_input(wavs, lengths)
        return list(wavs)


@breaks("rejects_shape", "a waveform of shape (1, T) as item 3 of a batch was accepted")
class SqueezesItems(Lenient):
    def repaired(self, wav: Tensor) -> Tensor:
        return wav.squeeze()


@breaks("rejects_shape", "a bare 1-D tensor was accepted")
class WrapsBareWaveform(ToyUpstream):
    def check_input(self, wavs: Any, lengths: Any = None) -> list[Tensor]:
        return super().check_input([wavs] if isinstance(wavs, Tensor) and wavs.ndim == 1 else wavs, lengths)


@breaks("rejects_shape", "an empty list raised IndexError")
class TrustsFirstItem(ToyUpstream):
    def check_input(self, wavs: Any, lengths: Any = None) -> list[Tensor]:
        wavs[0]
        return super().check_input(wavs, lengths)


@breaks("rejects_dtype", "a waveform of dtype torch.int16 as item 3 of a batch was accepted")
class TakesIntegers(Lenient):
    def repaired(self, wav: Tensor) -> Tensor:
        return wav.float()


@breaks("rejects_lengths", "one length too few was accepted")
class IgnoresMissingLengths(Lenient):
    pass


@breaks("rejects_lengths", "a length beyond T was accepted")
class ClampsLengths(ToyUpstream):
    def check_input(self, wavs: Any, lengths: Any = None) -> list[Tensor]:
        if isinstance(lengths, Tensor) and len(lengths) == len(wavs):
            lengths = lengths.clamp(max=wavs.shape[1])
        return super().check_input(wavs, lengths)


@breaks("rejects_lengths", "a negative length was accepted")
class CountsLengthsFromTheEnd(ToyUpstream):
    def check_input(self, wavs: Any, lengths: Any = None) -> list[Tensor]:
        if isinstance(lengths, Tensor):
            lengths = torch.where(lengths < 0, wavs.shape[1] + lengths, lengths)
        return super().check_input(wavs, lengths)


@breaks("rejects_lengths", "a row shorter than min_samples was accepted")
class AcceptsShortRows(ToyUpstream):
    def check_input(self, wavs: Any, lengths: Any = None) -> list[Tensor]:
        rows = check_wavs(wavs, lengths, min_samples=1, sample_rate=self.sample_rate)
        return [nn.functional.pad(row, (0, max(0, self.min_samples - len(row)))) for row in rows]
