"""Strided convolutions over waveforms and frames: `FrameConv`, and `ConvExtractor`, the front of most speech encoders.

`plain_features` says in torch's own terms what `ConvExtractor` computes; the class computes the same for all utterances at
once, faster, and without padding.

Shapes: `T` samples or rows, `F` frames, `N` packed frames of all utterances, `C` channels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from hubcore.nn.padded import Padded, PaddedWavs, group_norm_padded, output_lengths, together
from hubcore.nn.products import by_onednn, linear
from hubcore.ragged import conv_length, grid_owners, receptive_field, taken, wide_dtype
from hubcore.strategy import few_calls, upload

_BYTES_AT_ONCE = 4 << 30
"""Memory of the widest convolution's output on a GPU: five minutes of audio at base size."""
_WINDOWS = 1 << 16
"""Windows of which moments are taken at a time; an hour of audio must not become kernel times an hour."""


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


def padded_features(extractor: ConvExtractor, wavs: PaddedWavs) -> tuple[Tensor, Padded]:
    """`plain_features` of a padded batch: `(B x F, C)`, and the frames of each utterance.

    Example:
        >>> from hubcore.nn import SpeechEncoderConfig, build_extractor
        >>> features, counts = padded_features(
        ...     build_extractor(SpeechEncoderConfig()), PaddedWavs(torch.randn(2, 800), torch.tensor([400, 800]))
        ... )
        >>> features.shape, counts.lengths.tolist()
        (torch.Size([4, 512]), [1, 2])
    """
    x, counts = wavs.samples[:, None], wavs.counts  # (B, 1, T)
    for index, conv in enumerate(extractor.convs):
        x = functional.conv1d(x, conv.weight.transpose(1, 2), conv.bias, stride=conv.stride)  # (B, C, F)
        counts = Padded(output_lengths(counts.lengths, conv.kernel, conv.stride), x.shape[2])
        rows = together(x.transpose(1, 2))  # (B x F, C)
        if extractor.conv_norm == "layer":
            rows = extractor.norms[index](rows)
        elif index == 0:
            rows = group_norm_padded(rows, counts, cast(nn.GroupNorm, extractor.norms[0]))
        rows = functional.gelu(rows)
        x = counts.apart(rows).transpose(1, 2)
    return rows, counts


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

    def forward(self, rows: Tensor, *, gelu: bool = False) -> Tensor:
        """`(T, C_in)` to `(F, C_out)` with `F = (T - kernel) // stride + 1`, then GELU where it is asked for."""
        _, kernel, in_channels = self.weight.shape
        frames = (rows.shape[0] - kernel) // self.stride + 1
        step, weight = self.stride * in_channels, self.weight.flatten(1)  # (C_out, kernel * C_in)
        samples = rows.contiguous().flatten()
        windows = samples.unfold(0, kernel * in_channels, step)  # (F, kernel * C_in)
        if kernel <= self.stride or by_onednn(windows, weight):
            return linear(windows, weight, self.bias, gelu=gelu)
        out, first = linear(samples.unfold(0, step, step)[:frames], weight[:, :step], self.bias), step
        for part in weight[:, step:].split(step, 1):  # (C_out, taps * C_in) each
            reached = samples[first : first + (frames - 1) * step + part.shape[1]]
            # Under autocast the first product is narrower than the weights; an in-place sum must be told so.
            out.addmm_(reached.unfold(0, part.shape[1], step).to(out.dtype), part.t().to(out.dtype))
            first += part.shape[1]
        return functional.gelu(out) if gelu else out


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
        if few_calls(signal.device):
            return self._at_once(signal, starts, lengths)
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

    def in_parts(self, read: Callable[[int, int], Tensor], length: int, device: torch.device) -> Iterator[Tensor]:
        """The frames of one waveform, `(F, C)` at a time: those that `forward` gives, in memory that does not grow with it.

        Args:
            read: gives the float32 samples from one place to another, `(T,)`; with a group norm each is read three times.
            length: all samples.
            device: where they are.
        """
        folded = [self._fold_in_parts(read, length, device)] if self.conv_norm == "group" else []
        total, at_once = conv_length(length, self.geometry), 2000 if few_calls(device) else self.chunk
        for first in range(0, total, at_once):
            last = min(first + at_once, total)
            samples = read(first * self.stride, (last - 1) * self.stride + self.receptive_field)
            yield self._chunk(samples, [0], folded)

    def _chunk(self, samples: Tensor, starts: Sequence[int], folded: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
        """The frames of some samples, `(chunk, C)`; `starts` are the grid cells, counted from there, of its utterances."""
        return self._rest(self._first(samples, starts, folded))

    def _rest(self, x: Tensor) -> Tensor:
        """The convolutions behind the first, `(rows, C)` to `(frames, C)`."""
        for index, conv in enumerate(self.convs):
            if index:
                if self.conv_norm == "layer":
                    x = functional.gelu(cast(Tensor, self.norms[index](conv(x))))
                else:
                    x = conv(x, gelu=True)
        return x

    def _first(self, samples: Tensor, starts: Sequence[int], folded: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
        """The first convolution, its norm and GELU, `(rows, C)` in the dtype of the weights.

        Neighbouring samples are nearly equal, so their differences do not survive 16 bits: this one runs in float32 whatever
        the model's dtype, under autocast too.
        """
        conv = self.convs[0]
        kernel, stride = self.geometry[0]
        windows = samples.unfold(0, kernel, stride)  # (rows of the first convolution, kernel)
        if self.conv_norm == "layer":
            return self._first_of_layer_norm(windows)
        with torch.autocast(samples.device.type, enabled=False):
            bounds = [max(0, start * (self.stride // stride)) for start in starts] + [windows.shape[0]]
            pieces = [
                linear(windows[low : min(high, windows.shape[0])], weight, shift, gelu=True)
                for low, high, (weight, shift) in zip(bounds[:-1], bounds[1:], folded, strict=True)
                if low < min(high, windows.shape[0])
            ]
            return (pieces[0] if len(pieces) == 1 else torch.cat(pieces)).to(conv.weight.dtype)

    def _first_of_layer_norm(self, windows: Tensor) -> Tensor:
        """`_first` of windows `(rows, kernel)` where each row is normalised by itself."""
        conv = self.convs[0]
        with torch.autocast(windows.device.type, enabled=False):
            bias = None if conv.bias is None else conv.bias.to(windows.dtype)
            rows = linear(windows, conv.weight.flatten(1).to(windows.dtype), bias)
            return functional.gelu(cast(Tensor, self.norms[0](rows.to(conv.weight.dtype))))

    def _at_once(self, signal: Tensor, starts: Sequence[int], lengths: Sequence[int]) -> Tensor:
        """`forward` in as many calls as for one utterance, except that memory bounds how many frames are computed at a time."""
        kernel, stride = self.geometry[0]
        cells, per_cell = signal.shape[0] // self.stride, self.stride // stride  # rows of the first convolution in a grid cell
        reach = (self.receptive_field - kernel) // stride + 1  # rows that one frame sees, more than a cell has
        extra = -(-(reach - per_cell) // per_cell)  # cells behind the last frame's own
        signal = functional.pad(signal, (0, extra * self.stride + max(0, kernel - stride)))
        owners = grid_owners(starts, cells, signal.device, extra)
        folded = self._fold_at_once(signal, owners, per_cell, starts, lengths) if self.conv_norm == "group" else None
        row_bytes = 2 * self.convs[0].weight.shape[0] * 4  # the first convolution's output, before and after GELU
        chunk = max(1, _BYTES_AT_ONCE // (per_cell * row_bytes))
        chunks = []
        for first in range(0, cells, chunk):
            last = min(first + chunk, cells)
            samples = signal[first * self.stride : (last + extra) * self.stride + max(0, kernel - stride)]
            windows = samples.unfold(0, kernel, stride).unflatten(0, (-1, per_cell))  # (cells, rows, kernel)
            own = owners[first : last + extra]
            x = self._first_at_once(windows, folded and (folded[0].index_select(0, own), folded[1].index_select(0, own)))
            chunks.append(self._rest(x[: (last - first - 1) * per_cell + reach]))
        frames = chunks[0] if len(chunks) == 1 else torch.cat(chunks)  # (grid cells, C)
        return taken(frames, [conv_length(n, self.geometry) for n in lengths], starts)

    def _first_at_once(self, windows: Tensor, folded: tuple[Tensor, Tensor] | None) -> Tensor:
        """`_first` for windows `(cells, rows, kernel)` and the folded weight and shift of each cell."""
        if folded is None:
            return self._first_of_layer_norm(windows.flatten(0, 1))
        weight, shift = folded  # (cells, C, kernel) and (cells, C)
        with torch.autocast(windows.device.type, enabled=False):
            rows = torch.baddbmm(shift[:, None], windows, weight.transpose(1, 2))  # (cells, rows, C)
            return functional.gelu(rows).flatten(0, 1).to(self.convs[0].weight.dtype)

    def _fold_at_once(
        self, signal: Tensor, owners: Tensor, per_cell: int, starts: Sequence[int], lengths: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        """`_fold_group_norm` of all utterances: weights `(B, C, kernel)` and shifts `(B, C)`.

        Moments of each grid cell's windows are added up for its utterance; float64 needs no mean taken off before.
        """
        conv, wide = self.convs[0], wide_dtype(signal.device)
        counts = [conv_length(length, self.geometry[:1]) for length in lengths]  # windows of each utterance
        ends = np.repeat(np.multiply(starts, per_cell) + counts, np.diff([*starts, len(owners)]))
        valid = upload((ends - np.arange(len(owners)) * per_cell)[:, None, None], signal.device)  # windows of each cell
        windows = signal.unfold(0, conv.kernel, conv.stride)[: len(owners) * per_cell].unflatten(0, (-1, per_cell)).to(wide)
        masked = windows * (torch.arange(per_cell, device=signal.device)[:, None] < valid)  # (cells, rows, kernel)
        number = upload(np.array(counts)[:, None, None], signal.device)  # (B, 1, 1)
        mean = masked.new_zeros(len(counts), 1, conv.kernel).index_add(0, owners, masked.sum(1, keepdim=True)) / number
        square = masked.new_zeros(len(counts), conv.kernel, conv.kernel)
        square = square.index_add(0, owners, torch.bmm(masked.transpose(1, 2), windows)) / number
        return self._folded(mean[:, 0], square - mean.transpose(1, 2) * mean, signal.dtype)

    def _fold_group_norm(self, signal: Tensor, starts: Sequence[int], lengths: Sequence[int]) -> list[tuple[Tensor, Tensor]]:
        """First convolution and group norm of each utterance as one `(C, kernel)` weight and one `(C,)` shift."""
        conv = self.convs[0]
        folded = []
        for start, length in zip(starts, lengths, strict=True):
            wav = signal[start * self.stride : start * self.stride + length].to(wide_dtype(signal.device))
            windows = wav.unfold(0, conv.kernel, conv.stride)  # (F of the first convolution, kernel)
            mean = windows.mean(0)  # (kernel,)
            folded.append(self._folded(mean, _covariance(windows.split(_WINDOWS), mean, windows.shape[0]), signal.dtype))
        return folded

    def _fold_in_parts(self, read: Callable[[int, int], Tensor], length: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """`_fold_group_norm` of one waveform that is read twice, some samples at a time."""
        conv, wide = self.convs[0], wide_dtype(device)
        count = conv_length(length, self.geometry[:1])

        def parts() -> Iterator[Tensor]:
            for first in range(0, count, _WINDOWS):
                last = min(first + _WINDOWS, count) - 1
                samples = read(first * conv.stride, last * conv.stride + conv.kernel)
                yield samples.to(wide).unfold(0, conv.kernel, conv.stride)

        mean = sum((windows.sum(0) for windows in parts()), torch.zeros((), dtype=wide, device=device)) / count
        return self._folded(mean, _covariance(parts(), mean, count), torch.float32)

    def _folded(self, mean: Tensor, covariance: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """`(..., C, kernel)` weight and `(..., C)` shift, from the wide mean `(..., kernel)` and covariance of windows."""
        conv, norm = self.convs[0], cast(nn.GroupNorm, self.norms[0])
        weight = conv.weight.flatten(1).to(mean.dtype)  # (C, kernel); 64 bits cost nothing on a (kernel, kernel) matrix
        variance = ((weight @ covariance) * weight).sum(-1)  # (..., C)
        scale = norm.weight.to(mean.dtype) * (variance + norm.eps).rsqrt()  # (..., C)
        shift = norm.bias.to(mean.dtype) - mean @ weight.t() * scale
        if conv.bias is not None:  # it cancels out, but a parameter without any gradient stops distributed training
            shift = shift + 0 * conv.bias.to(mean.dtype)
        return (weight * scale[..., None]).to(dtype), shift.to(dtype)


def _covariance(parts: Iterable[Tensor], mean: Tensor, count: int) -> Tensor:
    """`(kernel, kernel)` covariance of `count` windows `(rows, kernel)`, some at a time, around their mean."""
    covariance = mean.new_zeros(len(mean), len(mean))
    for windows in parts:
        centred = windows - mean
        covariance = covariance + centred.t() @ centred / count
    return covariance
