"""Waveforms for the checks: speech-like, seeded, quiet, and as short as the upstream under test allows.

Shapes: `T` samples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hubcore.protocol import Upstream

PEAK = 0.1
"""Largest absolute sample of a clip; full scale is 1."""
DEFAULT_UNIT = 320
"""Samples taken for one frame where an upstream has no fixed frame stride."""


def speech_like(samples: int, *, seed: int = 0, sample_rate: int = 16000) -> Tensor:
    """A voice-like waveform `(T,)` float32: gliding harmonics, a syllable rhythm and a noise floor; the same every time.

    Args:
        samples: length `T`.
        seed: of a generator of its own; the global random state is neither read nor changed.
        sample_rate: in Hz.

    Example:
        >>> wav = speech_like(400, seed=3)
        >>> wav.shape, bool((wav == speech_like(400, seed=3)).all()), bool(wav.abs().max() <= 0.1)
        (torch.Size([400]), True, True)
    """
    generator = torch.Generator(device="cpu").manual_seed(seed)
    draw = torch.rand(16, generator=generator, dtype=torch.float64, device="cpu").tolist()
    noise = torch.randn(samples, generator=generator, dtype=torch.float64, device="cpu")
    time = torch.arange(samples, dtype=torch.float64, device="cpu") / sample_rate
    pitch = 90 + 120 * draw[0]
    glide = 2 * math.pi * pitch * time + 3 * torch.sin(2 * math.pi * 2.3 * time + 2 * math.pi * draw[1])
    voice = torch.zeros_like(time)
    for harmonic in range(1, 13):
        if harmonic * pitch < 0.45 * sample_rate:
            voice += torch.cos(harmonic * glide + 2 * math.pi * draw[harmonic + 2]) / harmonic
    rhythm = 0.15 + 0.85 * torch.sin(2 * math.pi * 2.1 * time + 2 * math.pi * draw[2]).square()
    wav = rhythm * voice + 0.1 * noise
    return (PEAK * wav / wav.abs().max().clamp_min(1e-12)).float() if samples else wav.float()


def frame_unit(upstream: Upstream) -> int:
    """Samples from one frame to the next, or a usual value where that depends on the input."""
    return upstream.frame_stride or DEFAULT_UNIT


def clip(upstream: Upstream, samples: int, *, seed: int = 0) -> Tensor:
    """A speech-like waveform `(T,)` at the upstream's rate, on the device and in the dtype of its weights."""
    wav = speech_like(samples, seed=seed, sample_rate=upstream.sample_rate)
    weight = next(upstream.parameters(), None) if isinstance(upstream, nn.Module) else None
    if weight is None:
        return wav
    return wav.to(weight.device, weight.dtype if weight.is_floating_point() else wav.dtype)


def clips(upstream: Upstream, steps: Sequence[int] = (12, 5, 19), *, seed: int = 0) -> list[Tensor]:
    """One waveform for each of `steps`, about that many frames longer than the shortest possible, off the frame grid."""
    unit = frame_unit(upstream)
    return [
        clip(upstream, upstream.min_samples + step * unit + 3 * index, seed=seed + index) for index, step in enumerate(steps)
    ]
