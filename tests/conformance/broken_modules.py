"""Upstreams that do not survive being called twice, moved, copied, saved or trained."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from hubcore import UpstreamOutput
from tests.conformance.breaking import Edited, breaks
from tests.toys import WIDTH, Energies, ToyUpstream


def scaled(output: UpstreamOutput, factor: Any) -> UpstreamOutput:
    """The output with every hidden state multiplied."""
    return replace(output, hidden_states=tuple(state * factor for state in output.hidden_states))


@breaks("determinism", "a second call in eval mode, compared with the first: utterance 0 (13 frames), layer 0 (input)")
class Jitters(Edited):
    def edit(self, output: UpstreamOutput) -> Any:
        return scaled(output, 1 + 1e-3 * torch.rand(()))


@breaks("determinism", "a second call in eval mode, compared with the first: 2 utterances came back, expected 3")
class TiresOfCalls(Edited):
    calls = 0

    def edit(self, output: UpstreamOutput) -> Any:
        self.calls += 1
        return output if self.calls < 3 else replace(output, lengths=output.lengths[:-1])


@breaks("determinism", "layer 0 (input) of an earlier output was changed by a later call")
class ReusesBuffer(Edited):
    def __init__(self) -> None:
        super().__init__()
        self.kept: list[Tensor] = []

    def edit(self, output: UpstreamOutput) -> Any:
        if not self.kept:
            self.kept = [state.detach() for state in output.hidden_states]
        for kept, state in zip(self.kept, output.hidden_states, strict=True):
            if kept.shape == state.shape:
                kept.copy_(state)
        return replace(output, hidden_states=tuple(self.kept))


@breaks("inputs_unchanged", "item 0 of the list was changed in place by the call")
class NormalisesInPlace(ToyUpstream):
    def prepared(self, rows: list[Tensor]) -> list[Tensor]:
        return [row.div_(row.std()) for row in rows]


@breaks("inputs_unchanged", "the (B, T) tensor was changed in place")
class ZeroesPaddingInPlace(ToyUpstream):
    def forward(self, wavs: Any, lengths: Any = None, *, layers: Any = None) -> Any:
        if isinstance(wavs, Tensor) and lengths is not None:
            for row, count in zip(wavs, lengths, strict=True):
                row[int(count) :] = 0
        return super().forward(wavs, lengths, layers=layers)


@breaks("inputs_unchanged", "put other objects into the caller's list")
class SortsCallersList(ToyUpstream):
    def forward(self, wavs: Any, lengths: Any = None, *, layers: Any = None) -> Any:
        if isinstance(wavs, list):
            wavs.sort(key=len)
        return super().forward(wavs, lengths, layers=layers)


@breaks("strided_input", "waveforms that are strided views, compared with contiguous ones")
class AssumesContiguous(ToyUpstream):
    def prepared(self, rows: list[Tensor]) -> list[Tensor]:
        return [row.as_strided(row.shape, (1,)) for row in rows]


@breaks("inference_mode", "training after a call in inference mode raised RuntimeError")
class CachesInferenceTensor(ToyUpstream):
    def __init__(self) -> None:
        super().__init__()
        self.window: Tensor | None = None

    def frames(self, row: Tensor) -> Tensor:
        frames = super().frames(row)
        if self.window is None:
            self.window = torch.linspace(0.5, 1.0, WIDTH, dtype=row.dtype, device=row.device)
        return frames * self.window


@breaks("inference_mode", "a call in inference mode, compared with one outside")
class FastPathDiffers(Edited):
    def edit(self, output: UpstreamOutput) -> Any:
        return scaled(output, 1.001 if torch.is_inference_mode_enabled() else 1.0)


@breaks("train_mode_layers", "in train mode gave 2 hidden states, eval mode gives 3")
class DropsLayers(Edited):
    def edit(self, output: UpstreamOutput) -> Any:
        if self.training and float(torch.rand(())) < 0.1:
            return replace(output, hidden_states=output.hidden_states[1:])
        return output


@breaks("train_mode_layers", "layer 2 (block_2) is an exact copy of the layer before it")
class SkipsBlocks(ToyUpstream):
    def states(self, row: Tensor, deepest: int) -> list[Tensor]:
        first, second, third = super().states(row, deepest)
        skip = self.training and float(torch.rand(())) < 0.3
        return [first, second, second if skip else third]


@breaks("gradients_arrive", "parameters receive no gradient: conv.weight, conv.bias")
class DetachesExtractor(ToyUpstream):
    def frames(self, row: Tensor) -> Tensor:
        return super().frames(row).detach()


@breaks("gradients_arrive", "carries no gradient at all")
class NeverTrains(Edited):
    def edit(self, output: UpstreamOutput) -> Any:
        return replace(output, hidden_states=tuple(state.detach() for state in output.hidden_states))


class WithWeight(ToyUpstream):
    """A toy with one weight more."""

    def __init__(self) -> None:
        super().__init__()
        self.more = nn.Parameter(torch.zeros(WIDTH))


@breaks("gradients_arrive", "1 of 27 parameters receive no gradient: more")
class UnusedWeight(WithWeight):
    pass


@breaks("gradients_arrive", "the gradients of 1 parameters are not finite: more")
class RootOfZero(WithWeight):
    def frames(self, row: Tensor) -> Tensor:
        return super().frames(row) + self.more.abs().sqrt()


@breaks("gradients_nonzero", "the gradients of 1 of 27 parameters are zero: more")
class MultipliedByZero(WithWeight):
    def frames(self, row: Tensor) -> Tensor:
        return super().frames(row) + 0 * self.more


@breaks("gradients_arrive", "the output is cut off from the waveforms")
class DetachedEnergies(Energies):
    def energies(self, windows: Tensor) -> Tensor:
        return super().energies(windows.detach())


@breaks("gradients_arrive", "with waveforms that require a gradient the call raised: Can't call numpy()")
class NumpyEnergies(Energies):
    def energies(self, windows: Tensor) -> Tensor:
        return torch.from_numpy((windows.numpy() ** 2).mean(axis=1, keepdims=True))


@breaks("gradients_arrive", "the gradient of waveform 0 is not finite")
class RootEnergies(Energies):
    def energies(self, windows: Tensor) -> Tensor:
        return super().energies(windows) + (0 * windows).sum(dim=1, keepdim=True).abs().sqrt()


@breaks("gradients_arrive", "the gradient of waveform 0 is zero at every sample")
class SignEnergies(Energies):
    def energies(self, windows: Tensor) -> Tensor:
        return windows.sign().mean(dim=1, keepdim=True)


@breaks("device_follows_input", "with another default device the call raised")
class GainElsewhere(Edited):
    def edit(self, output: UpstreamOutput) -> Any:
        return scaled(output, torch.ones(()).item())


@breaks("device_follows_input", "device")
class OffsetElsewhere(Edited):
    def edit(self, output: UpstreamOutput) -> Any:
        return scaled(output, torch.ones(WIDTH))


@breaks("device_follows_input", "lengths is on the device meta, but the waveforms are on cpu")
class LengthsElsewhere(Edited):
    def edit(self, output: UpstreamOutput) -> Any:
        return replace(output, lengths=torch.tensor(output.lengths.tolist()))


@breaks("device_follows_input", "frame_times() is on the device meta")
class TimesElsewhere(Edited):
    def edit(self, output: UpstreamOutput) -> Any:
        return replace(output, times=torch.zeros(output.times.shape))


@breaks("device_follows_input", "extras['alpha'] is on the device meta")
class AlphaElsewhere(Edited):
    def edit(self, output: UpstreamOutput) -> Any:
        return replace(output, extras={"alpha": torch.zeros(3)})


@breaks("dtype_follows_input", "layer 0 (input) is torch.float32 for a float64 model and float64 waveforms")
class AlwaysSingle(Edited):
    def edit(self, output: UpstreamOutput) -> Any:
        return replace(output, hidden_states=tuple(state.float() for state in output.hidden_states))


@breaks("dtype_follows_input", "in float64 the call raised RuntimeError")
class SingleMatrix(ToyUpstream):
    def frames(self, row: Tensor) -> Tensor:
        return super().frames(row) @ torch.eye(WIDTH, dtype=torch.float32, device=row.device)


@breaks("dtype_follows_input", "the float32 run, compared with the float64 run")
class CoarseInSingle(ToyUpstream):
    def prepared(self, rows: list[Tensor]) -> list[Tensor]:
        return [(row * 32).round() / 32 if row.dtype == torch.float32 else row for row in rows]


@breaks("state_dict", "loading the upstream's own state dict strictly failed")
class RenamesOnSave(ToyUpstream):
    def state_dict(self, **options: Any) -> Any:
        return {f"encoder.{name}": value for name, value in super().state_dict(**options).items()}


@breaks("state_dict", "a copy with other weights that loaded the state dict, compared with the original")
class ForgetsToSave(ToyUpstream):
    def state_dict(self, **options: Any) -> Any:
        return {name: value for name, value in super().state_dict(**options).items() if name != "conv.bias"}

    def load_state_dict(self, state: Any, strict: bool = True, assign: bool = False) -> Any:
        return super().load_state_dict(state, strict=False, assign=assign)


@breaks("state_dict", "changing every weight of a copy changes no output: the call uses a stale copy")
class StaleWeights(ToyUpstream):
    def __init__(self) -> None:
        super().__init__()
        self.fast = {name: value.detach().clone() for name, value in self.named_parameters()}

    def forward(self, wavs: Any, lengths: Any = None, *, layers: Any = None) -> Any:
        return torch.func.functional_call(Plain(self), {f"toy.{k}": v for k, v in self.fast.items()}, (wavs, lengths, layers))


class Plain(nn.Module):
    """Calls a toy's own forward."""

    def __init__(self, toy: ToyUpstream) -> None:
        super().__init__()
        self.toy = toy

    def forward(self, wavs: Any, lengths: Any, layers: Any) -> Any:
        return ToyUpstream.forward(self.toy, wavs, lengths, layers=layers)


