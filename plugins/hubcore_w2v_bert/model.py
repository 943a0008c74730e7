"""The model of w2v-BERT 2.0: filter banks, projection, conformer blocks with causal convolutions.

Shapes: `T` samples, `F` frames, `N` packed frames of all utterances, `M` mel filters, `D` dim.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from hubcore.nn import Encoder, Filterbank, build_conformer
from hubcore.nn.padded import Padded, PaddedWavs
from hubcore.nn.products import run_linear
from hubcore.ragged import wide_dtype
from hubcore_w2v_bert.config import W2vBertConfig


class W2vBertModel(nn.Module):
    """Waveforms to hidden states (Barrault et al. 2023, section 3.2.1).

    Args:
        filterbank: waveforms to normalised filter banks, `(F, M)` each.
        stack: filter-bank frames that make one frame.
        feature_norm: layer norm of stacked frames.
        projection: `(N, stack M)` to `(N, D)`.
        encoder: `(N, D)` to hidden states.

    Example:
        >>> model = build_model(W2vBertConfig(dim=96, num_layers=2, ffn_dim=192))
        >>> states, counts = model([torch.zeros(16000)], layers=[0, 2])
        >>> [tuple(state.shape) for state in states], counts
        ([(49, 96), (49, 96)], [49])
    """

    def __init__(
        self, filterbank: Filterbank, stack: int, feature_norm: nn.LayerNorm, projection: nn.Module, encoder: Encoder
    ) -> None:
        super().__init__()
        self.filterbank, self.stack = filterbank, stack
        self.feature_norm = feature_norm
        self.projection = projection
        self.encoder = encoder

    @property
    def num_layers(self) -> int:
        """Number of blocks."""
        return len(self.encoder.blocks)

    def features(self, wavs: Sequence[Tensor]) -> list[Tensor]:
        """Normalised and stacked filter banks of each waveform, `(F, stack M)`; frames that fill no stack are left out."""
        # In float32 quiet bins are off by 1e-3; transformers, too, computes in 64 bits.
        wide = wide_dtype(wavs[0].device)
        rows = self.filterbank.features([wav.to(wide) for wav in wavs])
        return [frames[: len(frames) // self.stack * self.stack].reshape(-1, self.stack * frames.shape[1]) for frames in rows]

    def forward(self, wavs: Sequence[Tensor], layers: Sequence[int]) -> tuple[list[Tensor], Sequence[int]]:
        """Hidden states `(N, D)` of the layers asked for (0 to L), and the frames of each utterance."""
        counts: Sequence[int]
        if isinstance(wavs, PaddedWavs):
            packed, counts = self._padded(wavs)
        else:
            rows = self.features(wavs)
            packed, counts = torch.cat(rows), [len(frames) for frames in rows]
        return self.encode(packed, counts, layers), counts

    def encode(self, features: Tensor, counts: Sequence[int], layers: Sequence[int]) -> list[Tensor]:
        """Hidden states `(N, D)` of stacked filter banks `(N, stack M)`."""
        features = self.feature_norm(features.to(self.feature_norm.weight.dtype))
        states: list[Tensor] = self.encoder(run_linear(self.projection, features), counts, layers)
        return states

    def num_frames(self, samples: int) -> int:
        """The number of frames that so many samples give."""
        return self.filterbank.num_frames(samples) // self.stack

    def in_parts(self, wav: Tensor) -> Iterator[Tensor]:
        """The rows that `features` gives of one long waveform `(T,)`, `(F, stack M)` at a time, for `encode`."""
        rest: Tensor | None = None
        for part in self.filterbank.in_parts(wav, wide_dtype(wav.device)):
            rows = part if rest is None else torch.cat([rest, part])
            whole = len(rows) // self.stack * self.stack
            yield rows[:whole].reshape(-1, self.stack * rows.shape[1])
            rest = rows[whole:]

    def _padded(self, wavs: PaddedWavs) -> tuple[Tensor, Padded]:
        """`features` of a padded batch, `(B x F, stack M)`, and the frames of each utterance."""
        wide = wavs.samples.to(wide_dtype(wavs.samples.device))
        rows, counts = self.filterbank.padded(PaddedWavs(wide, wavs.counts.lengths))
        stacked = Padded(counts.lengths.div(self.stack, rounding_mode="floor"), counts.longest // self.stack)
        whole = torch.arange(stacked.longest * self.stack, device=rows.device)
        rows = counts.apart(rows).index_select(1, whole)
        shape = (rows.shape[0] * stacked.longest, self.stack * rows.shape[2])
        return rows.view(shape), stacked


def build_model(config: W2vBertConfig) -> W2vBertModel:
    """The model that a config describes, with fresh weights.

    Example:
        >>> build_model(W2vBertConfig(dim=96, num_layers=2)).num_layers
        2
    """
    width = config.num_mel_bins * config.stack
    encoder = build_conformer(config, norm=nn.Identity(), conv_norm=nn.LayerNorm, causal=True)
    projection = nn.Linear(width, config.dim)
    return W2vBertModel(Filterbank(config.filterbank), config.stack, nn.LayerNorm(width), projection, encoder)
