"""The DistilHuBERT model: HuBERT's extractor and a few blocks, then heads that predict layers of the teacher.

Shapes: `N` packed frames of all utterances, `D` dim, `P` predictions, `L` blocks.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from hubcore.nn import SpeechEncoder, build_encoder, build_extractor, build_feature_norm, build_projection
from hubcore.nn.products import run_linear
from hubcore_distilhubert.config import DistilHubertConfig


class SplitLinear(nn.Module):
    """One linear layer for each of `P` parts, `(N, P, D)` to `(N, P, D')`. s3prl: `SplitLinear`.

    Example:
        >>> SplitLinear(3, 8, 4)(torch.zeros(5, 3, 8)).shape
        torch.Size([5, 3, 4])
    """

    def __init__(self, parts: int, in_dim: int, out_dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(parts, in_dim, out_dim).uniform_(-(in_dim**-0.5), in_dim**-0.5))
        self.bias = nn.Parameter(torch.empty(1, 1, parts, out_dim).uniform_(-(in_dim**-0.5), in_dim**-0.5))

    def forward(self, x: Tensor) -> Tensor:
        """Frames `(N, P, D)` to `(N, P, D')`."""
        return torch.einsum("npd,pde->npe", x, self.weight) + self.bias[0]


class Predictions(nn.Module):
    """Prediction heads: linear, GELU, and a linear layer for each, `(N, D)` to `(N, P, D')`. s3prl: `output_layer`.

    Example:
        >>> Predictions(8, inner_dim=6, out_dim=4, heads=3)(torch.zeros(5, 8)).shape
        torch.Size([5, 3, 4])
    """

    def __init__(self, dim: int, inner_dim: int, out_dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.hidden = nn.Linear(dim, heads * inner_dim)
        # The original keeps a single head as a plain linear layer, whose weight lies the other way.
        self.out = nn.Linear(inner_dim, out_dim) if heads == 1 else SplitLinear(heads, inner_dim, out_dim)

    def forward(self, x: Tensor) -> Tensor:
        """Frames `(N, D)` to `(N, P, D')`."""
        inner = functional.gelu(self.hidden(x)).unflatten(1, (self.heads, -1))  # (N, P, inner)
        out: Tensor = self.out(inner)
        return out


class DistilHubert(SpeechEncoder):
    """Waveforms to hidden states: 0 is the projection, 1 to L the blocks, and behind them the predictions.

    Example:
        >>> model = DistilHubert(DistilHubertConfig(dim=96, num_layers=2, predicted_layers=(4, 8), prediction_dim=32))
        >>> states, counts = model([torch.zeros(16000)], layers=[0, 2, 4])
        >>> [tuple(state.shape) for state in states], counts
        ([(49, 96), (49, 96), (49, 32)], [49])
    """

    def __init__(self, config: DistilHubertConfig) -> None:
        parts = (build_extractor(config), build_feature_norm(config), build_projection(config), build_encoder(config))
        super().__init__(*parts, normalize=config.normalize, normalize_eps=config.normalize_eps)
        heads = len(config.predicted_layers)
        widths = (config.dim, config.prediction_inner_dim, config.prediction_dim)
        self.predictions = Predictions(*widths, heads) if heads else None

    def encode(self, features: Tensor, counts: Sequence[int], layers: Sequence[int]) -> list[Tensor]:
        """Hidden states `(N, D)` of normalised convolutional features `(N, C)`: the layers asked for, 0 to L + P."""
        states = {0: run_linear(self.projection, features)}
        last = self.num_layers
        blocks = sorted({min(layer, last) for layer in layers} - {0})
        if blocks:
            states.update(zip(blocks, self.encoder(states[0], counts, blocks), strict=True))
        if self.predictions is not None and max(layers) > last:
            predicted = self.predictions(states[last]).unbind(1)  # P times (N, D')
            states.update(enumerate(predicted, start=last + 1))
        return [states[layer] for layer in layers]
