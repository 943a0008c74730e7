"""The whole contract of an upstream: `Upstream`, what it is, and `UpstreamOutput`, what it returns.

Shapes: `B` batch, `T` samples, `F` frames, `D` dim.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from hubcore.card import Card
from hubcore.errors import HubcoreError
from hubcore.ragged import Packed, frame_mask


class _PaddedWhenRead:
    """The field `hidden_states`: what was packed is padded once somebody reads it, and not before."""

    def __get__(self, output: UpstreamOutput | None, owner: type | None = None) -> tuple[Tensor, ...]:
        if output is None:
            raise AttributeError("hidden_states is an attribute of each output")
        held = output.__dict__["hidden_states"]
        if isinstance(held, Packed):
            held = output.__dict__["hidden_states"] = held.padded()
        states: tuple[Tensor, ...] = held
        return states

    def __set__(self, output: UpstreamOutput, states: tuple[Tensor, ...] | Packed) -> None:
        output.__dict__["hidden_states"] = states


@dataclass(frozen=True, eq=False)
class UpstreamOutput(Mapping[str, Any]):
    """Result of one call of an upstream: its hidden states, their lengths and times.

    It also reads like s3prl's dictionary: `out["hidden_states"]`, `out["last_hidden_state"]`, `out["hidden_state_3"]`.

    Example:
        >>> import torch
        >>> from hubcore import hub
        >>> out = hub.load("fbank")([torch.randn(16000), torch.randn(8000)])
        >>> tuple(out.last_hidden_state.shape), out.lengths.tolist(), sorted(out)[:2]
        ((2, 98, 240), [98, 48], ['hidden_state_0', 'hidden_states'])
    """

    hidden_states: tuple[Tensor, ...]
    """One `(B, F, D)` tensor for each layer asked for, in the order asked for; rows are exactly 0 beyond their length."""
    lengths: Tensor
    """`(B,)` int64, valid frames of each utterance, on the device of the hidden states."""
    layers: tuple[int, ...]
    """The index into the upstream's `layer_names` of each hidden state."""
    layer_names: tuple[str, ...]
    """The name of each hidden state."""
    times: Tensor
    """`(B, F, 2)` seconds, see `frame_times`."""
    extras: Mapping[str, Any] = field(default_factory=dict)
    """Tensors that only this family gives, documented by its upstream."""

    @property
    def last_hidden_state(self) -> Tensor:
        """`(B, F, D)`, the deepest of the layers asked for: the model's output unless `layers=` stopped it earlier."""
        return self.hidden_states[self.layers.index(max(self.layers))]

    @property
    def mask(self) -> Tensor:
        """`(B, F)` bool, True where a frame is valid."""
        return frame_mask(self.lengths, self.times.shape[1])

    def frame_times(self) -> Tensor:
        """`(B, F, 2)` seconds: where the audio that a frame was computed from starts and ends; 0 beyond the length.

        Neighbouring frames overlap where windows do: wav2vec 2.0's frame f covers samples `[320 f, 320 f + 400)`.
        """
        return self.times

    def unpad(self) -> tuple[tuple[Tensor, ...], ...]:
        """The hidden states of each utterance without padding: for each, one `(F_i, D)` view for each layer asked for.

        Example:
            >>> import torch
            >>> from hubcore import hub
            >>> out = hub.load("fbank")([torch.randn(16000), torch.randn(8000)])
            >>> [tuple(state.shape) for (state,) in out.unpad()]
            [(98, 240), (48, 240)]
        """
        held = self.__dict__["hidden_states"]
        if isinstance(held, Packed):
            return tuple(zip(*(state.split([*held.counts]) for state in held), strict=True))
        counts = self.lengths.tolist()
        return tuple(tuple(state[item, :count] for state in self.hidden_states) for item, count in enumerate(counts))

    def packed(self) -> tuple[tuple[Tensor, ...], Tensor]:
        """The frames of all utterances end to end, `(N, D)` for each layer asked for, and `lengths` `(B,)`: no padding.

        A model computes on packed frames, and an output is padded only when `hidden_states` is first read. Whoever calls this
        instead saves the time and the memory of it.

        Example:
            >>> import torch
            >>> from hubcore import hub
            >>> out = hub.load("wav2vec2_tiny_prompts")([torch.randn(16000), torch.randn(8000)], layers=[4])
            >>> states, lengths = out.packed()
            >>> tuple(states[0].shape), lengths.tolist()
            ((73, 96), [49, 24])
        """
        held = self.__dict__["hidden_states"]
        if isinstance(held, Packed):
            return tuple(held), self.lengths
        return tuple(torch.cat(rows) for rows in zip(*self.unpad(), strict=True)), self.lengths

    def check_finite(self) -> None:
        """Waits for the values, and raises `HubcoreError` for the first layer with NaN or infinity in it.

        A forward pass does not look at its values, which on a GPU would mean to wait for them. Large activations are beyond
        float16, whose largest number is 65504; bfloat16 reaches as far as float32.

        Raises:
            HubcoreError: it names the layer, the utterance and the frame.

        Example:
            >>> import torch
            >>> from hubcore import hub
            >>> hub.load("fbank")([torch.randn(16000)]).check_finite()
        """
        states = self.packed()[0]
        if all(torch.stack([state.detach().isfinite().all() for state in states]).tolist()):
            return
        layer = next(index for index, state in enumerate(states) if not bool(state.isfinite().all()))
        state, row = states[layer], int((~states[layer].isfinite()).any(1).nonzero()[0])
        ends = self.lengths.cumsum(0)
        item = int((ends <= row).sum())
        frame = row - int(ends[item] - self.lengths[item])
        fix = "Check the weights."
        if state.dtype == torch.float16:
            fix = "Load the model with dtype=torch.bfloat16 or float32: numbers above 65504 are infinite in float16."
        name = f"layer {self.layers[layer]} ({self.layer_names[layer]})"
        what = (
            f"{name} has values that are not finite, first in item {item} at frame {frame}. It was computed in {state.dtype}."
        )
        raise HubcoreError(what, fix=fix)

    def to(self, *args: Any, **options: Any) -> UpstreamOutput:
        """The output elsewhere or in another type, as `Tensor.to`; a type is taken by the hidden states alone.

        Example:
            >>> import torch
            >>> from hubcore import hub
            >>> out = hub.load("fbank")([torch.randn(16000)]).to("cpu", torch.float16)
            >>> out.last_hidden_state.dtype, out.lengths.dtype
            (torch.float16, torch.int64)
        """
        held = self.__dict__["hidden_states"]
        states = tuple(state.to(*args, **options) for state in held)
        device = states[0].device
        extras = {name: value.to(device) if isinstance(value, Tensor) else value for name, value in self.extras.items()}
        moved: Any = Packed(states, held.counts) if isinstance(held, Packed) else states
        return replace(self, hidden_states=moved, lengths=self.lengths.to(device), times=self.times.to(device), extras=extras)

    def __getitem__(self, key: str) -> Any:
        if key == "hidden_states":
            return self.hidden_states
        if key == "last_hidden_state":
            return self.last_hidden_state
        if key == "lengths":
            return self.lengths
        for index, state in zip(self.layers, self.hidden_states, strict=True):
            if key == f"hidden_state_{index}":
                return state
        raise KeyError(f"{key!r} is not in this output. It has {', '.join(self)}.")

    def __iter__(self) -> Iterator[str]:
        yield "hidden_states"
        yield "last_hidden_state"
        yield "lengths"
        for index in dict.fromkeys(self.layers):
            yield f"hidden_state_{index}"

    def __len__(self) -> int:
        return 3 + len(set(self.layers))

    def __repr__(self) -> str:
        shape = (*self.times.shape[:2], self.__dict__["hidden_states"][0].shape[-1])
        names = ", ".join(self.layer_names)
        return f"UpstreamOutput({names}: {shape}, lengths={self.lengths.tolist()}, extras={[*self.extras]})"

    # A Mapping compares its values, which tensors do not allow; one output equals only itself.
    __eq__ = object.__eq__
    __hash__ = object.__hash__


