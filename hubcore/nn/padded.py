"""Padded batches, for graphs that other programs run: the parts of `hubcore.nn` compute on them what they do on packed frames.

A graph holds for any number of utterances of any lengths, so nothing in it may be split by lengths, as packed frames are.
There every utterance has as many rows as the longest, `(B x F, D)`, and `counts` is a `Padded`, from which masks are made.
What works on single frames needs not know. `hubcore export --format onnx` traces models in this form.

Shapes: `B` batch, `T` samples, `F` frames of the longest utterance, `N` rows (`B x F` here), `D` dim, `H` heads.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from torch.nn import functional

from hubcore.errors import OptionError
from hubcore.ragged import frame_mask, taken
from hubcore.strategy import counted, few_calls


class Padded(Sequence[int]):
    """Stands for the `counts` of a padded batch: `lengths` `(B,)`, frames of the utterances, and `longest`, what fits.

    To read a single count from it is an `OptionError`: while a graph is made there are none.

    Example:
        >>> counts = Padded(torch.tensor([1, 2]), longest=2)
        >>> counts.zeroed(torch.ones(4, 1))[:, 0].tolist()
        [1.0, 0.0, 1.0, 1.0]
        >>> max(counts)  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        hubcore.errors.OptionError: this model asks for the frames of single utterances, ...
    """

    def __init__(self, lengths: Tensor, longest: int) -> None:
        self.lengths, self.longest = lengths, longest

    def __len__(self) -> int:
        return self.lengths.shape[0]

    def __getitem__(self, index: Any) -> NoReturn:
        raise _no_single("the frames of single utterances")

    def mask(self) -> Tensor:
        """`(B, F)`, True where a row is an utterance's own."""
        return frame_mask(self.lengths, self.longest)

    def apart(self, rows: Tensor) -> Tensor:
        """`(B, F, ...)` from `(B x F, ...)`."""
        apart: Tensor = rows.unflatten(0, (self.lengths.shape[0], self.longest))
        return apart

    def zeroed(self, rows: Tensor) -> Tensor:
        """Rows `(B x F, D)`, those beyond the lengths exactly 0."""
        return rows.masked_fill(~self.mask().flatten()[:, None], 0.0)


class PaddedWavs(Sequence[Tensor]):
    """Stands for a list of waveforms: one tensor `(B, T)` with their `lengths` `(B,)`; samples beyond them do not matter.

    Example:
        >>> wavs = PaddedWavs(torch.tensor([[1.0, 3.0, 9.0]]), torch.tensor([2]))
        >>> wavs.samples.tolist(), wavs.normalized(eps=0.0).samples.tolist()
        ([[1.0, 3.0, 0.0]], [[-1.0, 1.0, 0.0]])
    """

    def __init__(self, samples: Tensor, lengths: Tensor) -> None:
        self.counts = Padded(lengths, samples.shape[1])
        self.samples = samples.masked_fill(~self.counts.mask(), 0.0)

    def __len__(self) -> int:
        return len(self.counts)

    def __getitem__(self, index: Any) -> NoReturn:
        raise _no_single("single waveforms")

    def normalized(self, eps: float) -> PaddedWavs:
        """Each with mean 0 and variance 1 over its own samples."""
        centred, variance = standardized(self.samples, self.counts)
        return PaddedWavs(centred * (variance + eps).rsqrt(), self.counts.lengths)


def _no_single(what: str) -> OptionError:
    return OptionError(
        f"this model asks for {what}, which a graph for any lengths does not have.",
        "Its authors can build it from the parts of hubcore.nn, which can do without.",
    )


def together(rows: Tensor) -> Tensor:
    """`(B x F, ...)` from `(B, F, ...)`.

    Example:
        >>> together(torch.zeros(2, 3, 8)).shape
        torch.Size([6, 8])
    """
    # A copy in any case: whether one is needed would depend on whether B or F is 1, and be written into the graph.
    return rows.clone(memory_format=torch.contiguous_format).flatten(0, 1)


def longest(counts: Sequence[int]) -> int:
    """Frames of the longest utterance.

    Example:
        >>> longest([2, 3]), longest(Padded(torch.tensor([2, 3]), 3))
        (3, 3)
    """
    return counts.longest if isinstance(counts, Padded) else max(counts)


def distances(frames: int, device: torch.device) -> Tensor:
    """`(F, F)`, how far key j is ahead of query i.

    Example:
        >>> distances(2, torch.device("cpu")).tolist()
        [[0, 1], [-1, 0]]
    """
    at = torch.arange(frames, device=device)
    return at[None] - at[:, None]


def from_start(rows: Tensor, counts: Sequence[int]) -> Tensor:
    """Values for frames counted from the start of an utterance, `(F, ...)`, for the frames of all, `(N, ...)`.

    Example:
        >>> from_start(torch.arange(3), [2, 3]).tolist(), from_start(torch.arange(3), Padded(torch.tensor([2, 3]), 3)).tolist()
        ([0, 1, 0, 1, 2], [0, 1, 2, 0, 1, 2])
    """
    if isinstance(counts, Padded):
        return together(rows.narrow(0, 0, counts.longest).expand(counts.lengths.shape[0], *[-1] * rows.ndim))
    return torch.cat([rows[:count] for count in counts])


