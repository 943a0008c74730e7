"""The encoder of Whisper: log mel energies of a window, two convolutions, positions, pre-norm blocks.

Shapes: `T` samples, `M` mel filters, `N` packed frames of all windows, `D` dim, `L` blocks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from hubcore.nn import Block, Encoder, FeedForward, LogMelWindow, SelfAttention, conv_strided
from hubcore.nn.padded import Padded, PaddedWavs, from_start, together
from hubcore_whisper.config import WhisperConfig


def sinusoids(length: int, dim: int) -> Tensor:
    """`(length, D)` position embedding: sines, then cosines, of wavelengths from 2 pi to 20,000 pi frames.

    Example:
        >>> sinusoids(2, 4)[0].tolist()
        [0.0, 0.0, 1.0, 1.0]
    """
    rates = torch.exp(-math.log(10000) / max(dim // 2 - 1, 1) * torch.arange(dim // 2))
    angles = torch.arange(length)[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)


class WhisperExtractor(nn.Module):
    """Log mel energies of each window, then two convolutions with GELU: waveforms to frames `(N, D)`.

    Example:
        >>> WhisperExtractor(80, 8)([torch.randn(1600), torch.randn(3200)], frames=[5, 20]).shape
        torch.Size([25, 8])
    """

    def __init__(self, num_mel_bins: int, dim: int) -> None:
        super().__init__()
        self.log_mel = LogMelWindow(num_mel_bins)
        self.conv1 = nn.Conv1d(num_mel_bins, dim, 3, padding=1)
        self.conv2 = nn.Conv1d(dim, dim, 3, stride=2, padding=1)

    def forward(self, wavs: Sequence[Tensor], frames: Sequence[int]) -> Tensor:
        """Packed frames `(N, D)`, `frames` of each waveform, which is padded with silence to that length."""
        counts = [2 * count for count in frames]
        return self.convolve(torch.cat([*map(self.log_mel, wavs, counts)]), counts)[0]

    def convolve(self, features: Tensor, counts: Sequence[int]) -> tuple[Tensor, Sequence[int]]:
        """Packed frames `(N, D)` of log mel energies `(2N, M)`, and the frames of each window."""
        x = features.to(self.conv1.weight.dtype)
        for conv in (self.conv1, self.conv2):
            x, counts = conv_strided(x, counts, conv.weight, conv.bias, stride=conv.stride[0], padding=(1, 1))
            x = functional.gelu(x)
        return x, counts


class WhisperEncoder(nn.Module):
    """Waveforms to hidden states of Whisper's encoder, each window of the waveforms by itself.

    A waveform that is longer than the window is cut into windows, of which only the last is padded. Some windows are computed
    at a time, so the memory does not grow with the batch beyond what is returned.

    Example:
        >>> model = WhisperEncoder(WhisperConfig(dim=8, num_heads=2, ffn_dim=16, positions=50))
        >>> states, counts = model([torch.randn(16000), torch.randn(16001)], layers=[0, 4])
        >>> [tuple(state.shape) for state in states], counts
        ([(101, 8), (101, 8)], [50, 51])
    """

    def __init__(self, config: WhisperConfig) -> None:
        super().__init__()
        dim, dropout = config.dim, config.dropout
        self.window = config.window_samples
        self.extractor = WhisperExtractor(config.num_mel_bins, dim)
        self.register_buffer("positions", sinusoids(config.positions, dim))  # never trained
        self.positions: Tensor
        blocks = []
        for _ in range(config.num_layers):
            attention = SelfAttention(dim, config.num_heads, config.attention_dropout)
            attention.k_proj = nn.Linear(dim, dim, bias=False)
            feed_forward = FeedForward(dim, config.ffn_dim, config.activation_dropout)
            blocks.append(Block(attention, feed_forward, dim, pre_norm=True, dropout=dropout))
        self.encoder = Encoder(None, blocks, nn.LayerNorm(dim), pre_norm=True, dropout=dropout)

    @property
    def num_layers(self) -> int:
        """Number of blocks."""
        return len(self.encoder.blocks)

    def forward(self, wavs: Sequence[Tensor], layers: Sequence[int], *, pad: bool = True) -> tuple[list[Tensor], Sequence[int]]:
        """Hidden states `(N, D)` of the layers asked for (0 to L), and the frames of each utterance.

        With `pad=False`, a waveform is padded only to a whole frame: faster, but not what Whisper computes.
        """
        if isinstance(wavs, PaddedWavs):
            return self._padded(wavs, layers, pad)
        windows = [window for wav in wavs for window in wav.split(self.window)]
        at_once = 1 if wavs[0].device.type == "cpu" else 16  # one window fills a CPU; a GPU wants more, and has the memory
        parts = [self.encode(windows[i : i + at_once], layers, pad=pad) for i in range(0, len(windows), at_once)]
        states = [torch.cat(pieces) for pieces in zip(*parts, strict=True)]
        return states, [math.ceil(len(wav) / WhisperConfig.frame_stride) for wav in wavs]

    def encode(self, windows: Sequence[Tensor], layers: Sequence[int], *, pad: bool) -> list[Tensor]:
        """Hidden states `(N, D)` of the windows' own frames."""
        own = [math.ceil(len(window) / WhisperConfig.frame_stride) for window in windows]
        frames = [len(self.positions)] * len(windows) if pad else own
        x = self.extractor(windows, frames) + torch.cat([self.positions[:count] for count in frames])
        states = self.encoder(x, frames, layers)
        return [torch.cat([rows[:count] for rows, count in zip(state.split(frames), own, strict=True)]) for state in states]

    def _padded(self, wavs: PaddedWavs, layers: Sequence[int], pad: bool) -> tuple[list[Tensor], Padded]:
        """`forward` for a padded batch of waveforms, none longer than the window."""
        stride, lengths, longest = WhisperConfig.frame_stride, wavs.counts.lengths, wavs.counts.longest
        own = Padded((lengths + stride - 1).div(stride, rounding_mode="floor"), (longest + stride - 1) // stride)
        room = self.window if pad else own.longest * stride
        sizes = torch.full_like(lengths, self.window) if pad else own.lengths * stride
        windows = PaddedWavs(functional.pad(wavs.samples, (0, room - longest)), sizes)
        counts: Any  # a `Padded`, as it goes in
        x, counts = self.extractor.convolve(*self.extractor.log_mel.padded(windows))
        states = self.encoder(x + from_start(self.positions, counts), counts, layers)
        return [together(counts.apart(state).narrow(1, 0, own.longest)) for state in states], own
