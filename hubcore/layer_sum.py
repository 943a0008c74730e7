"""The hidden states that a call keeps: all that were asked for, or only their weighted sum.

Shapes: `F` frames, `N` packed frames of all utterances, `D` dim, `L` layers.
"""

from __future__ import annotations

import mmap
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional


class LayerSum(tuple[int, ...]):
    """Layers asked for as one weighted sum. A call that is given this for `layers` returns a single hidden state.

    An upstream's model adds each hidden state as it comes (`KeptStates`), so that no other is in memory at the same time.
    Where it does not, and returns them all, `UpstreamBase.make_output` sums them.

    Args:
        layers: indices of the layers.
        weights: `(L,)`, one for each.
        normalize: whether each layer is layer-normed, without trained scale, before the sum.

    Example:
        >>> import torch
        >>> wanted = LayerSum([0, 2], torch.tensor([0.5, 2.0]))
        >>> wanted[1], wanted.sum_of([torch.ones(1, 3), torch.ones(1, 3)]).tolist()
        (2, [[2.5, 2.5, 2.5]])
    """

    weights: Tensor
    normalize: bool
    added: bool
    """True once a model has added hidden states as they came."""
    answered: bool
    """True once an output with nothing but the sum was made."""

    def __new__(cls, layers: Sequence[int], weights: Tensor, normalize: bool = False) -> LayerSum:
        """The layers, none twice, as the tuple that they are for whoever knows nothing of sums."""
        self = super().__new__(cls, layers)
        self.weights, self.normalize = weights, normalize
        self.added = self.answered = False
        return self

    def add(self, total: Tensor | None, place: int, state: Tensor) -> Tensor:
        """`total` and the hidden state `(..., D)` of the layer that was asked for at `place`, weighted."""
        if self.normalize:
            state = functional.layer_norm(state, state.shape[-1:])
        weight = self.weights[place].to(state.dtype)
        if total is None:
            return weight * state
        if torch.is_grad_enabled():
            return torch.addcmul(total, weight, state)
        return total.addcmul_(weight, state)

    def sum_of(self, states: Sequence[Tensor]) -> Tensor:
        """The weighted sum of hidden states `(..., D)`, in the order of the layers."""
        total: Tensor | None = None
        for place, state in enumerate(states):
            total = self.add(total, place, state)
        if total is None:
            raise ValueError("there must be at least one layer")
        return total


_LARGE = 4 << 20


def _apart(state: Tensor) -> Tensor:
    """A large hidden state in memory of its own. One that stays between what blocks need for a moment splits the heap of a
    CPU, which then grows half again as large as all states.
    """
    if torch.is_grad_enabled() or torch.compiler.is_compiling() or state.device.type != "cpu" or state.nbytes < _LARGE:
        return state
    return torch.frombuffer(mmap.mmap(-1, state.nbytes), dtype=state.dtype).view(state.shape).copy_(state)


class KeptStates:
    """Hidden states of one pass through a model: those of the layers asked for, and no others, or their sum.

    Example:
        >>> kept = KeptStates([2, 0])
        >>> for layer in range(3):
        ...     kept.add(layer, torch.full((1, 1), layer))
        >>> [state.item() for state in kept.states()]
        [2, 0]
    """

    def __init__(self, layers: Sequence[int]) -> None:
        self._layers = layers
        self._states: dict[int, Tensor] = {}
        self._total: Tensor | None = None

    def add(self, layer: int, state: Tensor) -> None:
        """Takes a hidden state `(N, D)`, if it was asked for."""
        if layer not in self._layers:
            return
        if isinstance(self._layers, LayerSum):
            self._total = self._layers.add(self._total, self._layers.index(layer), state)
        else:
            self._states[layer] = _apart(state)

    def states(self) -> list[Tensor]:
        """The hidden states in the order asked for, or their sum alone."""
        if isinstance(self._layers, LayerSum) and self._total is not None:
            self._layers.added = True
            return [self._total]
        return [self._states[layer] for layer in self._layers]