@breaks("pickling", "pickling raised")
class HoldsLambda(ToyUpstream):
    def __init__(self) -> None:
        super().__init__()
        self.activation = lambda x: x


class Gain(Edited):
    """A toy with a gain that is no part of the state dict."""

    gain = 1.0

    def edit(self, output: UpstreamOutput) -> Any:
        return scaled(output, self.gain)


@breaks("pickling", "the pickled upstream, compared with the original")
class ForgetsGain(Gain):
    def __init__(self) -> None:
        super().__init__()
        self.gain = 2.0

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "gain"}


@breaks("pickling", "the pickled upstream is a ToyUpstream, not BecomesToy")
class BecomesToy(ToyUpstream):
    def __reduce__(self) -> Any:
        return ToyUpstream, ()


@breaks("pickling", "the pickled upstream has another sample_rate: 16000")
class ForgetsRate(ToyUpstream):
    def __init__(self) -> None:
        super().__init__()
        self.sample_rate = 8000

    def __setstate__(self, state: Any) -> None:
        super().__setstate__(state)
        self.sample_rate = 16000


@breaks("featurizer", "the gradient of the featurizer's weights is zero: all layers are the same")
class SameLayers(Edited):
    def edit(self, output: UpstreamOutput) -> Any:
        return replace(output, hidden_states=output.hidden_states[:1] * 3)
