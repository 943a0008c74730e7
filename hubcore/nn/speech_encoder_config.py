"""Shapes of encoders: `BlocksConfig`, `WaveformEncoderConfig`, `SpeechEncoderConfig`. Imports no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Annotated, Literal, TypeVar

from hubcore.card import UpstreamShape
from hubcore.fields import AtLeast, Between, Depth, Probability, Rate, Size, check_fields, require

AnyConfig = TypeVar("AnyConfig", bound="BlocksConfig")

_CONV_LAYERS = ((512, 10, 5), (512, 3, 2), (512, 3, 2), (512, 3, 2), (512, 3, 2), (512, 2, 2), (512, 2, 2))
_NOT_ARCHITECTURE = frozenset(
    {"dropout", "attention_dropout", "activation_dropout", "conv_dropout", "normalize_eps", "sample_rate", "input_projection"}
)


@dataclass(frozen=True)
class BlocksConfig:
    """Everything that every stack of blocks has: width, depth, heads, feed-forward, dropouts.

    Example:
        >>> BlocksConfig(dim=768).differences(BlocksConfig(dim=1536))
        ['dim must be 768, but is 1536 instead']
    """

    dim: Size = 768
    """Width `D` of the blocks. fairseq: `encoder_embed_dim`."""
    num_layers: Depth = 12
    """Number of blocks. fairseq: `encoder_layers`."""
    num_heads: Size = 12
    """Attention heads of each block. fairseq: `encoder_attention_heads`."""
    ffn_dim: Size = 3072
    """Inner width of the feed-forward part. fairseq: `encoder_ffn_embed_dim`."""
    dropout: Probability = 0.0
    """Dropout after attention, after feed-forward and on the input of the blocks, in train mode. fairseq: `dropout`."""
    attention_dropout: Probability = 0.0
    """Dropout of attention weights, in train mode. fairseq: `attention_dropout`."""
    activation_dropout: Probability = 0.0
    """Dropout inside the feed-forward part, in train mode. fairseq: `activation_dropout`."""

    def __post_init__(self) -> None:
        check_fields(self)
        require(self.dim % self.num_heads == 0, "num_heads", f"a divisor of dim={self.dim}", self.num_heads)

    def blocks_shape(self, frame_stride: int, sample_rate: int) -> UpstreamShape:
        """Shape of an upstream whose hidden states are the input of the blocks, then the output of each.

        Example:
            >>> BlocksConfig(num_layers=2).blocks_shape(320, 16000).layer_names
            ('input', 'block_1', 'block_2')
        """
        names = ("input", *(f"block_{k}" for k in range(1, self.num_layers + 1)))
        return UpstreamShape(names, (self.dim,) * len(names), frame_stride, sample_rate)

    def differences(self: AnyConfig, other: AnyConfig) -> list[str]:
        """Lists in words how another config's architecture differs; dropout, sample rate and epsilons do not count.

        Example:
            >>> SpeechEncoderConfig(pos_conv_kernel=128).differences(SpeechEncoderConfig(pos_conv_kernel=95))
            ['pos_conv_kernel must be 128, but is 95 instead']
        """
        pairs = [(f.name, getattr(self, f.name), getattr(other, f.name)) for f in fields(self)]
        return [
            f"{name} must be {mine}, but is {theirs} instead"
            for name, mine, theirs in pairs
            if mine != theirs and name not in _NOT_ARCHITECTURE
        ]


@dataclass(frozen=True)
class WaveformEncoderConfig(BlocksConfig):
    """Convolutional extractor, projection and blocks of any kind; it leaves out only how blocks know positions.

    Example:
        >>> config = WaveformEncoderConfig(num_layers=2)
        >>> config.frame_stride, config.receptive_field, config.upstream_shape.layer_names
        (320, 400, ('input', 'block_1', 'block_2'))
    """

    conv_layers: Annotated[tuple[tuple[Size, Size, Size], ...], Between(1, 100)] = _CONV_LAYERS
    """(channels, kernel, stride) of each convolution of the feature extractor. fairseq: `conv_feature_layers`."""
    conv_bias: bool = False
    """True if these convolutions have a bias. fairseq: `conv_bias`."""
    conv_norm: Literal["group", "layer"] = "group"
    """Normalisation in the extractor: "group" normalises each channel of the first convolution over time; "layer"
    normalises every frame of every convolution. fairseq: `extractor_mode` ("default" is "group")."""
    feature_norm: bool = True
    """True if the extractor's frames are layer-normed. transformers: `feat_proj_layer_norm`; fairseq always does."""
    input_projection: bool = True
    """True if a linear layer leads from the extractor to the blocks. fairseq has none where both are equally wide."""
    pre_norm: bool = False
    """True if layer norm comes before attention and feed-forward, and once more at the end, instead of after each.
    fairseq: `layer_norm_first`."""
    normalize: bool = False
    """True if each waveform is brought to zero mean and unit variance over its own samples. fairseq: `task.normalize`."""
    normalize_eps: Annotated[float, AtLeast(0)] = 1e-5
    """Added to the variance there: 1e-5 in fairseq, 1e-7 in transformers' feature extractor."""
    sample_rate: Rate = 16000
    """Samples per second of the waveforms, in Hz. fairseq: `task.sample_rate`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        same = f"True, the extractor being {self.conv_dim} and dim {self.dim} wide"
        require(self.input_projection or self.conv_dim == self.dim, "input_projection", same, self.input_projection)
        most = 60 * self.sample_rate
        sane = max(self.receptive_field, self.frame_stride) <= most
        require(sane, "conv_layers", f"with frames of at most {most} samples (60 s)", self.conv_layers)

    @property
    def conv_dim(self) -> int:
        """Channels of the last convolution of the extractor."""
        return self.conv_layers[-1][0]

    @property
    def frame_stride(self) -> int:
        """Samples from one frame to the next."""
        return math.prod(stride for _, _, stride in self.conv_layers)

    @property
    def receptive_field(self) -> int:
        """Samples that one frame sees, fewer than which make none."""
        field = 1
        for _, kernel, stride in reversed(self.conv_layers):
            field = (field - 1) * stride + kernel
        return field

    @property
    def min_samples(self) -> int:
        """Fewest samples that give a frame."""
        return self.receptive_field

    @property
    def first_sample(self) -> int:
        """The sample at which frame 0 starts."""
        return 0

    @property
    def upstream_shape(self) -> UpstreamShape:
        """Shape of this config's upstream: the input of the blocks, then the output of each."""
        return self.blocks_shape(self.frame_stride, self.sample_rate)


@dataclass(frozen=True)
class SpeechEncoderConfig(WaveformEncoderConfig):
    """Everything that decides what a wav2vec-2.0-like encoder computes (Baevski et al. 2020, section 2).

    A family's config derives from it, with fields of its own where the family has more.

    Example:
        >>> SpeechEncoderConfig(dim=96, pos_conv_groups=7)
        Traceback (most recent call last):
        hubcore.errors.OptionError: pos_conv_groups must be a divisor of dim=96, but is 7 instead.
    """

    pos_conv_kernel: Size = 128
    """Kernel of the convolutional position embedding, in frames. fairseq: `conv_pos`."""
    pos_conv_groups: Size = 16
    """Its groups. fairseq: `conv_pos_groups`."""
    pos_conv_norm: Literal["weight", "batch"] = "weight"
    """Weight norm of that convolution, or batch norm of its input. transformers: `conv_pos_batch_norm`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        divisor = f"a divisor of dim={self.dim}"
        require(self.dim % self.pos_conv_groups == 0, "pos_conv_groups", divisor, self.pos_conv_groups)
