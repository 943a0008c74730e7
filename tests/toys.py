"""Small upstreams for tests. `tests/conformance/broken_*.py` break `ToyUpstream` in one way after the other.

Shapes: `B` batch, `T` samples, `F` frames, `D` dim.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hubcore import UpstreamBase, UpstreamOutput
from hubcore.ragged import pad_packed, regular_frame_times

KERNEL, STRIDE, WIDTH, BLOCKS = 40, 16, 8, 2


class ToyBlock(nn.Module):
    """A pre-norm transformer block over one utterance, (F, D) -> (F, D)."""

    def __init__(self) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(WIDTH)
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.output = nn.Linear(WIDTH, WIDTH)
        self.feed_norm = nn.LayerNorm(WIDTH)
        self.feed = nn.Sequential(nn.Linear(WIDTH, 2 * WIDTH), nn.GELU(), nn.Linear(2 * WIDTH, WIDTH))
        self.dropout = nn.Dropout(0.1)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.attention_norm(x)).chunk(3, dim=-1)
        scores = q @ k.transpose(0, 1) / WIDTH**0.5
        x = x + self.dropout(self.output(scores.softmax(dim=-1) @ v))
        return x + self.dropout(self.feed(self.feed_norm(x)))


class ToyUpstream(UpstreamBase):
    """One convolution and two blocks, each utterance computed by itself."""

    def __init__(self) -> None:
        super().__init__(
            layer_names=("input", "block_1", "block_2"),
            hidden_sizes=(WIDTH,) * (BLOCKS + 1),
            frame_stride=STRIDE,
            receptive_field=KERNEL,
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.conv = nn.Conv1d(1, WIDTH, KERNEL, stride=STRIDE)
            self.blocks = nn.ModuleList(ToyBlock() for _ in range(BLOCKS))

    def forward(
        self,
        wavs: Sequence[Tensor] | Tensor,
        lengths: Tensor | Sequence[int] | None = None,
        *,
        layers: Sequence[int] | None = None,
    ) -> UpstreamOutput:
        rows = self.check_input(wavs, lengths)
        chosen = self.check_layers(layers)
        states = [self.states(row, max(chosen)) for row in self.prepared(rows)]
        return self.assembled(rows, states, chosen)

    def prepared(self, rows: list[Tensor]) -> list[Tensor]:
        """The waveforms as the convolution takes them."""
        return rows

    def frames(self, row: Tensor) -> Tensor:
        """(T,) -> (F, D), the input of the first block."""
        return nn.functional.gelu(self.conv(row[None]).T)

    def states(self, row: Tensor, deepest: int) -> list[Tensor]:
        """(F, D) of every layer of one utterance up to `deepest`."""
        states = [self.frames(row)]
        for block in self.blocks[:deepest]:
            states.append(block(states[-1]))
        return states

    def assembled(self, rows: list[Tensor], states: list[list[Tensor]], chosen: tuple[int, ...]) -> UpstreamOutput:
        """The output for the frames of each utterance and layer."""
        counts = [len(layers[0]) for layers in states]
        lengths = torch.tensor(counts, device=rows[0].device)
        hidden = [pad_packed(torch.cat([layers[k] for layers in states]), counts) for k in chosen]
        times = regular_frame_times(lengths, max(counts), stride=STRIDE, span=KERNEL, sample_rate=self.sample_rate)
        return self.make_output(hidden, lengths, chosen, times)


class Energies(UpstreamBase):
    """A signal transform without weights: something of each window, times 1, 10, 100 ... in the layers."""

    def __init__(
        self,
        layer_names: Sequence[str] = ("energy",),
        hidden_sizes: Sequence[int] = (1,),
        *,
        stride: int = STRIDE,
        min_samples: int | None = None,
    ) -> None:
        super().__init__(
            layer_names=tuple(layer_names),
            hidden_sizes=tuple(hidden_sizes),
            frame_stride=stride,
            receptive_field=stride,
            min_samples=min_samples,
        )
        self.stride = stride

    def forward(
        self,
        wavs: Sequence[Tensor] | Tensor,
        lengths: Tensor | Sequence[int] | None = None,
        *,
        layers: Sequence[int] | None = None,
    ) -> UpstreamOutput:
        rows = self.check_input(wavs, lengths)
        chosen = self.check_layers(layers)
        frames = [self.energies(row.unfold(0, self.stride, self.stride)) for row in rows]
        counts = torch.tensor([len(f) for f in frames], device=rows[0].device)
        state = pad_packed(torch.cat(frames), counts.tolist())
        times = regular_frame_times(counts, state.shape[1], stride=self.stride, span=self.stride, sample_rate=self.sample_rate)
        return self.make_output([state * 10**layer for layer in chosen], counts, chosen, times)

    def energies(self, windows: Tensor) -> Tensor:
        """(F, stride) -> (F, D)."""
        return windows.square().mean(dim=1, keepdim=True)


class WrappedEnergies:
    """An upstream that inherits nothing and is no module."""

    sample_rate = 16000
    num_layers = 0
    layer_names = ("energy",)
    hidden_sizes = (1,)
    frame_stride = receptive_field = min_samples = STRIDE
    card = None

    def forward(self, wavs: Any, lengths: Any = None, *, layers: Any = None) -> UpstreamOutput:
        return Energies()(wavs, lengths, layers=layers)

    __call__ = forward
