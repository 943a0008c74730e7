"""The parts of a wav2vec 2.0 encoder: convolutional extractor, position embedding, attention, feed-forward, block.

All of them work on packed frames `(N, D)`, the `N = F_1 + ... + F_B` frames of all utterances end to end, so no part ever
sees padding. Shapes: `B` batch, `T` samples, `F` frames, `N` packed frames, `C` channels, `D` dim, `H` heads.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from hubcore.ragged import conv_length, receptive_field, with_gaps, without_gaps


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
        rows = rows.contiguous()
        out: Tensor | None = None
        for tap in range(0, kernel, self.stride):
            taps = min(self.stride, kernel - tap)
            window = rows.as_strided(
                (frames, taps * in_channels),
                (self.stride * in_channels, 1),
                rows.storage_offset() + tap * in_channels,
            )
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
    """

    def __init__(self, convs: Sequence[FrameConv], norms: Sequence[nn.Module], conv_norm: str, chunk: int = 50) -> None:
        super().__init__()
        self.convs = nn.ModuleList(convs)
        self.norms = nn.ModuleList(norms)
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
        chunks = []
        for first in range(0, total, self.chunk):
            last = min(first + self.chunk, total)
            samples = signal[first * self.stride : (last - 1) * self.stride + self.receptive_field]
            chunks.append(self._chunk(samples, first, starts, folded))
        frames = chunks[0] if len(chunks) == 1 else torch.cat(chunks)  # (grid cells, C), some between utterances
        counts = [conv_length(n, self.geometry) for n in lengths]
        if len(starts) == 1:
            return frames[: counts[0]]
        return torch.cat([frames[start : start + count] for start, count in zip(starts, counts, strict=True)])

    def _chunk(self, samples: Tensor, first: int, starts: Sequence[int], folded: list[tuple[Tensor, Tensor]]) -> Tensor:
        """Frames `first`, `first + 1`, ... from their samples, `(chunk, C)`."""
        x = self._first(samples, first, starts, folded)
        for index, conv in enumerate(self.convs):
            if index:
                x = conv(x)
                x = functional.gelu(self.norms[index](x) if self.conv_norm == "layer" else x)
        return x

    def _first(self, samples: Tensor, first: int, starts: Sequence[int], folded: list[tuple[Tensor, Tensor]]) -> Tensor:
        """The first convolution, its norm and GELU, `(rows, C)` in the dtype of the weights.

        Neighbouring samples are nearly equal, so their differences do not survive 16 bits: this one runs in float32 whatever
        the model's dtype, under autocast too.
        """
        conv = cast(FrameConv, self.convs[0])
        kernel, stride = self.geometry[0]
        with torch.autocast(samples.device.type, enabled=False):
            windows = samples.unfold(0, kernel, stride)  # (rows of the first convolution, kernel)
            if self.conv_norm == "layer":
                bias = None if conv.bias is None else conv.bias.to(windows.dtype)
                rows = functional.linear(windows, conv.weight.flatten(1).to(windows.dtype), bias)
                return functional.gelu(cast(Tensor, self.norms[0](rows.to(conv.weight.dtype))))
            # The utterances of this chunk alone: walking all of them for every chunk would be quadratic.
            begin = bisect_right(starts, first) - 1
            end = bisect_left(starts, first - (-samples.shape[0] // self.stride))
            bounds = [max(0, (start - first) * (self.stride // stride)) for start in starts[begin:end]] + [windows.shape[0]]
            pieces = [
                functional.linear(windows[low : min(high, windows.shape[0])], weight, shift)
                for low, high, (weight, shift) in zip(bounds[:-1], bounds[1:], folded[begin:end], strict=True)
                if low < min(high, windows.shape[0])
            ]
            return functional.gelu(pieces[0] if len(pieces) == 1 else torch.cat(pieces)).to(conv.weight.dtype)

    def _fold_group_norm(self, signal: Tensor, starts: Sequence[int], lengths: Sequence[int]) -> list[tuple[Tensor, Tensor]]:
        """First convolution and group norm of each utterance as one `(C, kernel)` weight and one `(C,)` shift."""
        conv, norm = cast(FrameConv, self.convs[0]), cast(nn.GroupNorm, self.norms[0])
        # float64 costs nothing on a (kernel, kernel) matrix; Apple's GPUs do not have it.
        wide = torch.float32 if signal.device.type == "mps" else torch.float64
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


def full_precision(x: Tensor) -> AbstractContextManager[None]:
    """A context in which convolutions of float32 tensors on an NVIDIA GPU use all their bits, not TensorFloat-32's ten.

    Example:
        >>> with full_precision(torch.zeros(1)):
        ...     pass
    """
    cudnn = torch.backends.cudnn
    if x.device.type != "cuda" or x.dtype != torch.float32:
        return nullcontext()
    given = {"enabled": cudnn.enabled, "benchmark": cudnn.benchmark, "deterministic": cudnn.deterministic}
    return cudnn.flags(**given, allow_tf32=False)


class PositionalConv(nn.Module):
    """The convolutional position embedding: a grouped convolution with weight norm, then GELU, `(N, D)` to `(N, D)`.

    `weight_g` `(1, 1, kernel)` and `weight_v` `(D, D / groups, kernel)` are the two parts of the weight norm, as the
    checkpoints hold them. Each utterance is surrounded by zeros, so that none reaches into its neighbour.
    fairseq: `conv_pos`, `conv_pos_groups`; an even kernel drops the last output (`SamePad`).
    """

    def __init__(self, dim: int, kernel: int, groups: int) -> None:
        super().__init__()
        self.kernel, self.groups = kernel, groups
        self.weight_g = nn.Parameter(torch.empty(1, 1, kernel))
        self.weight_v = nn.Parameter(torch.empty(dim, dim // groups, kernel))
        self.bias = nn.Parameter(torch.empty(dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Normal weights of variance 4 / (kernel x dim), zero bias. fairseq: `make_conv_pos`."""
        nn.init.normal_(self.weight_v, std=(4 / (self.kernel * self.weight_v.shape[0])) ** 0.5)
        nn.init.zeros_(self.bias)
        with torch.no_grad():
            self.weight_g.copy_(torch.linalg.vector_norm(self.weight_v, dim=(0, 1), keepdim=True))

    def weight(self) -> Tensor:
        """The convolution's weight, `(D, D / groups, kernel)`: each tap of `weight_v` scaled to the norm in `weight_g`."""
        # A plain sum is ten times as fast as torch's norm over two axes; it needs 32 bits, being one over thousands.
        v = self.weight_v.to(torch.promote_types(self.weight_v.dtype, torch.float32))
        norm = v.square().flatten(0, 1).sum(0).sqrt()  # (kernel,)
        return (v * (self.weight_g / norm)).to(self.weight_v.dtype)

    def forward(self, x: Tensor, lengths: Sequence[int]) -> Tensor:
        """Position embedding `(N, D)` of packed frames `(N, D)`; `lengths` are the frames of each utterance."""
        dtype = x.dtype
        # torch 2.13's grouped convolution in bfloat16 is wrong on CPUs without bfloat16 units (off by 90 % when measured).
        wide = torch.float32 if x.device.type == "cpu" and dtype == torch.bfloat16 else dtype
        gap = self.kernel // 2
        spaced = with_gaps(x.to(wide), lengths, gap).t()[None]  # (1, D, N + gaps)
        with full_precision(spaced), torch.autocast(x.device.type, enabled=False):
            out = functional.conv1d(spaced, self.weight().to(wide), self.bias.to(wide), groups=self.groups)[0].t()
        return functional.gelu(without_gaps(out, lengths, gap)).to(dtype)


class SelfAttention(nn.Module):
    """Multi-head self-attention within each utterance, `(N, D)` to `(N, D)`."""

    def __init__(self, dim: int, num_heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.num_heads, self.dropout = num_heads, dropout
        self.q_proj = nn.Linear(dim, dim)
        self.k_proj = nn.Linear(dim, dim)
        self.v_proj = nn.Linear(dim, dim)
        self.out_proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, lengths: Sequence[int]) -> Tensor:
        """Packed frames `(N, D)` in and out; `lengths` are the frames of each utterance."""
        heads = [proj(x).unflatten(1, (self.num_heads, -1)).transpose(0, 1) for proj in (self.q_proj, self.k_proj, self.v_proj)]
        query, key, value = (h.split(list(lengths), dim=1) for h in heads)  # each (H, F_i, D / H)
        dropout = self.dropout if self.training else 0.0
        out = [
            functional.scaled_dot_product_attention(q[None], k[None], v[None], dropout_p=dropout)[0].transpose(0, 1).flatten(1)
            for q, k, v in zip(query, key, value, strict=True)
        ]
        mixed: Tensor = self.out_proj(out[0] if len(out) == 1 else torch.cat(out))
        return mixed


class FeedForward(nn.Module):
    """Linear, GELU, linear: `(N, D)` to `(N, D)`. fairseq: `fc1`, `fc2`."""

    def __init__(self, dim: int, inner_dim: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, inner_dim)
        self.fc2 = nn.Linear(inner_dim, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Frames `(N, D)` in and out."""
        out: Tensor = self.fc2(self.dropout(functional.gelu(self.fc1(x))))
        return out


class Block(nn.Module):
    """One transformer block, post-norm (`pre_norm=False`, the original transformer) or pre-norm, `(N, D)` to `(N, D)`.

    Args:
        attention: called as `attention(x, lengths)`.
        feed_forward: called as `feed_forward(x)`.
        dim: width `D`.
        pre_norm: fairseq: `layer_norm_first`.
        dropout: after attention and after feed-forward, in train mode.
    """

    def __init__(self, attention: nn.Module, feed_forward: nn.Module, dim: int, *, pre_norm: bool, dropout: float) -> None:
        super().__init__()
        self.pre_norm = pre_norm
        self.attention = attention
        self.attention_norm = nn.LayerNorm(dim)
        self.feed_forward = feed_forward
        self.feed_forward_norm = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, lengths: Sequence[int]) -> Tensor:
        """Packed frames `(N, D)` in and out; `lengths` are the frames of each utterance."""
        if self.pre_norm:
            x = x + self.dropout(self.attention(self.attention_norm(x), lengths))
            x = x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))
        else:
            x = self.attention_norm(x + self.dropout(self.attention(x, lengths)))
            x = self.feed_forward_norm(x + self.dropout(self.feed_forward(x)))
        return x
