"""Waveforms of hours in bounded memory: `stream` gives the hidden states of any upstream chunk by chunk.

A chunk is computed with some audio on both sides, its overlap, whose frames are cut off again. Chunks begin on the grid of
frames, so that there are as many frames as in one pass, each at the same place.

Shapes: `T` samples, `F` frames of a chunk, `D` dim.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple, cast

from torch import Tensor

from hubcore.errors import OptionError
from hubcore.protocol import Upstream

CHUNK_SECONDS = 30.0
_OVERLAP_SECONDS = 5.0


@dataclass(frozen=True, eq=False)
class Chunk:
    """A stretch of the hidden states of one utterance.

    Example:
        >>> import torch
        >>> chunk = Chunk(49, (torch.zeros(50, 8),), torch.zeros(50, 2))
        >>> chunk.first_frame, len(chunk.hidden_states[0])
        (49, 50)
    """

    first_frame: int
    """The place in the utterance of its first frame."""
    hidden_states: tuple[Tensor, ...]
    """`(F, D)` for each layer asked for."""
    times: Tensor
    """`(F, 2)` seconds from the beginning of the utterance, see `UpstreamOutput.frame_times`."""


class Window(NamedTuple):
    """Frames `first` to `end` of an utterance, computed from the frames `low` to `high`."""

    low: int
    first: int
    end: int
    high: int


def windows(frames: int, chunk: int, overlap: int) -> list[Window]:
    """The chunks of so many frames, of one size as nearly as can be and none longer than `chunk`.

    Example:
        >>> windows(150, 100, 10)
        [Window(low=0, first=0, end=75, high=85), Window(low=65, first=75, end=150, high=150)]
    """
    count = max(1, math.ceil(frames / chunk))
    bounds = [frames * number // count for number in range(count + 1)]
    return [Window(max(0, first - overlap), first, end, min(frames, end + overlap)) for first, end in pairwise(bounds)]


def in_frames(upstream: Upstream, chunk_seconds: float, overlap_seconds: float | None) -> tuple[int, int]:
    """A chunk and its overlap as numbers of frames.

    Raises:
        OptionError: impossible values, or the upstream has no constant frame rate.

    Example:
        >>> from hubcore import hub
        >>> in_frames(hub.load("wav2vec2_tiny_prompts"), 30, 5)
        (1500, 250)
    """
    if upstream.frame_stride is None:
        what = f"the frames of {type(upstream).__name__} have no constant rate: one may lie in two chunks."
        raise OptionError(what, fix="Cut the audio at pauses, and compute each part as an utterance of its own.")
    least = max(1.0, 4 * upstream.receptive_field / upstream.sample_rate)
    if not least <= chunk_seconds < math.inf:
        raise OptionError(f"chunk_seconds is {chunk_seconds}. It must be at least {least:g}.", fix="30 suits most models.")
    overlap_seconds = _OVERLAP_SECONDS if overlap_seconds is None else overlap_seconds
    if not 0 <= overlap_seconds < math.inf:
        raise OptionError(f"overlap_seconds is {overlap_seconds}. It must not be below 0.", fix="5 suits most models.")
    rate = upstream.sample_rate / upstream.frame_stride
    return int(chunk_seconds * rate), math.ceil(overlap_seconds * rate)


def stream(
    upstream: Upstream,
    wav: Tensor,
    *,
    layers: Sequence[int] | None = None,
    chunk_seconds: float = CHUNK_SECONDS,
    overlap_seconds: float | None = None,
    **call_options: Any,
) -> Iterator[Chunk]:
    """The hidden states of one long waveform, chunk by chunk; `UpstreamBase.stream` for an upstream of any class.

    One that has no `stream` of its own is called with windows of the waveform, chunk and overlap, whose places follow from its
    frame stride and its receptive field. What it takes from the whole utterance, such as a mean, it then takes from the window.

    Args:
        upstream: any upstream with a constant frame stride.
        wav: `(T,)`, as for a call.
        layers: see `Upstream.forward`.
        chunk_seconds: the longest chunk.
        overlap_seconds: audio before and behind a chunk that is computed with it; if None 5, where the upstream has no own.
        **call_options: keywords of each call.

    Raises:
        AudioError: the waveform cannot be used.
        OptionError: a layer or an option does not exist, a length is impossible, or the frame rate is not constant.

    Example:
        >>> import torch
        >>> from hubcore import hub
        >>> model = hub.load("wav2vec2_tiny_prompts")
        >>> [(chunk.first_frame, len(chunk.hidden_states[0])) for chunk in stream(model, torch.randn(48000), chunk_seconds=1)]
        [(0, 49), (49, 50), (99, 50)]
    """
    lengths: dict[str, Any] = {"chunk_seconds": chunk_seconds, "overlap_seconds": overlap_seconds}
    own: Any = getattr(upstream, "stream", None)
    if own is not None:
        return cast("Iterator[Chunk]", own(wav, layers=layers, **lengths, **call_options))
    return stream_windows(upstream, wav, layers=layers, **lengths, **call_options)


def stream_windows(
    upstream: Upstream,
    wav: Tensor,
    *,
    layers: Sequence[int] | None = None,
    chunk_seconds: float = CHUNK_SECONDS,
    overlap_seconds: float | None = None,
    **call_options: Any,
) -> Iterator[Chunk]:
    """`stream` by calls of the upstream with windows of the waveform.

    Example:
        >>> import torch
        >>> from hubcore import hub
        >>> chunks = stream_windows(hub.load("fbank", cmvn=False), torch.randn(48000), chunk_seconds=2)
        >>> [(chunk.first_frame, tuple(chunk.times[0].tolist())) for chunk in chunks]
        [(0, (0.0, 0.025)), (150, (1.5, 1.525))]
    """
    chunk, overlap = in_frames(upstream, chunk_seconds, overlap_seconds)
    stride, span = cast("int", upstream.frame_stride), upstream.receptive_field
    overlap += math.ceil(span / stride)  # frames that padding at an end of the window reaches
    call: Any = upstream
    places = windows(max(1, len(wav) // stride), chunk, overlap)
    for low, first, end, high in places:
        # Only the upstream knows how many frames the last samples give; the last window has them all.
        last = end == places[-1].end
        samples = wav[low * stride : None if last else (high - 1) * stride + span]
        output = call([samples], layers=layers, **call_options)
        cut = slice(first - low, int(output.lengths[0]) if last else end - low)
        times = output.frame_times()[0, cut] + low * stride / upstream.sample_rate
        yield Chunk(first, tuple(state[0, cut] for state in output.hidden_states), times)
