"""The CPC model on packed frames: an encoder of padded convolutions, then a recurrent network.

Shapes: `T` samples, `F` frames of one utterance, `N` packed frames of all, `D` dim.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from hubcore.nn import FrameConv, conv_strided, run_recurrent
from hubcore.nn.padded import PaddedWavs
from hubcore.strategy import few_calls
from hubcore_cpc.config import CONVOLUTIONS, CpcConfig

_NETS = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}


def row_counts(samples: int) -> list[int]:
    """Rows before each convolution, the first ones being samples, and the frames after the last.

    Example:
        >>> row_counts(1600)
        [1600, 320, 80, 40, 20, 10]
    """
    counts = [samples]
    for kernel, stride, padding in CONVOLUTIONS:
        counts.append((counts[-1] + 2 * padding - kernel) // stride + 1)
    return counts


class ChannelNorm(nn.Module):
    """Norm of each frame over its channels with the unbiased variance, `(F, D)` to `(F, D)`. CPC_audio: `ChannelNorm`.

    Example:
        >>> [round(value, 3) for value in ChannelNorm(2)(torch.tensor([[1.0, 3.0]]))[0].tolist()]
        [-0.707, 0.707]
    """

    def __init__(self, dim: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim))
        # The unbiased variance is the biased one of layer norm times D / (D - 1).
        self.scale = (dim - 1) / dim
        self.eps = eps * self.scale

    def forward(self, x: Tensor) -> Tensor:
        """Frames `(F, D)` in and out."""
        return functional.layer_norm(x, self.weight.shape, self.weight * self.scale**0.5, self.bias, self.eps)


class CpcEncoder(nn.Module):
    """Five strided convolutions, each with a norm and ReLU: waveforms to frames. CPC_audio: `CPCEncoder`.

    An utterance's frames are computed some at a time, so that a long recording takes no more memory than a short one. Zeros
    stand for rows before its first and behind its last, at each convolution.

    Args:
        dim: width `D`.
        chunk: frames computed at a time.

    Example:
        >>> CpcEncoder(8)([torch.randn(16000), torch.randn(159)]).shape
        torch.Size([101, 8])
    """

    def __init__(self, dim: int, chunk: int = 200) -> None:
        super().__init__()
        self.chunk = chunk
        channels = [1] + [dim] * len(CONVOLUTIONS)
        self.convs: Sequence[FrameConv] = nn.ModuleList(  # type: ignore[assignment]
            FrameConv(channels[i], dim, kernel=kernel, stride=stride, bias=True)
            for i, (kernel, stride, _) in enumerate(CONVOLUTIONS)
        )
        self.norms = nn.ModuleList(ChannelNorm(dim) for _ in CONVOLUTIONS)

    def forward(self, wavs: Sequence[Tensor]) -> Tensor:
        """Packed frames `(N, D)` of all waveforms."""
        dtype = next(self.parameters()).dtype
        if few_calls(wavs[0].device):
            return self.at_once(torch.cat([*wavs])[:, None].to(dtype), [len(wav) for wav in wavs])[0]
        return torch.cat([self.encode(wav.to(dtype)) for wav in wavs])

    def at_once(self, x: Tensor, counts: Sequence[int]) -> tuple[Tensor, Sequence[int]]:
        """The frames `(N, D)` of packed samples `(N, 1)`, each convolution one call; and how many each utterance has."""
        conv: Any
        norm: nn.Module
        for conv, norm, (_, stride, padding) in zip(self.convs, self.norms, CONVOLUTIONS, strict=True):
            weight = conv.weight.transpose(1, 2)  # (D', D, kernel)
            x, counts = conv_strided(x, counts, weight, conv.bias, stride=stride, padding=(padding, padding))
            x = functional.relu(norm(x))
        return x, counts

    def encode(self, wav: Tensor) -> Tensor:
        """The frames `(F, D)` of one waveform."""
        *lengths, frames = row_counts(len(wav))
        return torch.cat(
            [self._chunk(wav, lengths, first, min(first + self.chunk, frames)) for first in range(0, frames, self.chunk)]
        )

    def _chunk(self, wav: Tensor, lengths: Sequence[int], first: int, end: int) -> Tensor:
        """The frames `first` to `end`; each convolution computes the rows that the next one needs, and no others."""
        paddings = []
        for (kernel, stride, padding), length in zip(reversed(CONVOLUTIONS), reversed(lengths), strict=True):
            first, end = first * stride - padding, (end - 1) * stride - padding + kernel
            paddings.append((max(0, -first), max(0, end - length)))
            first, end = max(0, first), min(end, length)
        x = wav[first:end, None]
        for conv, norm, (before, after) in zip(self.convs, self.norms, reversed(paddings), strict=True):
            x = functional.relu(norm(conv(functional.pad(x, (0, 0, before, after)))))
        return x


class CpcModel(nn.Module):
    """Waveforms to hidden states: 0 is the encoder's frames, 1 the recurrent network's.

    Example:
        >>> states, counts = CpcModel(CpcConfig(encoder_dim=8, context_dim=4))([torch.randn(1600)], layers=[0, 1])
        >>> [tuple(state.shape) for state in states], counts
        ([(10, 8), (10, 4)], [10])
    """

    def __init__(self, config: CpcConfig) -> None:
        super().__init__()
        self.extractor = CpcEncoder(config.encoder_dim)
        self.context = _NETS[config.context_net](config.encoder_dim, config.context_dim, config.num_levels)

    def forward(self, wavs: Sequence[Tensor], layers: Sequence[int]) -> tuple[list[Tensor], Sequence[int]]:
        """Hidden states `(N, D)` of the layers asked for, and the frames of each utterance."""
        counts: Sequence[int]
        if isinstance(wavs, PaddedWavs):
            encoded, counts = self.extractor.at_once(wavs.samples.flatten()[:, None], wavs.counts)
        else:
            encoded, counts = self.extractor(wavs), [row_counts(len(wav))[-1] for wav in wavs]
        states = {0: encoded}
        if 1 in layers:
            states[1] = run_recurrent(self.context, encoded, counts)
        return [states[layer] for layer in layers], counts
