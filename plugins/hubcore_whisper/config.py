"""The shape of a Whisper encoder, and the published shapes by name. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import ClassVar

from hubcore.card import UpstreamShape
from hubcore.fields import Size, require
from hubcore.nn.speech_encoder_config import BlocksConfig


@dataclass(frozen=True)
class WhisperConfig(BlocksConfig):
    """Everything that decides what a Whisper encoder computes (Radford et al. 2023, section 2.2).

    Example:
        >>> config = CONFIGS["tiny"]
        >>> config.window_samples, config.frame_stride, config.receptive_field, config.first_sample
        (480000, 320, 1040, -520)
    """

    num_mel_bins: Size = 80
    """Mel filters of the log mel energies. OpenAI: `n_mels`."""
    positions: Size = 1500
    """Frames of the window that every utterance is padded to: 1500 are 30 s. OpenAI: `n_audio_ctx`."""

    frame_stride: ClassVar[int] = 320
    """Samples from one frame to the next: two frames of the log mel energies."""
    receptive_field: ClassVar[int] = 4 * 160 + 400
    """Samples that one frame is computed from before attention: five overlapping frames of the log mel energies."""
    first_sample: ClassVar[int] = -receptive_field // 2
    """The sample at which frame 0 starts, before the utterance: its centre is sample 0."""
    min_samples: ClassVar[int] = 1
    """Fewest samples that give a frame; the rest is padding."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.dim % 2 == 0, "dim", "even, half of it for sines and half for cosines", self.dim)

    @property
    def window_samples(self) -> int:
        """Samples of the window that every utterance is padded to."""
        return self.positions * self.frame_stride

    @property
    def upstream_shape(self) -> UpstreamShape:
        """Shape of this config's upstream: the input of the blocks, then the output of each."""
        return self.blocks_shape(self.frame_stride, 16000)


_SMALL = WhisperConfig()
_LARGE = replace(_SMALL, dim=1280, num_layers=32, num_heads=20, ffn_dim=5120)
_LARGE_V3 = replace(_LARGE, num_mel_bins=128)

CONFIGS: Mapping[str, WhisperConfig] = MappingProxyType(
    {
        "tiny": replace(_SMALL, dim=384, num_layers=4, num_heads=6, ffn_dim=1536),
        "base": replace(_SMALL, dim=512, num_layers=6, num_heads=8, ffn_dim=2048),
        "small": _SMALL,
        "medium": replace(_SMALL, dim=1024, num_layers=24, num_heads=16, ffn_dim=4096),
        "large": _LARGE,
        "large_v3": _LARGE_V3,
        "large_v3_turbo": _LARGE_V3,
    }
)
"""The published shapes by name; those for English only (`.en`) are the same, and so are large, large-v1 and large-v2."""
