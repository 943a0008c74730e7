"""An upstream with weights: a learnt filter bank and one block over it. Shapes: `B` batch, `F` frames, `D` dim."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from hubcore import UpstreamBase, UpstreamOutput
from hubcore.checkpoints import Name, Names, Reader
from hubcore.ragged import pad_packed, regular_frame_times
from hubcore.upstream import named_config


@dataclass(frozen=True)
class AcmeBandsConfig:
    """The widths of the filter bank."""

    bands: int = 8
    """Number of filters, the `D` of the hidden states."""
    window: int = 200
    """Samples of a frame, which is also the step to the next."""


CONFIGS: Mapping[str, AcmeBandsConfig] = MappingProxyType({"eight": AcmeBandsConfig()})


class AcmeBandsUpstream(UpstreamBase):
    """Hidden state 0 is the filter bank, hidden state 1 what the block makes of it."""

    config_class: ClassVar[type[Any] | None] = AcmeBandsConfig
    configs: ClassVar[Mapping[str, Any]] = CONFIGS

    def __init__(self, config: AcmeBandsConfig) -> None:
        super().__init__(
            layer_names=("filters", "block_1"),
            hidden_sizes=(config.bands, config.bands),
            frame_stride=config.window,
            receptive_field=config.window,
        )
        self.config = config
        self.filters = nn.Linear(config.window, config.bands)
        self.mix = nn.Linear(config.bands, config.bands)

    @classmethod
    def from_file(cls, path: str | Path, *, config: Any = None) -> AcmeBandsUpstream:
        reader: Reader[AcmeBandsConfig, AcmeBandsUpstream] = Reader(
            family="acme bands",
            config_class=AcmeBandsConfig,
            build=cls,
            names=Names([Name("filters.*", {}), Name("mix.*", {})]),
            kinds=("AcmeBandsUpstream",),
            inside="",
        )
        _, upstream, upstream.load_report = reader.read(path, named_config(cls, config))
        return upstream.eval()

    def forward(
        self,
        wavs: Sequence[Tensor] | Tensor,
        lengths: Tensor | Sequence[int] | None = None,
        *,
        layers: Sequence[int] | None = None,
    ) -> UpstreamOutput:
        rows = self.check_input(wavs, lengths)
        chosen = self.check_layers(layers)
        window = self.config.window
        counts = [len(row) // window for row in rows]
        packed = torch.cat([row[: n * window].reshape(n, window) for row, n in zip(rows, counts, strict=True)])
        states = [self.filters(packed)]  # (sum of F_i, D): all utterances end to end
        if 1 in chosen:
            states.append(states[0] + torch.tanh(self.mix(states[0])))
        padded = [pad_packed(states[layer], counts) for layer in chosen]
        valid = torch.tensor(counts, device=packed.device)
        times = regular_frame_times(valid, padded[0].shape[1], stride=window, span=window, sample_rate=self.sample_rate)
        return self.make_output(padded, valid, chosen, times)
