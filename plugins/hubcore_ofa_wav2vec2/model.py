"""The OFA wav2vec 2.0 encoder: `AlphaPredictor`, `OfaWav2Vec2Model`, and the builder that reads a config.

Shapes: `B` batch, `T` samples, `F` frames, `N` packed frames, `M` packed compressed frames, `C` channels, `D` dim.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from hubcore.nn.conv import ConvExtractor, FrameConv
from hubcore.nn.packed import conv_same
from hubcore.nn.padded import Padded, PaddedWavs
from hubcore.nn.products import run_linear
from hubcore.nn.speech_encoder import SpeechEncoder, build_encoder, build_extractor, build_feature_norm, build_projection
from hubcore.nn.transformer import Encoder
from hubcore.ragged import wide_dtype, with_gaps, without_gaps
from hubcore_ofa_wav2vec2.cif import Tail, fire, fire_padded
from hubcore_ofa_wav2vec2.config import DEFAULT_LAMBD, OfaWav2Vec2Config
from hubcore_ofa_wav2vec2.lambd import check_lambd, lambd_for_period, mix, sums_of_each


class AlphaPredictor(nn.Module):
    """Alpha, each frame's share of an output, between 0 and 1: convolution, layer norm, ReLU, linear, sigmoid.

    Example:
        >>> AlphaPredictor(8)(torch.zeros(5, 8), [2, 3]).shape
        torch.Size([5])
    """

    def __init__(self, dim: int, kernel: int = 5) -> None:
        super().__init__()
        self.conv = FrameConv(dim, dim, kernel=kernel, stride=1, bias=True)
        self.norm = nn.LayerNorm(dim)
        self.linear = nn.Linear(dim, 1)
        bound = (dim * kernel) ** -0.5  # torch's own start of a Conv1d, which the original's is
        nn.init.uniform_(self.conv.weight, -bound, bound)

    def forward(self, features: Tensor, lengths: Sequence[int]) -> Tensor:
        """Alpha `(N,)`, float32 or wider, of packed features `(N, C)`; `lengths` are the frames of each utterance."""
        if isinstance(lengths, Padded):
            x = conv_same(features, lengths, self.conv.weight.transpose(1, 2), self.conv.bias)
        else:
            gap = self.conv.kernel // 2
            x = without_gaps(self.conv(with_gaps(features, lengths, gap)), lengths, gap)
        logits: Tensor = self.linear(functional.relu(self.norm(x)))
        return torch.sigmoid(logits[:, 0].to(torch.promote_types(logits.dtype, torch.float32)))


@dataclass(frozen=True)
class Compressed:
    """Result of one forward pass of `OfaWav2Vec2Model`."""

    states: list[Tensor]
    """`(M, D)` hidden states of the layers asked for."""
    lengths: list[int]
    """Compressed frames of each utterance."""
    spans: Tensor
    """`(M, 2)` float64, where each starts and ends, in convolutional frames."""
    alpha: Tensor
    """`(N,)` predicted alpha."""
    mixed_alpha: Tensor
    """`(N,)` float64, the weights that were fired."""
    lambd: Tensor | None
    """`(B,)` float64; None for a model without mixing."""
    frames: Sequence[int]
    """Convolutional frames of each utterance."""


class OfaWav2Vec2Model(SpeechEncoder):
    """wav2vec 2.0 whose transformer sees frames merged by continuous integrate-and-fire.

    Args:
        extractor: waveform signal to frames `(N, C)`.
        feature_norm: layer norm of those.
        alpha_predictor: called as `alpha_predictor(features, lengths)`.
        projection: `(M, C)` to `(M, D)`.
        encoder: `(M, D)` to hidden states.
        mixing: whether lambda mixes alpha with 1.
        normalize: whether each waveform is normalised over its own samples first.
        normalize_eps: added to the variance there.

    Example:
        >>> from hubcore_ofa_wav2vec2 import CONFIGS, build_model
        >>> model = build_model(CONFIGS["tiny"])
        >>> model.compress([torch.randn(16000)], layers=[4], lambd=0.0).lengths
        [49]
    """

    def __init__(
        self,
        extractor: ConvExtractor,
        feature_norm: nn.Module,
        alpha_predictor: nn.Module,
        projection: nn.Module,
        encoder: Encoder,
        *,
        mixing: bool = True,
        normalize: bool = False,
        normalize_eps: float = 1e-5,
    ) -> None:
        super().__init__(extractor, feature_norm, projection, encoder, normalize=normalize, normalize_eps=normalize_eps)
        self.alpha_predictor = alpha_predictor
        self.mixing = mixing

    def compress(
        self,
        wavs: Sequence[Tensor],
        layers: Sequence[int],
        *,
        lambd: Any = None,
        frames_per_output: float | None = None,
        tail: Tail = "drop",
    ) -> Compressed:
        """Hidden states of compressed frames.

        Args:
            wavs: 1-D waveforms.
            layers: hidden states to return, 0 to L.
            lambd: see `hubcore_ofa_wav2vec2.lambd.check_lambd`; ignored by a model without mixing, whose alpha fires as it is.
            frames_per_output: a mean period in frames, from which each utterance's lambda is found instead.
            tail: what happens to the mass left at the end, see `hubcore_ofa_wav2vec2.cif.fire`.
        """
        features, frames = self.extract(wavs)
        alpha = self.alpha_predictor(features, frames)
        if self.mixing and frames_per_output is None:
            lambd = check_lambd(lambd, len(frames), alpha.device).expand(len(frames))
        mixed, chosen = self._mixed(alpha, frames, lambd, frames_per_output)
        fired = fire(features, mixed, frames, tail=tail)
        states = self.encoder(run_linear(self.projection, fired.frames), fired.lengths, layers)
        return Compressed(states, fired.lengths, fired.spans, alpha, mixed, chosen, frames)

    def _mixed(
        self, alpha: Tensor, frames: Sequence[int], lambd: Tensor, frames_per_output: float | None
    ) -> tuple[Tensor, Tensor | None]:
        """The weights that are fired, `(N,)`, and the lambda of each utterance."""
        if not self.mixing:
            return alpha.to(wide_dtype(alpha.device)), None
        if frames_per_output is not None:
            lambd = lambd_for_period(alpha, frames, frames_per_output)
        return mix(alpha, lambd, frames), lambd

    def compress_padded(
        self, wavs: PaddedWavs, layers: Sequence[int], *, lambd: float | None, frames_per_output: float | None, tail: Tail
    ) -> tuple[list[Tensor], Padded]:
        """`compress` for a padded batch: hidden states `(B x M, D)`, and the compressed frames of each utterance."""
        frames: Any  # a `Padded`
        features, frames = self.extract(wavs)
        alpha = self.alpha_predictor(features, frames)
        each = torch.full_like(frames.lengths, lambd or 0.0, dtype=wide_dtype(alpha.device))
        mixed, _ = self._mixed(alpha, frames, each, frames_per_output)
        outputs, counts = fire_padded(features, mixed, frames, tail=tail)
        return self.encoder(run_linear(self.projection, outputs), counts, layers), counts

    def forward(self, wavs: Sequence[Tensor], layers: Sequence[int]) -> tuple[list[Tensor], list[int]]:
        """`compress` at the default lambda: hidden states `(M, D)` and the compressed frames of each utterance."""
        result = self.compress(wavs, layers, lambd=DEFAULT_LAMBD)
        return result.states, result.lengths

    def alpha_sums(self, wavs: Sequence[Tensor]) -> tuple[Tensor, Sequence[int]]:
        """The sum of alpha of each utterance, `(B,)` float64, and its convolutional frames; runs no block."""
        features, frames = self.extract(wavs)
        alpha = self.alpha_predictor(features, frames)
        return sums_of_each(alpha.to(wide_dtype(alpha.device)), frames), frames


def build_model(config: OfaWav2Vec2Config) -> OfaWav2Vec2Model:
    """The model that a config describes, with fresh weights.

    Example:
        >>> from hubcore_ofa_wav2vec2 import CONFIGS
        >>> build_model(CONFIGS["tiny"]).alpha_predictor.conv.kernel
        5
    """
    return OfaWav2Vec2Model(
        build_extractor(config),
        build_feature_norm(config),
        AlphaPredictor(config.conv_dim, config.alpha_kernel),
        build_projection(config),
        build_encoder(config),
        mixing=config.mixing,
        normalize=config.normalize,
        normalize_eps=config.normalize_eps,
    )
