"""The wav2vec 2.0 encoder, assembled: `Wav2Vec2Model`, `Encoder`, and the builder that reads a config.

Shapes: `B` batch, `T` samples, `F` frames, `N` packed frames of all utterances, `C` channels, `D` dim, `L` blocks.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from hubcore.ragged import conv_length, pack_on_grid
from hubcore_wav2vec2.components import Block, ConvExtractor, FeedForward, FrameConv, PositionalConv, SelfAttention
from hubcore_wav2vec2.config import Wav2Vec2Config


class Encoder(nn.Module):
    """Position embedding and transformer blocks, `(N, D)` to the hidden states asked for.

    Args:
        pos_conv: called as `pos_conv(x, lengths)`, its result is added to the input.
        blocks: called as `block(x, lengths)`.
        norm: before the first block (post-norm), or after the last (pre-norm).
        pre_norm: fairseq: `layer_norm_first`.
        dropout: of the input of the first block, in train mode.
    """

    def __init__(
        self, pos_conv: nn.Module, blocks: Sequence[nn.Module], norm: nn.Module, *, pre_norm: bool, dropout: float
    ) -> None:
        super().__init__()
        self.pre_norm = pre_norm
        self.pos_conv = pos_conv
        self.blocks = nn.ModuleList(blocks)
        self.norm = norm
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, lengths: Sequence[int], layers: Sequence[int], *, layerdrop: float = 0.0) -> list[Tensor]:
        """The hidden states `layers`, each `(N, D)`; no block above the highest of them runs.

        Hidden state k is the input of block k (0-based); hidden state L is the output of the encoder, which for pre-norm
        models includes the final layer norm. `layerdrop` is the probability that a block gives back its input, for
        pre-training only. fairseq: `encoder_layerdrop`.
        """
        x = x + self.pos_conv(x, lengths)
        if not self.pre_norm:
            x = self.norm(x)
        x = self.dropout(x)
        states = {0: x}
        for index, block in enumerate(self.blocks[: max(layers)], start=1):
            if not layerdrop or torch.rand(()).item() >= layerdrop:
                x = block(x, lengths)
            states[index] = self.norm(x) if self.pre_norm and index == len(self.blocks) else x
            if index - 1 not in layers:
                del states[index - 1]
        return [states[layer] for layer in layers]


class Wav2Vec2Model(nn.Module):
    """wav2vec 2.0 without its pre-training heads: waveforms to hidden states (Baevski et al. 2020, section 2).

    Args:
        extractor: waveform signal to frames `(N, C)`.
        feature_norm: layer norm of those. fairseq: `layer_norm`.
        projection: `(N, C)` to `(N, D)`. fairseq: `post_extract_proj`.
        encoder: `(N, D)` to hidden states.
        normalize: whether each waveform is normalised over its own samples first. fairseq: `task.normalize`.
        normalize_eps: added to the variance there.

    Example:
        >>> import torch
        >>> from hubcore_wav2vec2 import CONFIGS, build_model
        >>> states, lengths = build_model(CONFIGS["tiny"])([torch.zeros(16000)], layers=[0, 4])
        >>> [tuple(s.shape) for s in states], lengths
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

    def convolve(self, wavs: Sequence[Tensor]) -> tuple[Tensor, list[int]]:
        """Convolutional features `(N, C)` of 1-D waveforms before their layer norm, and the frames of each."""
        if self.normalize:
            wavs = [functional.layer_norm(wav, wav.shape, eps=self.normalize_eps) for wav in wavs]
        samples = [wav.shape[0] for wav in wavs]
        signal, starts = pack_on_grid(wavs, self.extractor.stride)
        return self.extractor(signal, starts, samples), [conv_length(n, self.extractor.geometry) for n in samples]

    def extract(self, wavs: Sequence[Tensor]) -> tuple[Tensor, list[int]]:
        """Normalised convolutional features `(N, C)` of 1-D waveforms, and the frames of each."""
        features, frames = self.convolve(wavs)
        return self.feature_norm(features), frames

    def forward(self, wavs: Sequence[Tensor], layers: Sequence[int]) -> tuple[list[Tensor], list[int]]:
        """Hidden states `(N, D)` of the layers asked for (0 to L), and the frames of each utterance."""
        features, lengths = self.extract(wavs)
        return self.encoder(self.projection(features), lengths, layers), lengths


def build_extractor(config: Wav2Vec2Config) -> ConvExtractor:
    """The convolutional extractor that a config describes, with fresh weights."""
    channels = [1, *(c for c, _, _ in config.conv_layers)]
    convs = [
        FrameConv(channels[i], out, kernel=kernel, stride=stride, bias=config.conv_bias)
        for i, (out, kernel, stride) in enumerate(config.conv_layers)
    ]
    norms: list[nn.Module]
    if config.conv_norm == "group":
        norms = [nn.GroupNorm(channels[1], channels[1])]
    else:
        norms = [nn.LayerNorm(out) for out in channels[1:]]
    return ConvExtractor(convs, norms, config.conv_norm)


def build_encoder(config: Wav2Vec2Config) -> Encoder:
    """The transformer encoder that a config describes, with fresh weights (fairseq: `init_bert_params`)."""
    blocks = [
        Block(
            SelfAttention(config.dim, config.num_heads, config.attention_dropout),
            FeedForward(config.dim, config.ffn_dim, config.activation_dropout),
            config.dim,
            pre_norm=config.pre_norm,
            dropout=config.dropout,
        )
        for _ in range(config.num_layers)
    ]
    for block in blocks:
        for module in block.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
    pos_conv = PositionalConv(config.dim, config.pos_conv_kernel, config.pos_conv_groups)
    return Encoder(pos_conv, blocks, nn.LayerNorm(config.dim), pre_norm=config.pre_norm, dropout=config.dropout)


def build_model(config: Wav2Vec2Config) -> Wav2Vec2Model:
    """The model that a config describes, with fresh weights.

    Example:
        >>> from hubcore_wav2vec2 import CONFIGS
        >>> len(build_model(CONFIGS["tiny"]).encoder.blocks)
        4
    """
    return Wav2Vec2Model(
        build_extractor(config),
        nn.LayerNorm(config.conv_dim),
        nn.Linear(config.conv_dim, config.dim) if config.input_projection else nn.Identity(),
        build_encoder(config),
        normalize=config.normalize,
        normalize_eps=config.normalize_eps,
    )
