"""Operations over packed frames that need more than one frame: convolution, group norm, recurrent networks.

Each utterance's rows are those it has alone. Shapes: `F` frames of one utterance, `N` packed frames of all, `D` dim.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import accumulate

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence

from hubcore.nn.padded import Padded, conv_padded, group_norm_padded, recurrent_padded
from hubcore.nn.products import by_onednn, few_sizes, padded_to
from hubcore.ragged import pad_packed, placed, taken, with_gaps, without_gaps
from hubcore.strategy import counted, few_calls


def conv_same(
    x: Tensor, counts: Sequence[int], weight: Tensor, bias: Tensor | None, groups: int = 1, scale: Tensor | None = None
) -> Tensor:
    """Convolution of stride 1 that keeps the number of frames, `(N, D)` to `(N, D')`, each utterance among zeros.

    An even kernel reaches one frame further back than ahead.

    Args:
        x: `(N, D)` packed frames.
        counts: frames of each utterance.
        weight: `(D', D / groups, kernel)`.
        bias: `(D',)`.
        groups: groups of channels; `D` for a depthwise convolution.
        scale: `(kernel,)`, what each tap of `weight` is multiplied by.

    Example:
        >>> conv_same(torch.ones(5, 1), [2, 3], torch.ones(1, 1, 3), None)[:, 0].tolist()
        [2.0, 2.0, 2.0, 3.0, 2.0]
    """
    gap = weight.shape[2] // 2
    if isinstance(counts, Padded):
        scaled = weight if scale is None else (weight * scale).to(weight.dtype)
        return conv_padded(x, counts, scaled, bias, padding=(gap, (weight.shape[2] - 1) // 2), groups=groups)[0]
    return without_gaps(_conv1d(with_gaps(x, counts, gap), weight, bias, 1, groups, scale), counts, gap)


def conv_strided(
    x: Tensor,
    counts: Sequence[int],
    weight: Tensor,
    bias: Tensor | None,
    *,
    stride: int = 1,
    padding: tuple[int, int] = (0, 0),
    groups: int = 1,
) -> tuple[Tensor, Sequence[int]]:
    """Convolution with a stride and any padding, such as a causal one; and the frames of each utterance after it.

    Args:
        x: `(N, D)` packed frames or samples.
        counts: those of each utterance.
        weight: `(D', D / groups, kernel)`.
        bias: `(D',)`.
        stride: frames from one output to the next.
        padding: zeros before and after each utterance.
        groups: groups of channels.

    Example:
        >>> rows, counts = conv_strided(torch.ones(9, 1), [4, 5], torch.ones(1, 1, 3), None, stride=2, padding=(1, 1))
        >>> rows[:, 0].tolist(), counts
        ([2.0, 3.0, 2.0, 3.0, 2.0], [2, 3])
    """
    if isinstance(counts, Padded):
        return conv_padded(x, counts, weight, bias, stride=stride, padding=padding, groups=groups)
    if few_calls(x.device):
        lengths = [sum(padding) + count for count in counts]
        begins = [*accumulate((length + -length % stride for length in lengths), initial=0)]
        rows = placed(x, counts, [begin + padding[0] for begin in begins[:-1]], begins[-1])
        left = counted([max(0, (length - weight.shape[2]) // stride + 1) for length in lengths], x.device)
        return taken(_conv1d(rows, weight, bias, stride, groups), left, [begin // stride for begin in begins[:-1]]), left
    pieces, kept, at = [], [], 0
    for rows in x.split(list(counts)):
        length = sum(padding) + rows.shape[0]
        fill = -length % stride  # every utterance starts on the grid of the stride
        pieces.append(functional.pad(rows, (0, 0, padding[0], padding[1] + fill)))
        kept.append((at // stride, max(0, (length - weight.shape[2]) // stride + 1)))
        at += length + fill
    out = _conv1d(torch.cat(pieces), weight, bias, stride, groups)
    return torch.cat([out[start : start + count] for start, count in kept]), [count for _, count in kept]


def group_norm(x: Tensor, counts: Sequence[int], norm: nn.GroupNorm) -> Tensor:
    """Group norm over the time and the channels of each utterance, `(N, D)` to `(N, D)`.

    Example:
        >>> group_norm(torch.tensor([[1.0], [3.0], [7.0]]), [2, 1], nn.GroupNorm(1, 1)).flatten().round().tolist()
        [-1.0, 1.0, 0.0]
    """
    if isinstance(counts, Padded):
        return group_norm_padded(x, counts, norm)
    options = (norm.num_groups, norm.weight, norm.bias, norm.eps)
    return torch.cat([torch.group_norm(rows.t()[None], *options)[0].t() for rows in x.split(list(counts))])


def run_recurrent(net: nn.RNNBase, x: Tensor, counts: Sequence[int]) -> Tensor:
    """The outputs of an LSTM, GRU or RNN that starts again for each utterance, `(N, D)` to `(N, D')`.

    Example:
        >>> run_recurrent(nn.LSTM(4, 8, bidirectional=True), torch.zeros(5, 4), [2, 3]).shape
        torch.Size([5, 16])
    """
    if isinstance(counts, Padded):
        return recurrent_padded(net, x, counts)
    if few_calls(x.device) and not net.bidirectional:  # frames behind an utterance's end change none of its own
        padded: Tensor = net(pad_packed(x, counts).transpose(0, 1))[0].transpose(0, 1)  # (B, F, D')
        return taken(padded.flatten(0, 1), counts, range(0, padded.shape[0] * padded.shape[1], padded.shape[1]))
    lengths = torch.tensor(counts, device="cpu")
    rows = pack_padded_sequence(pad_sequence(x.split(list(counts))), lengths, enforce_sorted=False)
    out, _ = pad_packed_sequence(net(rows)[0], batch_first=True)  # (B, F, D')
    return torch.cat([rows[:count] for rows, count in zip(out, counts, strict=True)])


_FEW_ROWS = 256
"""Rows below which making the scaled weights of all groups costs more than the convolution; those of one fit into a cache."""


def _conv1d(rows: Tensor, weight: Tensor, bias: Tensor | None, stride: int, groups: int, scale: Tensor | None = None) -> Tensor:
    """A convolution over rows `(T, D)` without padding, exact on every device."""
    traced = torch.is_grad_enabled() or torch.compiler.is_compiling()
    if scale is not None and groups > 1 and rows.shape[0] < _FEW_ROWS and not traced and not few_calls(rows.device):
        weights, biases = weight.chunk(groups), [None] * groups if bias is None else bias.chunk(groups)
        parts = zip(rows.chunk(groups, 1), weights, biases, strict=True)
        return torch.cat([_conv1d(rows_g, weight_g, bias_g, stride, 1, scale) for rows_g, weight_g, bias_g in parts], 1)
    if by_onednn(rows, weight) and rows.shape[0] >= _FEW_ROWS:
        return _conv_of_rows(rows, weight, bias, stride, groups, scale)
    if scale is not None:
        weight = (weight * scale).to(weight.dtype)
    # torch 2.13's grouped convolution in bfloat16 is wrong on CPUs without bfloat16 units (off by 90 % when measured).
    wide = torch.float32 if rows.device.type == "cpu" and rows.dtype == torch.bfloat16 else rows.dtype
    bias = None if bias is None else bias.to(wide)
    x = rows.to(wide).t()[None]  # (1, D, T)
    with full_precision(x), torch.autocast(rows.device.type, enabled=False):
        return functional.conv1d(x, weight.to(wide), bias, stride, groups=groups)[0].t().to(rows.dtype)


def _conv_of_rows(rows: Tensor, weight: Tensor, bias: Tensor | None, stride: int, groups: int, scale: Tensor | None) -> Tensor:
    """`_conv1d` by oneDNN in the rows' own layout, in which wide groups take half the time, with weights laid out like them."""
    taps = weight.new_empty(weight.shape[0], weight.shape[2], weight.shape[1])  # (D', kernel, D / groups)
    if scale is None:
        taps.copy_(weight.transpose(1, 2))
    else:
        torch.mul(weight.transpose(1, 2), scale[:, None], out=taps)
    x = padded_to(rows, few_sizes(rows.shape[0])).t()[None, :, None]  # (1, D, 1, T)
    out = functional.conv2d(x, taps.transpose(1, 2)[:, :, None], bias, (1, stride), groups=groups)
    return out[0, :, 0, : (rows.shape[0] - weight.shape[2]) // stride + 1].t()


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
