"""`Featurizer` as `s3prl.nn` has it: lists of hidden states in, one tensor out. Shapes: `B` batch, `F` frames, `D` dim."""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from hubcore.errors import OptionError
from hubcore.layer_sum import LayerSum


class _LayersAndRates(Protocol):
    @property
    def num_layers(self) -> int: ...

    @property
    def hidden_sizes(self) -> list[int]: ...

    @property
    def downsample_rates(self) -> list[int]: ...


class Featurizer(nn.Module):
    """The softmax-weighted sum of the hidden states of an `S3PRLUpstream`, trained with the downstream task.

    `weights` `(L,)` holds one number for each selected layer, in the order of the layers; zeros at first, which is the plain
    mean. An upstream with a single hidden state has none: it is None.

    Args:
        upstream: read for its layers, widths and rate; it is neither kept nor changed.
        layer_selections: the layers to sum, in any order, negative ones counted from the end; all if None.
        normalize: whether each layer is layer-normed, without trained scale, before the sum.

    Raises:
        OptionError: a layer does not exist or stands twice, or the layers have different widths.

    Example:
        >>> import torch
        >>> from hubcore.compat.s3prl import Featurizer, S3PRLUpstream
        >>> model = S3PRLUpstream("wav2vec2_tiny_prompts")
        >>> featurizer = Featurizer(model, layer_selections=[0, 2, 4])
        >>> hs, hs_len = featurizer(*model(torch.randn(2, 16000), torch.tensor([16000, 8000])))
        >>> tuple(hs.shape), hs_len.tolist(), featurizer.output_size, featurizer.downsample_rate
        ((2, 49, 96), [49, 24], 96, 320)
    """

    weights: nn.Parameter | None

    def __init__(
        self, upstream: _LayersAndRates, layer_selections: Sequence[int] | None = None, normalize: bool = False
    ) -> None:
        super().__init__()
        self.num_layers = upstream.num_layers
        self.layer_selections = _sorted_layers(layer_selections, upstream.num_layers)
        """The layers that are summed, in rising order."""
        sizes = {upstream.hidden_sizes[layer] for layer in self.layer_selections}
        if len(sizes) > 1:
            raise OptionError(
                f"the layers have the widths {upstream.hidden_sizes}. A weighted sum needs one width. "
                "Choose layers of one width with layer_selections."
            )
        self._output_size = sizes.pop()
        try:
            self._downsample_rate: int | str = upstream.downsample_rates[self.layer_selections[0]]
        except OptionError as error:
            self._downsample_rate = str(error)
        self.normalize = bool(normalize)
        weights = nn.Parameter(torch.zeros(len(self.layer_selections))) if self.num_layers > 1 else None
        self.register_parameter("weights", weights)

    @property
    def output_size(self) -> int:
        """The width `D` of the features."""
        return self._output_size

    @property
    def downsample_rate(self) -> int:
        """Samples between two frames.

        Raises:
            OptionError: the upstream's frame rate depends on the input.
        """
        if isinstance(self._downsample_rate, str):
            raise OptionError(self._downsample_rate)
        return self._downsample_rate

    def forward(self, all_hs: Sequence[Tensor], all_lens: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """The features `(B, F, D)` and their lengths `(B,)`.

        Args:
            all_hs: every hidden state `(B, F, D)`, or a list of a single one, which is returned as it is.
            all_lens: the `(B,)` lengths of each.

        Raises:
            OptionError: the hidden states are of another upstream.
        """
        if len(all_hs) == 1:
            return all_hs[0], all_lens[0]
        if len(all_hs) != self.num_layers or len(all_lens) != self.num_layers or self.weights is None:
            raise OptionError(
                f"there are {len(all_hs)} hidden states and {len(all_lens)} lengths, but this featurizer was made for "
                f"{self.num_layers}. Both lists must be what its upstream returned: featurizer(*upstream(wavs, wavs_len))."
            )
        layers = LayerSum(self.layer_selections, functional.softmax(self.weights, dim=0), self.normalize)
        return layers.sum_of([all_hs[layer] for layer in layers]), all_lens[layers[0]]

    def extra_repr(self) -> str:
        """Settings for `print(featurizer)`."""
        return f"layers={self.layer_selections}, output_size={self.output_size}, normalize={self.normalize}"


def _sorted_layers(selection: Sequence[int] | None, count: int) -> list[int]:
    if selection is None:
        return list(range(count))
    with contextlib.suppress(TypeError):  # raised by what cannot be counted with
        layers = [operator.index(layer) for layer in selection]
        chosen = sorted({layer % count for layer in layers if -count <= layer < count})
        if chosen and len(chosen) == len(layers):
            return chosen
    raise OptionError(
        f"layer_selections is {selection}. It must name at least one of the {count} hidden states, 0 to {count - 1}, and none "
        "twice. Choose among them."
    )
