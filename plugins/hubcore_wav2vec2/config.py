"""The shape of a wav2vec 2.0 encoder, and the published shapes by name. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from types import MappingProxyType
from typing import Literal

from hubcore.card import UpstreamShape
from hubcore.errors import OptionError

_KINDS: Mapping[str, tuple[type, ...]] = {"int": (int,), "bool": (bool,), "float": (int, float)}
_CONV_LAYERS = ((512, 10, 5), (512, 3, 2), (512, 3, 2), (512, 3, 2), (512, 3, 2), (512, 2, 2), (512, 2, 2))


@dataclass(frozen=True)
class Wav2Vec2Config:
    """Everything that decides what a wav2vec 2.0 encoder computes (Baevski et al. 2020, section 2).

    Example:
        >>> CONFIGS["base"].frame_stride, CONFIGS["base"].dim
        (320, 768)
    """

    conv_layers: tuple[tuple[int, int, int], ...] = _CONV_LAYERS
    """(channels, kernel, stride) of each convolution of the feature extractor. fairseq: `conv_feature_layers`."""
    conv_bias: bool = False
    """Whether these convolutions have a bias. fairseq: `conv_bias`."""
    conv_norm: Literal["group", "layer"] = "group"
    """Normalisation in the extractor: "group" normalises each channel of the first convolution over time; "layer"
    normalises every frame of every convolution. fairseq: `extractor_mode` ("default" is "group")."""
    input_projection: bool = True
    """Whether a linear layer leads from the extractor to the blocks. fairseq has none where both are equally wide."""
    dim: int = 768
    """Width `D` of the blocks. fairseq: `encoder_embed_dim`."""
    num_layers: int = 12
    """Number of transformer blocks. fairseq: `encoder_layers`."""
    num_heads: int = 12
    """Attention heads of each block. fairseq: `encoder_attention_heads`."""
    ffn_dim: int = 3072
    """Inner width of the feed-forward part. fairseq: `encoder_ffn_embed_dim`."""
    pre_norm: bool = False
    """Whether layer norm comes before attention and feed-forward, and once more at the end, instead of after each.
    fairseq: `layer_norm_first`."""
    pos_conv_kernel: int = 128
    """Kernel of the convolutional position embedding, in frames. fairseq: `conv_pos`."""
    pos_conv_groups: int = 16
    """Its groups. fairseq: `conv_pos_groups`."""
    normalize: bool = False
    """Whether each waveform is brought to zero mean and unit variance over its own samples. fairseq: `task.normalize`."""
    normalize_eps: float = 1e-5
    """Added to the variance there: 1e-5 in fairseq, 1e-7 in transformers' feature extractor."""
    dropout: float = 0.0
    """Dropout after attention, after feed-forward and on the input of the blocks, in train mode. fairseq: `dropout`."""
    attention_dropout: float = 0.0
    """Dropout of attention weights, in train mode. fairseq: `attention_dropout`."""
    activation_dropout: float = 0.0
    """Dropout inside the feed-forward part, in train mode. fairseq: `activation_dropout`."""
    sample_rate: int = 16000
    """Samples per second of the waveforms, in Hz. fairseq: `task.sample_rate`."""

    def __post_init__(self) -> None:
        rows = [tuple(row) for row in self.conv_layers]  # a config read back from JSON brings lists
        if any(len(row) != 3 or not all(isinstance(n, int) for n in row) for row in rows):
            raise OptionError(f"conv_layers must hold rows of (channels, kernel, stride), but is {self.conv_layers} instead.")
        object.__setattr__(self, "conv_layers", tuple(rows))
        for field in fields(self):
            value, kind = getattr(self, field.name), str(field.type)
            allowed = _KINDS.get(kind)
            if allowed is not None and (not isinstance(value, allowed) or (kind != "bool" and isinstance(value, bool))):
                raise OptionError(f"{field.name} must be of type {kind}, but is {value!r} instead.")
        for name in ("dropout", "attention_dropout", "activation_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise OptionError(f"{name} must be a probability from 0 to below 1, but is {getattr(self, name)} instead.")
        for name in ("dim", "num_layers", "num_heads", "ffn_dim", "pos_conv_kernel", "pos_conv_groups", "sample_rate"):
            if getattr(self, name) < 1:
                raise OptionError(f"{name} must be at least 1, but is {getattr(self, name)} instead.")
        if not self.conv_layers or any(min(layer) < 1 for layer in self.conv_layers):
            raise OptionError(f"conv_layers must hold (channels, kernel, stride) above 0, but is {self.conv_layers} instead.")
        for name, divisor in (("num_heads", self.num_heads), ("pos_conv_groups", self.pos_conv_groups)):
            if self.dim % divisor:
                raise OptionError(f"{name} must divide dim={self.dim}, but is {divisor} instead.")
        if self.conv_norm not in ("group", "layer"):
            raise OptionError(f"conv_norm must be 'group' or 'layer', but is {self.conv_norm!r} instead.")
        if not self.input_projection and self.conv_dim != self.dim:
            raise OptionError(f"input_projection must be True where the extractor is {self.conv_dim} and dim {self.dim} wide.")

    def differences(self, other: Wav2Vec2Config) -> list[str]:
        """How another config's architecture differs, in words; dropout, sample rate and epsilons do not count.

        Example:
            >>> CONFIGS["base"].differences(CONFIGS["large"])[0]
            'dim must be 768, but is 1024 instead'
        """
        ignored = ("dropout", "attention_dropout", "activation_dropout", "normalize_eps", "sample_rate", "input_projection")
        pairs = [(f.name, getattr(self, f.name), getattr(other, f.name)) for f in fields(self) if f.name not in ignored]
        return [f"{name} must be {mine}, but is {theirs} instead" for name, mine, theirs in pairs if mine != theirs]

    @property
    def conv_dim(self) -> int:
        """Channels of the last convolution of the extractor."""
        return self.conv_layers[-1][0]

    @property
    def frame_stride(self) -> int:
        """Samples from one frame to the next."""
        stride = 1
        for _, _, step in self.conv_layers:
            stride *= step
        return stride

    @property
    def receptive_field(self) -> int:
        """Samples that one frame sees, fewer than which make none."""
        field, stride = 1, 1
        for _, kernel, step in self.conv_layers:
            field, stride = field + (kernel - 1) * stride, stride * step
        return field

    @property
    def upstream_shape(self) -> UpstreamShape:
        """What the upstream of this config will have: the input of the blocks, then the output of each."""
        names = ("input", *(f"block_{k}" for k in range(1, self.num_layers + 1)))
        return UpstreamShape(names, (self.dim,) * len(names), self.frame_stride, self.sample_rate)


_BASE = Wav2Vec2Config(dropout=0.1, attention_dropout=0.1)
_LARGE = replace(_BASE, dim=1024, num_layers=24, num_heads=16, ffn_dim=4096, dropout=0.0, attention_dropout=0.0)
_LARGE_LV60K = replace(_LARGE, conv_bias=True, conv_norm="layer", pre_norm=True, normalize=True)

CONFIGS: Mapping[str, Wav2Vec2Config] = MappingProxyType(
    {
        "base": _BASE,
        "large": _LARGE,
        "large_lv60k": _LARGE_LV60K,
        "xlsr_53": _LARGE_LV60K,
        "xls_r_300m": _LARGE_LV60K,
        "xls_r_1b": replace(_LARGE_LV60K, dim=1280, num_layers=48, num_heads=16, ffn_dim=5120),
        "xls_r_2b": replace(_LARGE_LV60K, dim=1920, num_layers=48, num_heads=16, ffn_dim=7680),
        "tiny": Wav2Vec2Config(
            conv_layers=tuple((64, kernel, stride) for _, kernel, stride in _CONV_LAYERS),
            dim=96,
            num_layers=4,
            num_heads=4,
            ffn_dim=384,
            pos_conv_kernel=32,
            pos_conv_groups=8,
        ),
    }
)
"""The published shapes by name: base and large (LibriSpeech), large_lv60k (Libri-Light), xlsr_53, xls_r_300m, xls_r_1b,
xls_r_2b, and tiny, the shape of the bundled demonstration checkpoint."""
