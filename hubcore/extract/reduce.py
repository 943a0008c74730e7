"""Fewer numbers per utterance: a weighted sum of layers (`choose_mix`, `mixed`) and one vector for all frames (`pooled`).

Shapes: `L` layers, `F` frames, `D` dim.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence

import torch
from torch import Tensor

from hubcore.errors import OptionError
from hubcore.extract.batches import LayerChoice, choose_layers
from hubcore.text import printable

POOLS = ("mean", "mean+std", "max")
"""Ways to make one vector of the frames of an utterance."""


def choose_mix(
    mix: str | os.PathLike[str], choice: LayerChoice, layer_names: Sequence[str]
) -> tuple[LayerChoice, tuple[float, ...]]:
    """The layers of a weighted sum and their weights.

    Args:
        mix: layers, whose mean is meant (`"11,14,16"`), or with their weights (`"11:0.5,14:0.5"`); or a `.safetensors` file
            with the state dict of a `Featurizer`, whose weights go through a softmax.
        choice: the layers that the weights of such a file belong to.
        layer_names: those of the upstream.

    Raises:
        OptionError: it is none of these, or the file has another number of weights than there are layers.

    Example:
        >>> from hubcore.extract import LayerChoice
        >>> choose_mix("1,2", LayerChoice((), True), ("in", "block_1", "block_2"))
        (LayerChoice(indices=(1, 2), stacked=False), (0.5, 0.5))
        >>> choose_mix("1:0.25,block_2:0.75", LayerChoice((), True), ("in", "block_1", "block_2"))[1]
        (0.25, 0.75)
    """
    text = os.fspath(mix)
    if text.endswith(".safetensors"):
        found = _weights_of(text)
        if len(found) != len(choice.indices):
            what = f"{printable(text)} has {len(found)} weights, and there are {len(choice.indices)} layers."
            raise OptionError(what, fix="Name the layers that the featurizer summed: --layers 0-12.")
        return LayerChoice(choice.indices, stacked=False), tuple(torch.tensor(found).softmax(0).tolist())
    pairs = [part.partition(":") for part in text.split(",")]
    names, weighted = ",".join(name for name, _, _ in pairs), [weight for _, colon, weight in pairs if colon]
    indices = choose_layers(names, layer_names).indices
    if not weighted:
        return LayerChoice(indices, stacked=False), (1 / len(indices),) * len(indices)
    try:
        weights = tuple(map(float, weighted))
    except ValueError:
        weights = ()
    if len(weights) != len(indices) or not all(map(math.isfinite, weights)):
        what = f"mix is {text!r}. It must be layers (11,14,16), layers with weights (11:0.2,14:0.8), or a .safetensors file."
        raise OptionError(what, fix="Give each layer one weight, or none any.")
    return LayerChoice(indices, stacked=False), weights


def _weights_of(path: str) -> list[float]:
    """The one-dimensional tensor `weights` of a file."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise OptionError(f"{printable(path)} cannot be read: {error}.", fix="Pass the path of a safetensors file.") from error
    found = [tensor for name, tensor in tensors.items() if name.rpartition(".")[2] == "weights" and tensor.ndim == 1]
    if len(found) != 1:
        what = f"{printable(path)} has the tensors {', '.join(sorted(tensors))}, not one called weights."
        raise OptionError(what, fix="Save it with safetensors.torch.save_file(featurizer.state_dict(), path).")
    return [float(value) for value in found[0]]


def mixed(states: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """The weighted sum `(F, D)` of `L` layers `(F, D)`.

    Example:
        >>> mixed([torch.ones(1, 2), torch.zeros(1, 2)], [0.25, 0.75])
        tensor([[0.2500, 0.2500]])
    """
    return sum((weight * state.float() for weight, state in zip(weights, states, strict=True)), torch.zeros(()))


def pooled(state: Tensor, how: str) -> Tensor:
    """One vector `(D,)` of the frames `(F, D)`; `(2 D,)` for `mean+std`, whose deviation is that of the population.

    Example:
        >>> frames = torch.tensor([[1.0, 4.0], [3.0, 4.0]])
        >>> pooled(frames, "mean+std"), pooled(frames, "max")
        (tensor([2., 4., 1., 0.]), tensor([3., 4.]))
    """
    state = state.float()
    if how == "max":
        return state.amax(0)
    mean = state.mean(0)
    return torch.cat([mean, state.std(0, correction=0)]) if how == "mean+std" else mean
