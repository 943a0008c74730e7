"""Strided convolutions over waveforms and frames: `FrameConv`, and `ConvExtractor`, the front of most speech encoders.

`plain_features` says in torch's own terms what `ConvExtractor` computes; the class computes the same for all utterances at
once, faster, and without padding.

Shapes: `T` samples or rows, `F` frames, `N` packed frames of all utterances, `C` channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from hubcore.ragged import conv_length, receptive_field, wide_dtype


def plain_features(extractor: ConvExtractor, wav: Tensor) -> Tensor:
    """`(F, C)` features of one waveform `(T,)`: convolution, norm and GELU, layer after layer.

    Example:
        >>> from hubcore.nn import SpeechEncoderConfig, build_extractor
        >>> extractor = build_extractor(SpeechEncoderConfig())
        >>> wav = torch.randn(800)
        >>> features = extractor(torch.nn.functional.pad(wav, (0, 160)), starts=[0], lengths=[800])
        >>> torch.allclose(features, plain_features(extractor, wav), atol=1e-4)
        True
    """
    x = wav[None, None]  # (1, 1, T)
    for index, conv in enumerate(extractor.convs):
        x = functional.conv1d(x, conv.weight.transpose(1, 2), conv.bias, stride=conv.stride)  # (1, C, F)
        if extractor.conv_norm == "layer":  # each frame over its channels
            x = extractor.norms[index](x.transpose(1, 2)).transpose(1, 2)
        elif index == 0:  # each channel over the whole utterance
            x = extractor.norms[0](x)
        x = functional.gelu(x)
    return x[0].t()


class FrameConv(nn.Module):
    """A strided convolution without padding over rows, `(T, C_in)` to `(F, C_out)`, as matrix products.

    Rows that lie next to each other in memory are one long row of a matrix, so the taps of a kernel that fit into one
    stride cost a single matrix product and no copy. `weight` is `(C_out, kernel, C_in)`: torch's `(C_out, C_in, kernel)`
    with the last two axes swapped, which makes those taps contiguous.

    Example:
        >>> FrameConv(4, 8, kernel=3, stride=2)(torch.zeros(9, 4)).shape
        torch.Size([4, 8])
    """

    def __init__(self, in_channels: int, out_channels: int, *, kernel: int, stride: int, bias: bool = False) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride
        self.weight = nn.Parameter(torch.empty(out_channels, kernel, in_channels))
        self.bias = nn.Parameter(torch.empty(out_channels)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """He initialisation, as the original does. fairseq: `ConvFeatureExtractionModel`."""
        fan_in = self.weight.shape[1] * self.weight.shape[2]
        nn.init.normal_(self.weight, std=(2 / fan_in) ** 0.5)
        if self.bias is not None:
            nn.init.uniform_(self.bias, -(fan_in**-0.5), fan_in**-0.5)

    def forward(self, rows: Tensor) -> Tensor:
        """`(T, C_in)` to `(F, C_out)` with `F = (T - kernel) // stride + 1`."""
        out_channels, kernel, in_channels = self.weight.shape
        frames = (rows.shape[0] - kernel) // self.stride + 1
        samples = rows.contiguous().flatten()
        out: Tensor | None = None
        for tap in range(0, kernel, self.stride):
            taps = min(self.stride, kernel - tap)
            window = samples[tap * in_channels :].unfold(0, taps * in_channels, self.stride * in_channels)[:frames]
            weight = self.weight[:, tap : tap + taps].reshape(out_channels, taps * in_channels)
            if out is None:
                out = functional.linear(window, weight, self.bias)
            else:  # under autocast the first product is narrower than the weights; an in-place sum must be told so
                out.addmm_(window.to(out.dtype), weight.t().to(out.dtype))
        if out is None:
            raise ValueError(f"kernel must be at least 1, but is {kernel} instead.")
        return out


class ConvExtractor(nn.Module):
    """The convolutional feature extractor: a packed waveform signal to frames (section 2 of the paper, "feature encoder").

    `conv_norm="group"` normalises each channel of the first convolution over the time of its own utterance. The mean and
    variance of a linear function of waveform windows follow from the windows' mean and covariance, so they are known
    before the convolution runs, and fold into its weights: one small matrix for each utterance, no pass over the output.

    Args:
        convs: the convolutions, the first one with one input channel.
        norms: layer norms, one for each convolution ("layer"), or one `(weight, bias)` holder for the first ("group").
        conv_norm: "group" or "layer".
        chunk: frames computed at a time, which bounds the memory of the wide early layers and keeps them in cache.

    Example:
        >>> extractor = ConvExtractor([FrameConv(1, 8, kernel=10, stride=5)], [nn.GroupNorm(8, 8)], "group")
        >>> extractor(torch.randn(100), starts=[0], lengths=[98]).shape
        torch.Size([18, 8])
    """

    def __init__(self, convs: Sequence[FrameConv], norms: Sequence[nn.Module], conv_norm: str, chunk: int = 50) -> None:
        super().__init__()
        self.convs: Sequence[FrameConv] = nn.ModuleList(convs)  # type: ignore[assignment]
        self.norms: Sequence[nn.Module] = nn.ModuleList(norms)  # type: ignore[assignment]
        self.conv_norm = conv_norm
        self.chunk = chunk
        self.geometry = tuple((conv.kernel, conv.stride) for conv in convs)
        self.receptive_field = receptive_field(self.geometry)
        self.stride = 1
        for _, stride in self.geometry:
            self.stride *= stride

    def forward(self, signal: Tensor, starts: Sequence[int], lengths: Sequence[int]) -> Tensor:
        """The frames of all utterances, packed.

        Args:
            signal: `(T,)` waveforms on a grid of `stride` samples (`hubcore.ragged.pack_on_grid`).
            starts: first grid cell of each utterance.
            lengths: samples of each utterance.

        Returns:
            `(N, C)`.
        """
        folded = self._fold_group_norm(signal, starts, lengths) if self.conv_norm == "group" else []
        total = conv_length(signal.shape[0], self.geometry)
        chunk = total if torch.compiler.is_compiling() else self.chunk  # a traced loop is written out, round by round
        chunks, begin = [], 0
        for first in range(0, total, chunk):
            last = min(first + chunk, total)
            samples = signal[first * self.stride : (last - 1) * self.stride + self.receptive_field]
            # The utterances of this chunk alone: walking all of them for every chunk would be quadratic.
            while begin + 1 < len(starts) and starts[begin + 1] <= first:
                begin += 1
            end = begin - (-samples.shape[0] // self.stride)
            chunks.append(self._chunk(samples, [start - first for start in starts[begin:end]], folded[begin:end]))
        frames = chunks[0] if len(chunks) == 1 else torch.cat(chunks)  # (grid cells, C), some between utterances
        counts = [conv_length(n, self.geometry) for n in lengths]
        if len(starts) == 1:
            return frames[: counts[0]]
        return torch.cat([frames[start : start + count] for start, count in zip(starts, counts, strict=True)])

    def _chunk(self, samples: Tensor, starts: Sequence[int], folded: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
        """The frames of some samples, `(chunk, C)`; `starts` are the grid cells, counted from there, of its utterances."""
        x = self._first(samples, starts, folded)
        for index, conv in enumerate(self.convs):
            if index:
                x = conv(x)
                x = functional.gelu(self.norms[index](x) if self.conv_norm == "layer" else x)
        return x

    def _first(self, samples: Tensor, starts: Sequence[int], folded: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
        """The first convolution, its norm and GELU, `(rows, C)` in the dtype of the weights.

        Neighbouring samples are nearly equal, so their differences do not survive 16 bits: this one runs in float32 whatever
        the model's dtype, under autocast too.
        """
        conv = self.convs[0]
        kernel, stride = self.geometry[0]
        with torch.autocast(samples.device.type, enabled=False):
            windows = samples.unfold(0, kernel, stride)  # (rows of the first convolution, kernel)
            if self.conv_norm == "layer":
                bias = None if conv.bias is None else conv.bias.to(windows.dtype)
                rows = functional.linear(windows, conv.weight.flatten(1).to(windows.dtype), bias)
                return functional.gelu(cast(Tensor, self.norms[0](rows.to(conv.weight.dtype))))
            bounds = [max(0, start * (self.stride // stride)) for start in starts] + [windows.shape[0]]
            pieces = [
                functional.linear(windows[low : min(high, windows.shape[0])], weight, shift)
                for low, high, (weight, shift) in zip(bounds[:-1], bounds[1:], folded, strict=True)
                if low < min(high, windows.shape[0])
            ]
            return functional.gelu(pieces[0] if len(pieces) == 1 else torch.cat(pieces)).to(conv.weight.dtype)

    def _fold_group_norm(self, signal: Tensor, starts: Sequence[int], lengths: Sequence[int]) -> list[tuple[Tensor, Tensor]]:
        """First convolution and group norm of each utterance as one `(C, kernel)` weight and one `(C,)` shift."""
        conv, norm = self.convs[0], cast(nn.GroupNorm, self.norms[0])
        wide = wide_dtype(signal.device)  # float64 costs nothing on a (kernel, kernel) matrix
        weight = conv.weight.flatten(1).to(wide)  # (C, kernel)
        folded = []
        for start, length in zip(starts, lengths, strict=True):
            wav = signal[start * self.stride : start * self.stride + length].to(wide)
            windows = wav.unfold(0, conv.kernel, conv.stride)  # (F of the first convolution, kernel)
            mean = windows.mean(0)  # (kernel,)
            covariance = weight.new_zeros(conv.kernel, conv.kernel)
            for some in windows.split(1 << 16):  # an hour of audio must not become kernel times an hour
                centred = some - mean
                covariance = covariance + centred.t() @ centred / windows.shape[0]
            variance = ((weight @ covariance) * weight).sum(1)  # (C,)
            scale = norm.weight.to(wide) * (variance + norm.eps).rsqrt()  # (C,)
            shift = norm.bias.to(wide) - weight @ mean * scale
            if conv.bias is not None:  # it cancels out, but a parameter without any gradient stops distributed training
                shift = shift + 0 * conv.bias.to(wide)
            folded.append(((weight * scale[:, None]).to(signal.dtype), shift.to(signal.dtype)))
        return folded
