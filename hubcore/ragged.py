"""Utterances of different lengths, computed together without padding.

Two layouts carry a batch through a model:

* **on a grid**: waveforms end to end in one `(T,)` signal, each starting on a multiple of a stride. Strided windows over
  the whole signal are then windows over each utterance; those that straddle two utterances are never used.
* **packed**: the frames of all utterances end to end, `(sum of F_i, D)`, without any gap. Whatever works on single
  frames (linear layers, layer norm) is one call on this.

Only what a caller receives is padded, with exact zeros. Shapes: `B` batch, `T` samples, `F` frames, `D` dim.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from hubcore.errors import AudioError, OptionError
from hubcore.strategy import Counts, few_calls, upload
from hubcore.text import plural


def check_wavs(
    wavs: Sequence[Tensor] | Tensor,
    lengths: Tensor | Sequence[int] | None = None,
    *,
    min_samples: int,
    sample_rate: int,
) -> list[Tensor]:
    """The batch as a list of valid 1-D float waveforms, views of the caller's memory wherever possible.

    Under `torch.compile` and `torch.export` shapes are checked, values are not: NaN and infinity go through.

    Args:
        wavs: 1-D float tensors (or numpy arrays) of any lengths, or one `(B, T)` tensor.
        lengths: `(B,)` samples of each row, only with a `(B, T)` tensor; all of `T` if None.
        min_samples: fewest samples that give a frame.
        sample_rate: named in the messages, in Hz.

    Raises:
        AudioError: empty batch, wrong rank or dtype, too short, NaN or infinite; it names the item.

    Example:
        >>> import torch
        >>> [len(w) for w in check_wavs(torch.zeros(2, 800), [800, 500], min_samples=400, sample_rate=16000)]
        [800, 500]
    """
    rows = _rows(wavs, lengths)
    if not rows:
        raise AudioError("the batch is empty. A model needs at least one waveform: pass [wav].")
    for index, row in enumerate(rows):
        if row.ndim != 1:
            raise AudioError(
                f"item {index} has shape {tuple(row.shape)}. Each waveform must be 1-D, one channel. "
                "Average or pick channels first; for a (B, T) batch pass the tensor itself, with lengths=."
            )
        if row.layout != torch.strided or row.device.type == "meta":
            raise AudioError(
                f"item {index} is {row.layout} on {row.device}. Samples must be in memory, one by one. Use a dense tensor."
            )
        if not row.is_floating_point() or row.dtype.itemsize < 2:
            raise AudioError(
                f"item {index} has dtype {row.dtype}. Samples must be floats, full scale being 1.0. "
                "Divide integer samples by their full scale (32768 for 16-bit audio)."
            )
        if row.shape[0] < min_samples:
            raise AudioError(
                f"item {index} has {plural(row.shape[0], 'sample')} ({1000 * row.shape[0] / sample_rate:.1f} ms). One frame "
                f"needs {plural(min_samples, 'sample')} ({1000 * min_samples / sample_rate:.1f} ms at {sample_rate} Hz). "
                "Leave it out, or pad it yourself if that is what you want."
            )
        if row.device != rows[0].device or row.dtype != rows[0].dtype:
            raise AudioError(
                f"item {index} is {row.dtype} on {row.device}, but item 0 is {rows[0].dtype} on {rows[0].device}. "
                "All waveforms of a batch must share dtype and device: convert them with wav.to(...)."
            )
    if torch.compiler.is_compiling():  # a traced part cannot stop at a value
        return rows
    if few_calls(rows[0].device):  # the one wait for the device; it is not needed where waveforms come from the host
        finite = math.isfinite(torch.linalg.vector_norm(torch.cat(rows).detach(), math.inf).item())
    else:
        extremes = torch.stack([value for row in rows for value in row.detach().aminmax()])  # one pass; NaN passes through
        finite = bool(extremes.isfinite().all())
    if not finite:
        index = next(i for i, row in enumerate(rows) if not bool(row.isfinite().all()))
        at = int((~rows[index].isfinite()).nonzero()[0])
        raise AudioError(
            f"item {index} has the value {float(rows[index][at])} at sample {at}. Every sample must be finite: one bad "
            "sample would spoil the whole utterance. Check how the audio was decoded or scaled."
        )
    return rows


def _rows(wavs: Sequence[Tensor] | Tensor, lengths: Tensor | Sequence[int] | None) -> list[Tensor]:
    if isinstance(wavs, Tensor):
        if wavs.ndim != 2:
            raise AudioError(
                f"the waveforms are one tensor of shape {tuple(wavs.shape)}. A batch is a list of 1-D tensors or one "
                "(B, T) tensor. For a single waveform pass [wav]."
            )
        if lengths is None:
            return list(wavs.unbind(0))
        counts = lengths.tolist() if isinstance(lengths, Tensor | np.ndarray) else lengths
        whole = isinstance(counts, Sequence) and all(isinstance(n, int) and not isinstance(n, bool) for n in counts)
        if not whole or len(counts) != wavs.shape[0] or any(not 0 <= n <= wavs.shape[1] for n in counts):
            raise AudioError(
                f"lengths is {counts} for waveforms of shape {tuple(wavs.shape)}. It must hold one whole number of samples "
                f"for each of the {wavs.shape[0]} rows, none above {wavs.shape[1]}."
            )
        return [row[:n] for row, n in zip(wavs.unbind(0), counts, strict=True)]
    if lengths is not None:
        raise AudioError(
            "lengths came with a list of waveforms. Each of those knows its own length: lengths goes with one (B, T) "
            "tensor only. Leave it out."
        )
    if isinstance(wavs, np.ndarray) and wavs.ndim == 1:
        raise AudioError("the waveforms are one 1-D array. A batch is a list of waveforms. For a single one pass [wav].")
    if isinstance(wavs, str | bytes) or not isinstance(wavs, Sequence | np.ndarray):
        raise AudioError(
            f"the waveforms are a {type(wavs).__name__}. They must be a list of 1-D float tensors, or one (B, T) tensor; "
            "files are read with hubcore.audio.load_audio."
        )
    rows = []
    for index, wav in enumerate(wavs):
        if isinstance(wav, np.ndarray):
            if wav.dtype.kind not in "iuf" or wav.dtype.itemsize > 8:
                raise AudioError(
                    f"item {index} is an array of {wav.dtype}. Samples must be floats of at most 64 bits. "
                    "Use wav.astype('float32')."
                )
            native = wav.astype(wav.dtype.newbyteorder("="), copy=not wav.flags.writeable)
            wav = torch.from_numpy(np.ascontiguousarray(native))
        if not isinstance(wav, Tensor):
            raise AudioError(
                f"item {index} is a {type(wav).__name__}. Each waveform must be a 1-D float tensor. "
                "Use torch.as_tensor on a list of numbers, hubcore.audio.load_audio on a file."
            )
        rows.append(wav)
    return rows


def pack_on_grid(wavs: Sequence[Tensor], stride: int) -> tuple[Tensor, list[int]]:
    """Waveforms end to end, each starting on a multiple of `stride`, with zeros between; and where each starts.

    Returns:
        `(T,)` signal whose length is a multiple of `stride`, and the start of each utterance in units of `stride`.

    Example:
        >>> import torch
        >>> signal, starts = pack_on_grid([torch.ones(5), torch.ones(4)], stride=4)
        >>> signal.tolist(), starts
        ([1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0], [0, 2])
    """
    gaps = [-len(wav) % stride for wav in wavs]
    zeros = wavs[0].new_zeros(sum(gaps)).split(gaps)
    ends = accumulate((len(wav) + gap for wav, gap in zip(wavs, gaps, strict=True)), initial=0)
    return torch.cat([piece for pair in zip(wavs, zeros, strict=True) for piece in pair]), [end // stride for end in ends][:-1]


def grid_owners(starts: Sequence[int], cells: int, device: torch.device, extra: int = 0) -> Tensor:
    """`(cells + extra,)` the utterance in each grid cell; cells behind the last count as its own.

    Example:
        >>> import torch
        >>> grid_owners([0, 2], cells=3, device=torch.device("cpu")).tolist()
        [0, 0, 1]
    """
    cells_of_each = np.diff([*starts, cells + extra])
    return upload(np.repeat(np.arange(len(starts)), cells_of_each), device)


def normalize_on_grid(signal: Tensor, starts: Sequence[int], lengths: Sequence[int], stride: int, eps: float) -> Tensor:
    """A signal on a grid, each utterance normalised over its own samples; what lies between utterances is left undefined.

    Example:
        >>> import torch
        >>> normalize_on_grid(torch.tensor([1.0, 3.0, 5.0, 5.0]), [0, 1], [2, 2], stride=2, eps=0.0)[:2].tolist()
        [-1.0, 1.0]
    """
    cells = signal.unflatten(0, (-1, stride)).to(wide_dtype(signal.device))  # (cells, stride)
    owners = grid_owners(starts, len(cells), signal.device)
    number = upload(np.array(lengths), signal.device)
    sums = torch.stack([cells.sum(1), cells.square().sum(1)], dim=1)  # (cells, 2), gaps being zeros
    mean, square = (cells.new_zeros(len(lengths), 2).index_add(0, owners, sums) / number[:, None]).unbind(1)
    scale = (square - mean.square() + eps).rsqrt()
    shift = torch.stack([mean, scale], dim=1).index_select(0, owners)
    normalized: Tensor = (cells - shift[:, :1]) * shift[:, 1:]
    return normalized.flatten().to(signal.dtype)


def wide_dtype(device: torch.device) -> torch.dtype:
    """The widest float of a device: float64, but float32 on Apple's GPU, which has no other.

    Example:
        >>> wide_dtype(torch.device("cpu"))
        torch.float64
    """
    return torch.float32 if device.type == "mps" else torch.float64


def conv_length(samples: int, layers: Sequence[tuple[int, int]]) -> int:
    """The number of frames that unpadded convolutions give for `samples` inputs; `layers` is (kernel, stride) each.

    Example:
        >>> conv_length(16000, [(10, 5), (3, 2), (3, 2), (3, 2), (3, 2), (2, 2), (2, 2)])
        49
    """
    for kernel, stride in layers:
        samples = (samples - kernel) // stride + 1 if samples >= kernel else 0
    return samples


def receptive_field(layers: Sequence[tuple[int, int]]) -> int:
    """Number of inputs that one output of a stack of unpadded convolutions sees; `layers` is (kernel, stride) each.

    Example:
        >>> receptive_field([(10, 5), (3, 2), (3, 2), (3, 2), (3, 2), (2, 2), (2, 2)])
        400
    """
    field = 1
    for kernel, stride in reversed(layers):
        field = (field - 1) * stride + kernel
    return field


def pad_packed(packed: Tensor, lengths: Sequence[int]) -> Tensor:
    """Packed frames `(sum of F_i, D)` as one `(B, F, D)` tensor, rows exactly zero beyond their length.

    Example:
        >>> import torch
        >>> pad_packed(torch.ones(3, 1), [1, 2])[..., 0].tolist()
        [[1.0, 0.0], [1.0, 1.0]]
    """
    if min(lengths) == max(lengths):
        return packed.reshape(len(lengths), lengths[0], packed.shape[-1])
    if few_calls(packed.device):
        longest = max(lengths)
        padded = packed.new_zeros(len(lengths), longest, packed.shape[-1])
        return padded.index_put(Counts.of(lengths).places(packed.device), packed)
    return pad_sequence(packed.split(list(lengths)), batch_first=True)


class Packed(Sequence[Tensor]):
    """Hidden states of a batch before padding: `(N, D)` each, and the frames of each utterance.

    Example:
        >>> import torch
        >>> packed = Packed([torch.ones(3, 1)], counts=[1, 2])
        >>> packed[0].shape, [tuple(state.shape) for state in packed.padded()]
        (torch.Size([3, 1]), [(2, 2, 1)])
    """

    def __init__(self, states: Sequence[Tensor], counts: Sequence[int]) -> None:
        self.states, self.counts = [*states], counts

    def __len__(self) -> int:
        return len(self.states)

    def __getitem__(self, index: Any) -> Any:
        return self.states[index]

    def padded(self) -> tuple[Tensor, ...]:
        """The hidden states `(B, F, D)`; each packed one is let go once it is padded, so that not all are there twice.

        They are what they would have been in the call that made them: gradients pass wherever they are read first.
        """
        waiting, self.states = self.states[::-1], []
        if torch.compiler.is_compiling():
            return tuple(pad_packed(state, self.counts) for state in reversed(waiting))
        padded = []
        while waiting:
            with torch.inference_mode(waiting[-1].is_inference()), torch.set_grad_enabled(waiting[-1].requires_grad):
                padded.append(pad_packed(waiting.pop(), self.counts))
        return tuple(padded)


def with_gaps(packed: Tensor, lengths: Sequence[int], gap: int) -> Tensor:
    """Packed frames `(sum of F_i, D)` with `gap` rows of zeros before, between and behind utterances.

    A convolution over the result, with a kernel of at most `2 * gap + 1` frames, reaches from no utterance into another.
    On a GPU there are more zeros at the end, so that few sizes come up.

    Example:
        >>> import torch
        >>> with_gaps(torch.ones(3, 1), [1, 2], gap=1)[:, 0].tolist()
        [0.0, 1.0, 0.0, 1.0, 1.0, 0.0]
    """
    if few_calls(packed.device):
        total = gap + sum(lengths) + gap * len(lengths)
        return placed(packed, lengths, _begins(lengths, gap, first=gap), total)
    zeros = packed.new_zeros(gap, packed.shape[1])
    pieces = [zeros]
    for frames in torch.split(packed, list(lengths)):
        pieces += [frames, zeros]
    return torch.cat(pieces)


def without_gaps(rows: Tensor, lengths: Sequence[int], gap: int) -> Tensor:
    """Packed frames from the output of an unpadded convolution over `with_gaps`: `gap` rows lie between utterances.

    Example:
        >>> import torch
        >>> without_gaps(torch.arange(6.0)[:, None], [1, 2], gap=1)[:, 0].tolist()
        [0.0, 2.0, 3.0]
    """
    if few_calls(rows.device):
        return taken(rows, lengths, _begins(lengths, gap))
    kept, at = [], 0
    for length in lengths:
        kept.append(rows[at : at + length])
        at += length + gap
    return kept[0] if len(kept) == 1 else torch.cat(kept)


_SIZES = 1024
"""The rows of `placed` are a multiple of this: cuDNN plans anew for every size of a convolution that it meets."""


def _begins(lengths: Sequence[int], gap: int, first: int = 0) -> list[int]:
    """The first row of each utterance where `gap` rows lie between them."""
    return list(accumulate((length + gap for length in lengths[:-1]), initial=first))


def placed(packed: Tensor, lengths: Sequence[int], begins: Sequence[int], total: int) -> Tensor:
    """At least `total` rows of zeros but for packed frames `(sum of F_i, D)`, those of utterance i from row `begins[i]` on.

    Example:
        >>> import torch
        >>> placed(torch.ones(3, 1), [1, 2], begins=[1, 3], total=6)[:6, 0].tolist()
        [0.0, 1.0, 0.0, 1.0, 1.0, 0.0]
    """
    rows = Counts.of(lengths).rows(begins, packed.device)
    return packed.new_zeros(-(-total // _SIZES) * _SIZES, packed.shape[1]).index_copy(0, rows, packed)


def taken(rows: Tensor, lengths: Sequence[int], begins: Sequence[int]) -> Tensor:
    """Packed frames `(sum of F_i, D)`, those of utterance i being rows from `begins[i]` on, in one call.

    Example:
        >>> import torch
        >>> taken(torch.arange(6.0)[:, None], [1, 2], begins=[0, 3])[:, 0].tolist()
        [0.0, 3.0, 4.0]
    """
    return rows.index_select(0, Counts.of(lengths).rows(begins, rows.device))


def frame_mask(lengths: Tensor, frames: int) -> Tensor:
    """`(B, F)` bool, True where a frame is valid.

    Example:
        >>> import torch
        >>> frame_mask(torch.tensor([1, 2]), 2).tolist()
        [[True, False], [True, True]]
    """
    return torch.arange(frames, device=lengths.device)[None, :] < lengths[:, None]


def regular_frame_times(lengths: Tensor, frames: int, *, stride: int, span: int, sample_rate: int, offset: int = 0) -> Tensor:
    """`(B, F, 2)` float64 seconds, the start and end of frame f: samples `[offset + f * stride, ... + span)`.

    Rows are exactly 0 beyond their length.

    Example:
        >>> import torch
        >>> regular_frame_times(torch.tensor([2]), 2, stride=320, span=400, sample_rate=16000)[0].tolist()
        [[0.0, 0.025], [0.02, 0.045]]
    """
    start = torch.arange(frames, device=lengths.device, dtype=torch.float64) * stride + offset
    times = torch.stack([start, start + span], dim=-1) / sample_rate
    return times * frame_mask(lengths, frames)[..., None]


def layer_indices(layers: Sequence[int], names: Sequence[str], owner: str) -> tuple[int, ...]:
    """`layers` as non-negative indices into the hidden states `names` of the class `owner`, in the order given.

    Raises:
        OptionError: empty, not integers, or out of range.

    Example:
        >>> layer_indices([2, -3], ["input", "block_1", "block_2"], "AcmeUpstream")
        (2, 0)
    """
    if isinstance(layers, int | str) or not isinstance(layers, Sequence) or not len(layers):
        raise OptionError(f"layers is {layers!r}. It must be a non-empty list of indices, such as [0, -1], or None.")
    count, chosen = len(names), []
    for layer in layers:
        if isinstance(layer, bool) or not hasattr(layer, "__index__") or not -count <= operator.index(layer) < count:
            states = f"{plural(count, 'hidden state')}, 0 ({names[0]}) to {count - 1} ({names[-1]})"
            raise OptionError(f"layers has {layer!r}. {owner} has {states}. Choose from -{count} to {count - 1}.")
        chosen.append(operator.index(layer) % count)
    return tuple(chosen)
