"""`SpeechEncoder`: the encoder that wav2vec 2.0, HuBERT and their descendants share, and the builders that read a config.

Shapes: `T` samples, `N` packed frames of all utterances, `C` channels, `D` dim, `L` blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from hubcore.nn.attention import SelfAttention
from hubcore.nn.conv import ConvExtractor, FrameConv, padded_features
from hubcore.nn.padded import PaddedWavs
from hubcore.nn.positions import BatchNormPositionalConv, PositionalConv
from hubcore.nn.products import run_linear
from hubcore.nn.speech_encoder_config import SpeechEncoderConfig, WaveformEncoderConfig
from hubcore.nn.transformer import Block, Encoder, FeedForward, init_linears
from hubcore.ragged import conv_length, normalize_on_grid, pack_on_grid, wide_dtype
from hubcore.strategy import counted, few_calls

_SAMPLES = 1 << 22
"""Samples of a long waveform of which statistics are taken at a time."""


class SpeechEncoder(nn.Module):
    """Waveforms to hidden states: convolutional extractor, projection, transformer (Baevski et al. 2020, section 2).

    Args:
        extractor: waveform signal to frames `(N, C)`.
        feature_norm: layer norm of those. fairseq: `layer_norm`.
        projection: `(N, C)` to `(N, D)`. fairseq: `post_extract_proj`.
        encoder: `(N, D)` to hidden states.
        normalize: whether each waveform is normalised over its own samples first. fairseq: `task.normalize`.
        normalize_eps: added to the variance there.

    Example:
        >>> import torch
        >>> model = build_speech_encoder(SpeechEncoderConfig(dim=96, num_layers=4))
        >>> states, counts = model([torch.zeros(16000)], layers=[0, 4])
        >>> [tuple(state.shape) for state in states], counts
        ([(49, 96), (49, 96)], [49])
    """

    def __init__(
        self,
        extractor: ConvExtractor,
        feature_norm: nn.Module,
        projection: nn.Module,
        encoder: Encoder,
        *,
        normalize: bool = False,
        normalize_eps: float = 1e-5,
    ) -> None:
        super().__init__()
        self.normalize, self.normalize_eps = normalize, normalize_eps
        self.extractor = extractor
        self.feature_norm = feature_norm
        self.projection = projection
        self.encoder = encoder

    @property
    def num_layers(self) -> int:
        """Number of blocks."""
        return len(self.encoder.blocks)

    def convolve(self, wavs: Sequence[Tensor]) -> tuple[Tensor, Sequence[int]]:
        """Convolutional features `(N, C)` of 1-D waveforms before their layer norm, and the frames of each."""
        if isinstance(wavs, PaddedWavs):
            return padded_features(self.extractor, wavs.normalized(self.normalize_eps) if self.normalize else wavs)
        samples, stride, at_once = [wav.shape[0] for wav in wavs], self.extractor.stride, few_calls(wavs[0].device)
        if self.normalize and not at_once:
            wavs = [functional.layer_norm(wav, wav.shape, eps=self.normalize_eps) for wav in wavs]
        signal, starts = pack_on_grid(wavs, stride)
        if self.normalize and at_once:
            signal = normalize_on_grid(signal, starts, samples, stride, self.normalize_eps)
        counts = [conv_length(n, self.extractor.geometry) for n in samples]
        return self.extractor(signal, starts, samples), counted(counts, signal.device)

    def extract(self, wavs: Sequence[Tensor]) -> tuple[Tensor, Sequence[int]]:
        """Normalised convolutional features `(N, C)` of 1-D waveforms, and the frames of each."""
        features, counts = self.convolve(wavs)
        return self.feature_norm(features), counts

    def forward(self, wavs: Sequence[Tensor], layers: Sequence[int]) -> tuple[list[Tensor], Sequence[int]]:
        """Hidden states `(N, D)` of the layers asked for (0 to L), and the frames of each utterance."""
        features, counts = self.extract(wavs)
        return self.encode(features, counts, layers), counts

    def encode(self, features: Tensor, counts: Sequence[int], layers: Sequence[int]) -> list[Tensor]:
        """Hidden states `(N, D)` of normalised convolutional features `(N, C)`."""
        states: list[Tensor] = self.encoder(run_linear(self.projection, features), counts, layers)
        return states

    def num_frames(self, samples: int) -> int:
        """The number of frames that so many samples give."""
        return conv_length(samples, self.extractor.geometry)

    def in_parts(self, wav: Tensor) -> Iterator[Tensor]:
        """The features that `extract` gives of one waveform `(T,)`, `(F, C)` at a time, for `encode`.

        Statistics of the waveform are those of all of it, taken before.
        """
        mean = scale = None
        if self.normalize:
            wide = wide_dtype(wav.device)
            parts = wav.split(_SAMPLES)
            mean = sum((part.sum(dtype=wide) for part in parts), torch.zeros((), dtype=wide, device=wav.device)) / len(wav)
            variance = sum(((part - mean).square().sum(dtype=wide) for part in parts), torch.zeros_like(mean)) / len(wav)
            scale = (variance + self.normalize_eps).rsqrt()

        def read(first: int, end: int) -> Tensor:
            samples = wav[first:end]
            return samples if mean is None or scale is None else ((samples - mean) * scale).to(wav.dtype)

        for frames in self.extractor.in_parts(read, len(wav), wav.device):
            yield self.feature_norm(frames)


def build_speech_encoder(config: SpeechEncoderConfig, encoder: Encoder | None = None) -> SpeechEncoder:
    """The model that a config describes, with fresh weights; around another `encoder` where a family has its own.

    Example:
        >>> len(build_speech_encoder(SpeechEncoderConfig(dim=96, num_layers=4)).encoder.blocks)
        4
    """
    return build_waveform_encoder(config, build_encoder(config) if encoder is None else encoder)


def build_waveform_encoder(config: WaveformEncoderConfig, encoder: Encoder) -> SpeechEncoder:
    """The model that a config describes around an `encoder` built elsewhere, of whatever blocks; the rest has fresh weights.

    Example:
        >>> from hubcore.nn import WaveformEncoderConfig
        >>> encoder = Encoder(None, [], nn.LayerNorm(96), pre_norm=True)
        >>> build_waveform_encoder(WaveformEncoderConfig(dim=96), encoder).projection
        Linear(in_features=512, out_features=96, bias=True)
    """
    return SpeechEncoder(
        build_extractor(config),
        build_feature_norm(config),
        build_projection(config),
        encoder,
        normalize=config.normalize,
        normalize_eps=config.normalize_eps,
    )


def build_extractor(config: WaveformEncoderConfig) -> ConvExtractor:
    """The convolutional extractor that a config describes, with fresh weights.

    Example:
        >>> build_extractor(SpeechEncoderConfig()).stride
        320
    """
    channels = [1, *(c for c, _, _ in config.conv_layers)]
    convs = [
        FrameConv(channels[i], out, kernel=kernel, stride=stride, bias=config.conv_bias)
        for i, (out, kernel, stride) in enumerate(config.conv_layers)
    ]
    if config.conv_norm == "group":
        return ConvExtractor(convs, [nn.GroupNorm(channels[1], channels[1])], "group")
    return ConvExtractor(convs, [nn.LayerNorm(out) for out in channels[1:]], "layer")


def build_feature_norm(config: WaveformEncoderConfig) -> nn.Module:
    """The layer norm of the extractor's frames, or nothing.

    Example:
        >>> build_feature_norm(SpeechEncoderConfig(feature_norm=False))
        Identity()
    """
    return nn.LayerNorm(config.conv_dim) if config.feature_norm else nn.Identity()


def build_projection(config: WaveformEncoderConfig) -> nn.Module:
    """The linear layer from the extractor's width to the blocks', or nothing.

    Example:
        >>> build_projection(SpeechEncoderConfig(dim=512, num_heads=8, input_projection=False))
        Identity()
    """
    return nn.Linear(config.conv_dim, config.dim) if config.input_projection else nn.Identity()


def build_encoder(
    config: SpeechEncoderConfig,
    *,
    attention: Callable[[], nn.Module] | None = None,
    pos_conv: nn.Module | None = None,
    context: nn.Module | None = None,
) -> Encoder:
    """The transformer encoder that a config describes, with fresh weights.

    Args:
        config: the shape.
        attention: makes the attention of one block, called as `attention(x, counts, *context)`; `SelfAttention` if None.
        pos_conv: another position embedding than the config's.
        context: what all blocks share, see `Encoder`.

    Example:
        >>> encoder = build_encoder(SpeechEncoderConfig(dim=96, num_layers=2), attention=lambda: SelfAttention(96, 4))
        >>> encoder.blocks[1].attention.num_heads
        4
    """
    blocks = build_blocks(config, config.num_layers, attention=attention)
    if pos_conv is None:
        kind = PositionalConv if config.pos_conv_norm == "weight" else BatchNormPositionalConv
        pos_conv = kind(config.dim, config.pos_conv_kernel, config.pos_conv_groups)
    norm = nn.LayerNorm(config.dim)
    return Encoder(pos_conv, blocks, norm, pre_norm=config.pre_norm, dropout=config.dropout, context=context)


def build_blocks(
    config: WaveformEncoderConfig, count: int, *, attention: Callable[[], nn.Module] | None = None, kind: type[Block] = Block
) -> list[Block]:
    """Blocks of the encoder that a config describes, with fresh weights (fairseq: `init_bert_params`).

    Args:
        config: the shape.
        count: number of blocks.
        attention: makes the attention of one, called as `attention(x, counts, *context)`; `SelfAttention` if None.
        kind: their class.

    Example:
        >>> build_blocks(SpeechEncoderConfig(dim=96), 2)[1].feed_forward.fc1
        Linear(in_features=96, out_features=3072, bias=True)
    """

    def plain_attention() -> nn.Module:
        return SelfAttention(config.dim, config.num_heads, config.attention_dropout)

    blocks = [
        kind(
            (attention or plain_attention)(),
            FeedForward(config.dim, config.ffn_dim, config.activation_dropout),
            config.dim,
            pre_norm=config.pre_norm,
            dropout=config.dropout,
        )
        for _ in range(count)
    ]
    for block in blocks:
        init_linears(block)
    return blocks
