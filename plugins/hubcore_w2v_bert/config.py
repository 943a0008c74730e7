"""The shape of a w2v-BERT 2.0 encoder, and the published shape by name. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from hubcore.card import UpstreamShape
from hubcore.fields import Depth, Size
from hubcore.nn.conformer_config import ConformerConfig
from hubcore.nn.filterbank_config import FilterbankConfig


@dataclass(frozen=True)
class W2vBertConfig(ConformerConfig):
    """Everything that decides what a w2v-BERT 2.0 encoder computes (Barrault et al. 2023, section 3.2.1).

    Example:
        >>> config = W2vBertConfig(num_layers=2)
        >>> config.frame_stride, config.min_samples, config.upstream_shape.layer_names
        (320, 560, ('input', 'block_1', 'block_2'))
    """

    dim: Size = 1024
    num_layers: Depth = 24
    num_heads: Size = 16
    ffn_dim: Size = 4096
    positions: Literal["relative", "relative_key", "rotary", "none"] = "relative_key"
    num_mel_bins: Size = 80
    """Mel filters of a filter-bank frame. transformers' feature extractor: `num_mel_bins`."""
    stack: Size = 2
    """Filter-bank frames that make one frame of the encoder. transformers' feature extractor: `stride`."""

    @property
    def filterbank(self) -> FilterbankConfig:
        """Kaldi's filter banks of 16-bit samples, normalised over the whole utterance (fairseq2's, 16 kHz)."""
        return FilterbankConfig(
            input_scale=32768.0,
            num_mel_bins=self.num_mel_bins,
            delta_order=0,
            cmvn_epsilon=1e-7,
            cmvn_epsilon_of="variance",
        )

    @property
    def frame_stride(self) -> int:
        """Samples from one frame to the next."""
        return self.filterbank.frame_shift * self.stack

    @property
    def receptive_field(self) -> int:
        """Samples from which the filter-bank frames of one frame are computed."""
        return self.filterbank.frame_length + self.filterbank.frame_shift * (self.stack - 1)

    @property
    def min_samples(self) -> int:
        """Fewest samples that give a frame, and the two filter-bank frames that have a variance."""
        return max(self.receptive_field, self.filterbank.frame_length + self.filterbank.frame_shift)

    @property
    def first_sample(self) -> int:
        """The sample at which frame 0 starts."""
        return 0

    @property
    def upstream_shape(self) -> UpstreamShape:
        """Shape of this config's upstream: the input of the blocks, then the output of each."""
        return self.blocks_shape(self.frame_stride, self.filterbank.sample_rate)


CONFIGS: Mapping[str, W2vBertConfig] = MappingProxyType({"w2v_bert_2": W2vBertConfig()})
"""The published shape by name: w2v-BERT 2.0."""
