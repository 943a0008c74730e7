"""The shape of an OFA wav2vec 2.0 encoder. Imports no torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Annotated

from hubcore.card import UpstreamShape
from hubcore.fields import Between, Size, require
from hubcore_wav2vec2.config import CONFIGS as WAV2VEC2_CONFIGS
from hubcore_wav2vec2.config import Wav2Vec2Config

Lambd = Annotated[float, Between(0, 2)]
DEFAULT_LAMBD = 0.5
"""The lambda used where nobody chose one: the middle of the published checkpoint's range, 0 (20 ms) to 1 (about 90 ms)."""


@dataclass(frozen=True)
class OfaWav2Vec2Config(Wav2Vec2Config):
    """wav2vec 2.0 with a continuous integrate-and-fire module (CIF) between the extractor and the transformer.

    Chen, Meng, Lee: Once-for-All sequence compression, ICASSP 2023, section 2.

    Example:
        >>> CONFIGS["base"].mixing, CONFIGS["base"].conv_dim
        (True, 512)
    """

    alpha_kernel: Size = 5
    """Kernel, in frames, of the convolution that predicts alpha. The original: fixed at 5."""
    mixing: bool = True
    """True if lambda mixes alpha with 1, which makes the frame rate a choice. The original: `mixup`."""
    lambd_range: tuple[Lambd, Lambd] = (0.0, 1.0)
    """The lambdas that training drew; of a run, by `objective.lambd_draw`. The original: `mixup_distro`, `upper_lambd`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.alpha_kernel % 2 == 1, "alpha_kernel", "odd", self.alpha_kernel)
        require(self.lambd_range[0] <= self.lambd_range[1], "lambd_range", "rising", self.lambd_range)

    @property
    def upstream_shape(self) -> UpstreamShape:
        """Shape of this config's upstream: wav2vec 2.0's layers, their frame rate depending on the input."""
        return replace(super().upstream_shape, frame_stride=None)


def drawn_range(draw: str, upper: float) -> tuple[float, float] | None:
    """The lambdas that a distribution of training draws; None if there is no such distribution. The original: `mixup_distro`.

    Example:
        >>> drawn_range("both", 1.5), drawn_range("scale", 1.5)
        ((0.0, 1.5), (1.0, 2.0))
    """
    return {"uniform": (0.0, 1.0), "uniform-fr": (0.0, 1.0), "scale": (1.0, 2.0), "both": (0.0, min(upper, 2.0))}.get(draw)


def with_cif(config: Wav2Vec2Config, **options: object) -> OfaWav2Vec2Config:
    """A wav2vec 2.0 config with the CIF module's options added.

    Example:
        >>> with_cif(WAV2VEC2_CONFIGS["tiny"], alpha_kernel=3).alpha_kernel
        3
    """
    values = {field.name: getattr(config, field.name) for field in dataclasses.fields(Wav2Vec2Config)}
    return OfaWav2Vec2Config(**{**values, **options})


CONFIGS: Mapping[str, OfaWav2Vec2Config] = MappingProxyType(
    {name: with_cif(WAV2VEC2_CONFIGS[name]) for name in ("base", "large", "tiny")}
)
"""The wav2vec 2.0 shapes of the same names, compressed: base is the published one."""