UpstreamOutput.hidden_states = _PaddedWhenRead()  # type: ignore[assignment] # in the class it would be the field's default


@runtime_checkable
class Upstream(Protocol):
    """A speech model with one uniform call. Any object with these attributes is one; nothing need be inherited.

    Example:
        >>> from hubcore import Upstream, hub
        >>> isinstance(hub.load("fbank"), Upstream)
        True
    """

    sample_rate: int
    """Samples per second that `forward` expects, in Hz."""
    num_layers: int
    """Number of blocks; 0 for a signal transform."""
    layer_names: tuple[str, ...]
    """One name for each hidden state."""
    hidden_sizes: tuple[int, ...]
    """The width `D` of each hidden state."""
    frame_stride: int | None
    """Samples from one frame to the next; None where that depends on the input."""
    receptive_field: int
    """Samples that one frame is computed from, before any context of blocks."""
    min_samples: int
    """Fewest samples that give a frame."""
    card: Card | None
    """The registry's record of the weights, or None."""

    def forward(
        self,
        wavs: Sequence[Tensor] | Tensor,
        lengths: Tensor | Sequence[int] | None = None,
        *,
        layers: Sequence[int] | None = None,
    ) -> UpstreamOutput:
        """The hidden states of a batch of waveforms, each exactly what it is alone.

        Args:
            wavs: 1-D float tensors at `sample_rate`, or one `(B, T)` tensor.
            lengths: `(B,)` samples of each row, with a `(B, T)` tensor.
            layers: indices into `layer_names` (negative ones count from the end): only these are returned, and no block
                above the highest one runs. If None all, or those that a card or `hub.load(..., layers=)` made the default.

        Raises:
            AudioError: a waveform cannot be used; the message names the item.
            OptionError: a layer does not exist.
        """
        ...

    def __call__(
        self,
        wavs: Sequence[Tensor] | Tensor,
        lengths: Tensor | Sequence[int] | None = None,
        *,
        layers: Sequence[int] | None = None,
    ) -> UpstreamOutput:
        """`forward`."""
        ...


def missing_parts(upstream: object) -> list[str]:
    """Lists the parts of `Upstream` that an object lacks, in the contract's order; empty if it is one.

    Example:
        >>> missing_parts(object())[:2]
        ['sample_rate', 'num_layers']
    """
    absent = object()
    lacking = [name for name in Upstream.__annotations__ if getattr(upstream, name, absent) is absent]
    return [*lacking, *([] if callable(upstream) else ["__call__"])]
