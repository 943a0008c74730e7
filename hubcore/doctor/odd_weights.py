"""Weights that load and cannot be meant: not finite, or nothing but zeros."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

_SHOWN = 5


def odd_weights(weights: Mapping[str, Tensor]) -> tuple[str, ...]:
    """A sentence for each kind of odd weight, for a load report; none for weights that look trained.

    A sum is taken of each tensor, which costs one pass over memory. Vectors may be all zeros: fresh biases are.

    Args:
        weights: name -> tensor.

    Example:
        >>> import torch
        >>> odd_weights({"a": torch.tensor([1.0, float("nan")]), "b": torch.zeros(2, 2)})
        ('1 tensors hold NaN or infinity: a. Every feature will be affected', '1 matrices hold only zeros: b')
    """
    infinite, empty = [], []
    for name, tensor in weights.items():
        if not tensor.is_floating_point() or not tensor.numel():
            continue
        total = tensor.detach().sum()
        if not bool(total.isfinite()):
            # A sum may overflow where no element does, which is rare enough to look again.
            if not bool(tensor.isfinite().all()):
                infinite.append(name)
        elif tensor.ndim > 1 and not bool(total) and not bool(tensor.any()):
            empty.append(name)
    said = []
    if infinite:
        said.append(f"{len(infinite)} tensors hold NaN or infinity: {_some(infinite)}. Every feature will be affected")
    if empty:
        said.append(f"{len(empty)} matrices hold only zeros: {_some(empty)}")
    return tuple(said)


def _some(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (" and others" if len(names) > _SHOWN else "")