def with_first(first: Tensor, x: Tensor, counts: Sequence[int]) -> tuple[Tensor, Sequence[int]]:
    """Frames `(N, D)` with the same `first` `(E, D)` before those of each utterance, and the counts with them.

    Example:
        >>> rows, counts = with_first(torch.zeros(1, 1), torch.ones(3, 1), [1, 2])
        >>> rows[:, 0].tolist(), counts
        ([0.0, 1.0, 0.0, 1.0, 1.0], [2, 3])
    """
    extra = len(first)
    if isinstance(counts, Padded):
        rows = torch.cat([first.expand(counts.lengths.shape[0], -1, -1), counts.apart(x)], 1)
        return together(rows), Padded(counts.lengths + extra, counts.longest + extra)
    rows = torch.cat([part for own in x.split(list(counts)) for part in (first, own)])
    return rows, counted([count + extra for count in counts], x.device)


def without_first(x: Tensor, counts: Sequence[int], extra: int) -> Tensor:
    """Frames `(N, D)` without the first `extra` of each utterance.

    Example:
        >>> without_first(torch.arange(5)[:, None], [2, 3], extra=1)[:, 0].tolist()
        [1, 3, 4]
    """
    if isinstance(counts, Padded):
        return together(counts.apart(x).narrow(1, extra, counts.longest - extra))
    if extra and few_calls(x.device):
        begins = accumulate(counts[:-1], initial=extra)
        return taken(x, [count - extra for count in counts], [*begins])
    return torch.cat([rows[extra:] for rows in x.split(list(counts))]) if extra else x


def output_lengths(lengths: Tensor, kernel: int, stride: int = 1) -> Tensor:
    """The numbers of frames `(B,)` that a convolution without padding gives; see `hubcore.ragged.conv_length`.

    Example:
        >>> output_lengths(torch.tensor([400, 9]), kernel=10, stride=5).tolist()
        [79, 0]
    """
    return ((lengths - kernel).div(stride, rounding_mode="floor") + 1).clamp(min=0)


def standardized(x: Tensor, counts: Padded) -> tuple[Tensor, Tensor]:
    """`x` `(B, F, ...)` minus its mean over an utterance's own rows, 0 beyond; and the variance, `(B, 1, ...)`.

    Example:
        >>> standardized(torch.tensor([[1.0, 3.0, 9.0]]), Padded(torch.tensor([2]), 3))
        (tensor([[-1.,  1.,  0.]]), tensor([[1.]]))
    """
    mask = counts.mask().reshape(*x.shape[:2], *[1] * (x.ndim - 2))
    each = counts.lengths.reshape(-1, *[1] * (x.ndim - 1))
    mean = x.masked_fill(~mask, 0.0).sum(1, keepdim=True) / each
    centred = (x - mean).masked_fill(~mask, 0.0)
    return centred, centred.square().sum(1, keepdim=True) / each


def attend_padded(
    q: Tensor, k: Tensor, v: Tensor, counts: Padded, num_heads: int, bias: Tensor | None, gate: Tensor | None
) -> Tensor:
    """See `hubcore.nn.attend`; the bias is `(H, F, F)` or `(B, H, F, F)`, and keys beyond the lengths count for nothing.

    Example:
        >>> x = torch.randn(4, 8)
        >>> mixed = attend_padded(x, x, x, Padded(torch.tensor([1, 2]), 2), 4, None, None)
        >>> torch.allclose(mixed[0], x[0])
        True
    """
    q, k, v = (counts.apart(x).unflatten(2, (num_heads, -1)).transpose(1, 2) for x in (q, k, v))  # (B, H, F, D / H)
    mask = counts.mask()[:, None, None].expand(-1, -1, counts.longest, -1)  # (B, 1, F, F)
    if bias is not None:
        if gate is not None:
            bias = bias * counts.apart(gate).transpose(1, 2)[..., None]
        mask = bias.to(q.dtype).masked_fill(~mask, -torch.inf)
    mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    return together(mixed.transpose(1, 2)).flatten(1)


def conv_padded(
    x: Tensor,
    counts: Padded,
    weight: Tensor,
    bias: Tensor | None,
    *,
    stride: int = 1,
    padding: tuple[int, int] = (0, 0),
    groups: int = 1,
) -> tuple[Tensor, Padded]:
    """See `hubcore.nn.conv_strided`.

    Example:
        >>> counts = Padded(torch.tensor([1, 2]), 2)
        >>> rows, counts = conv_padded(torch.ones(4, 1), counts, torch.ones(1, 1, 3), None, padding=(1, 1))
        >>> rows[:, 0].tolist(), counts.lengths.tolist()
        ([1.0, 1.0, 2.0, 2.0], [1, 2])
    """
    signal = functional.pad(counts.apart(counts.zeroed(x)).transpose(1, 2), padding)  # (B, D, F)
    out = functional.conv1d(signal, weight, bias, stride, groups=groups).transpose(1, 2)
    lengths = output_lengths(counts.lengths + sum(padding), weight.shape[2], stride)
    return together(out), Padded(lengths, out.shape[1])


