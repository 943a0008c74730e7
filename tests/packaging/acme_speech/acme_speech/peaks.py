"""An upstream that inherits nothing: the highest sample of every 10 ms. Shapes: `B` batch, `F` frames."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hubcore import UpstreamOutput
from hubcore.card import Card
from hubcore.errors import OptionError
from hubcore.ragged import check_wavs, pad_packed, regular_frame_times


class AcmePeaksUpstream:
    """One hidden state of width 1, without weights."""

    sample_rate = 16000
    num_layers = 0
    layer_names = ("peaks",)
    hidden_sizes = (1,)
    frame_stride = receptive_field = min_samples = 160

    def __init__(self, scale: float = 1.0) -> None:
        self.scale = scale
        self.card: Card | None = None

    def forward(
        self,
        wavs: Sequence[Tensor] | Tensor,
        lengths: Tensor | Sequence[int] | None = None,
        *,
        layers: Sequence[int] | None = None,
    ) -> UpstreamOutput:
        rows = check_wavs(wavs, lengths, min_samples=self.min_samples, sample_rate=self.sample_rate)
        chosen = [0] if layers is None else list(layers)
        if not chosen or any(layer not in (0, -1) for layer in chosen):
            raise OptionError(f"layers is {chosen}. There is one hidden state, 0. Leave layers out.")
        frames = [self.scale * row.unfold(0, 160, 160).abs().amax(1, keepdim=True) for row in rows]
        counts = [len(frame) for frame in frames]
        state = pad_packed(torch.cat(frames), counts)  # (B, F, 1)
        valid = torch.tensor(counts, device=state.device)
        times = regular_frame_times(valid, state.shape[1], stride=160, span=160, sample_rate=self.sample_rate)
        count = len(chosen)
        return UpstreamOutput((state,) * count, valid, (0,) * count, self.layer_names * count, times)

    __call__ = forward
