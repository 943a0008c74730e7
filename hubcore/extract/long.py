"""Utterances of hours: `in_chunks` computes one chunk by chunk, and keeps on the disk what memory would not hold.

Shapes: `T` samples, `L` layers, `F` frames, `D` dim.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hubcore.errors import AudioError, ExtractionError
from hubcore.extract.reduce import mixed
from hubcore.extract.settings import Chunks, Settings
from hubcore.guests import as_guest
from hubcore.protocol import Upstream
from hubcore.strategy import send
from hubcore.streaming import Chunk, stream
from hubcore.text import printable

LONG_SECONDS = 600.0
"""The duration from which on a whole pass is warned of: attention takes time, and with a bias memory, by its square."""


class NotFiniteError(AudioError):
    """Features with infinite numbers, or none."""


def in_chunks(
    upstream: Upstream, wav: Tensor, settings: Settings, device: torch.device
) -> tuple[NDArray[Any], int, dict[str, Any]]:
    """The features of one long waveform, their number of frames, and what its manifest row says of their times.

    Features that are not pooled are a view of a file without a name, so that they take no memory.

    Raises:
        AudioError: they are not finite, or too large for their type.
        ExtractionError: the file system takes no more.

    Example:
        >>> from hubcore import hub
        >>> from hubcore.extract.settings import settings_for
        >>> import tempfile, pathlib
        >>> model, chunks = hub.load("fbank"), Chunks(1.0, None, pathlib.Path(tempfile.mkdtemp()))
        >>> settings = settings_for(model, "last", "float32", None, "npy", chunks=chunks)
        >>> in_chunks(model, torch.randn(48000), settings, torch.device("cpu"))[0].shape
        (298, 240)
    """
    chunks = cast("Chunks", settings.chunks)
    sums, count = _Sums(), 0
    with torch.inference_mode(), as_guest(), tempfile.TemporaryFile(dir=chunks.folder) as file:
        (sent,) = send([wav], device, torch.float32)
        for chunk in _stream(upstream, sent, settings, chunks):
            states = [*chunk.hidden_states]
            states = [mixed(states, settings.mix)] if settings.mix is not None else [state.float() for state in states]
            if settings.pool is not None:
                sums.add(states)
            else:
                rows = stored(torch.stack(states, 1).cpu(), settings.dtype)  # (F, L, D)
                try:
                    file.write(np.ascontiguousarray(rows).data)
                    file.flush()
                except OSError as error:
                    what = f"{printable(chunks.folder)} takes no more: {error.strerror or error}."
                    raise ExtractionError(what, fix="Make room, then run the same command again to resume.") from error
            times, count = chunk.times, chunk.first_frame + len(chunk.times)
        if settings.pool is not None:
            vectors = stored(sums.pooled(settings.pool).float().cpu(), settings.dtype)  # (L, D)
            features = vectors if settings.stacked else vectors[0]
        else:
            shape = (count, len(states), settings.width)
            mapped: NDArray[Any] = np.memmap(file, dtype=rows.dtype, mode="r", shape=shape)
            features = mapped.transpose(1, 0, 2) if settings.stacked else mapped[:, 0]
    stride = cast("int", upstream.frame_stride)
    first = getattr(getattr(upstream, "config", None), "first_sample", None)
    if first is None:
        first = round(float(times[-1, 0]) * upstream.sample_rate) - (count - 1) * stride
    return features, count, {"first_sample": first, "receptive_field": upstream.receptive_field}


def _stream(upstream: Upstream, wav: Tensor, settings: Settings, chunks: Chunks) -> Iterator[Chunk]:
    lengths: dict[str, Any] = {"chunk_seconds": chunks.seconds, "overlap_seconds": chunks.overlap}
    return stream(upstream, wav, layers=list(settings.layers), **lengths, **settings.call_options)


def stored(features: Tensor, dtype: str) -> NDArray[Any]:
    """Float32 features in the type they are written in; bfloat16 as uint16, its bits.

    Raises:
        AudioError: they are not finite, or too large for it.

    Example:
        >>> stored(torch.tensor([0.5]), "float16").dtype
        dtype('float16')
    """
    kind: torch.dtype = getattr(torch, dtype)
    largest, limit = float(features.abs().max()), torch.finfo(kind).max
    if not features.isfinite().all():
        raise NotFiniteError("its features are not finite.", fix="Check the audio and the checkpoint.")
    if largest > limit:
        raise AudioError(f"its features reach {largest:g}, beyond the {limit:g} of {dtype}.", fix="Use float32.")
    features = features.to(kind)
    if kind == torch.bfloat16:
        return cast("NDArray[Any]", features.view(torch.int16).numpy().view(np.uint16))
    return features.numpy()


class _Sums:
    """Sums over the frames of all chunks, from which `pooled` vectors follow."""

    def __init__(self) -> None:
        self._frames = 0
        self._parts: list[Tensor] = []  # (3, L, D) for each chunk: sum, sum of squares, highest

    def add(self, states: Sequence[Tensor]) -> None:
        """Takes another chunk, `L` of `(F, D)`."""
        wide = torch.stack([*states]).double()
        self._frames += wide.shape[1]
        self._parts.append(torch.stack([wide.sum(1), wide.square().sum(1), wide.amax(1)]))

    def pooled(self, how: str) -> Tensor:
        """`(L, D)`, or `(L, 2 D)` for `mean+std`."""
        parts = torch.stack(self._parts)
        if how == "max":
            return parts[:, 2].amax(0)
        mean, square = parts[:, :2].sum(0) / self._frames
        return torch.cat([mean, (square - mean.square()).clamp(min=0).sqrt()], 1) if how == "mean+std" else mean
