"""The frame grid that segments live on, that of wav2vec 2.0's convolutions: 400 samples every 320, at 16 kHz.

A boundary is a number of frames: b says that a segment ends after the first b frames. Shapes: `T` frames, `N` segments.
"""

from __future__ import annotations

from torch import Tensor

from hubcore.ragged import conv_length, receptive_field
from hubcore_wav2vec2.config import CONFIGS

SAMPLE_RATE = 16000
"""Hz."""

_LAYERS = [(kernel, stride) for _, kernel, stride in CONFIGS["base"].conv_layers]

FIELD = receptive_field(_LAYERS)
"""Samples that one frame sees: 400."""

STRIDE = 320
"""Samples from one frame to the next."""


def count_frames(samples: int) -> int:
    """`T`, the frames that wav2vec 2.0 makes of so many samples.

    Example:
        >>> count_frames(399), count_frames(400), count_frames(16000)
        (0, 1, 49)
    """
    return conv_length(samples, _LAYERS)


def alpha_of(boundaries: Tensor) -> Tensor:
    """`(T,)` float32 alpha of boundaries `(N,)`: every frame of a segment has 1 / its length, so that each adds up to 1.

    Example:
        >>> import torch
        >>> alpha_of(torch.tensor([2, 6])).tolist()
        [0.5, 0.5, 0.25, 0.25, 0.25, 0.25]
    """
    lengths = boundaries.diff(prepend=boundaries.new_zeros(1))  # (N,)
    return lengths.double().reciprocal().float().repeat_interleave(lengths)


def boundary_seconds(boundaries: Tensor) -> Tensor:
    """`(N,)` float64 seconds of boundaries: halfway between the centres of the frames on either side.

    Example:
        >>> import torch
        >>> boundary_seconds(torch.tensor([1, 50])).tolist()
        [0.0225, 1.0025]
    """
    return (boundaries.double() * STRIDE + (FIELD - STRIDE) / 2) / SAMPLE_RATE