def group_norm_padded(x: Tensor, counts: Padded, norm: nn.GroupNorm) -> Tensor:
    """See `hubcore.nn.group_norm`.

    Example:
        >>> x = torch.tensor([[1.0], [3.0], [7.0], [9.0]])
        >>> group_norm_padded(x, Padded(torch.tensor([2, 1]), 2), nn.GroupNorm(1, 1)).flatten()[:3].round().tolist()
        [-1.0, 1.0, 0.0]
    """
    rows = counts.apart(x).unflatten(2, (norm.num_groups, -1))  # (B, F, groups, D / groups)
    mask = counts.mask()[:, :, None, None]
    each = counts.lengths[:, None, None, None] * rows.shape[3]
    mean = rows.masked_fill(~mask, 0.0).sum((1, 3), keepdim=True) / each
    centred = (rows - mean).masked_fill(~mask, 0.0)
    variance = centred.square().sum((1, 3), keepdim=True) / each
    out = (centred * (variance + norm.eps).rsqrt()).flatten(2)
    return together(out * norm.weight + norm.bias if norm.affine else out)


def recurrent_padded(net: nn.RNNBase, x: Tensor, counts: Padded) -> Tensor:
    """See `hubcore.nn.run_recurrent`; a network that runs backwards too is an `OptionError`.

    Example:
        >>> recurrent_padded(nn.LSTM(4, 8), torch.zeros(4, 4), Padded(torch.tensor([1, 2]), 2)).shape
        torch.Size([4, 8])
    """
    if net.bidirectional or net.proj_size:
        raise OptionError("a recurrent network that runs backwards, or has projections, cannot be traced for any lengths.")
    rows = counts.apart(x).transpose(0, 1)  # (F, B, D)
    if torch.compiler.is_compiling():
        rows = functional.pad(rows, (0, 0, 0, 1, 0, 1))  # a loop over one frame, or one utterance, would be another graph
        for weights in net.all_weights:  # torch would write out the loop over the frames of the example
            rows = _scan(net.mode, rows, weights)
        rows = rows.narrow(0, 0, counts.longest).narrow(1, 0, counts.lengths.shape[0])
    else:
        rows = net(rows.transpose(0, 1))[0].transpose(0, 1) if net.batch_first else net(rows)[0]
    return together(rows.transpose(0, 1))


_CELLS = {"GRU": torch.gru_cell, "RNN_TANH": torch.rnn_tanh_cell, "RNN_RELU": torch.rnn_relu_cell}


def _scan(mode: str, rows: Tensor, weights: Sequence[Tensor]) -> Tensor:
    """One level of a recurrent network, `(F, B, D)` to `(F, B, D')`, as a loop inside the graph."""
    from torch._higher_order_ops.scan import scan

    def lstm(state: tuple[Tensor, Tensor], x: Tensor) -> tuple[tuple[Tensor, Tensor], Tensor]:
        h, c = torch.lstm_cell(x, state, *weights)
        return (h, c), h.clone()

    def other(state: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        h: Tensor = _CELLS[mode](x, state, *weights)
        return h, h.clone()

    start = rows.new_zeros(rows.shape[1], weights[1].shape[1])
    _, out = scan(lstm, (start, start.clone()), rows, dim=0) if mode == "LSTM" else scan(other, start, rows, dim=0)
    return out  # type: ignore[no-any-return]


def windows_padded(samples: Tensor, length: int, shift: int) -> Tensor:
    """`(B, F, length)` windows of `(B, T)` samples, each `shift` after the one before.

    Example:
        >>> windows_padded(torch.arange(5)[None], length=3, shift=2).tolist()
        [[[0, 1, 2], [2, 3, 4]]]
    """
    frames = (samples.shape[1] - length) // shift + 1
    index = torch.arange(frames, device=samples.device)[:, None] * shift + torch.arange(length, device=samples.device)
    windows: Tensor = samples.index_select(1, index.flatten()).unflatten(1, (frames, length))
    return windows


def take_rows(x: Tensor, index: Tensor) -> Tensor:
    """Row `index[b, f]` of each `x[b]`: `(B, F', ...)` from `(B, F, ...)` and `(B, F')`.

    Example:
        >>> take_rows(torch.tensor([[1, 2], [3, 4]]), torch.tensor([[1, 1, 0], [0, 0, 1]])).tolist()
        [[2, 2, 1], [3, 3, 4]]
    """
    index = index.reshape(*index.shape, *[1] * (x.ndim - 2))
    return x.gather(1, index.expand(-1, -1, *x.shape[2:]))
