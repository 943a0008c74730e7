"""Weights that load and cannot be meant: not finite, or nothing but zeros."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from hubcore.errors import HubcoreError
from hubcore.findings import Finding
from hubcore.loading import build_upstream
from hubcore.registry.names import Registry
from hubcore.sources.resolve import find_source
from hubcore.text import listed, plural

if TYPE_CHECKING:
    from torch import Tensor


def odd_checkpoints(registry: Registry) -> Iterator[Finding]:
    """A warning for each cached checkpoint with weights that cannot be right: NaN, infinite, or only zeros.

    Every checkpoint that is cached is loaded, which takes its time.
    """
    for entry in registry.entries:
        found = find_source(entry.card.sources, entry.card) if entry.card else None
        if found is None or entry.unavailable:
            continue
        try:
            said = [f"the weights of {entry.name}: {odd}." for odd in odd_weights(build_upstream(entry, None, {}).state_dict())]
        except (HubcoreError, AttributeError) as error:
            said = [f"{entry.name} cannot be loaded, so its weights were not looked at: {error}"]
        for what in said:
            yield Finding(what, "Ask who published them.", str(found[1]), owner=entry.owner, warning=True)


def odd_weights(weights: Mapping[str, Tensor]) -> tuple[str, ...]:
    """A sentence for each kind of odd weight, for a load report; none for weights that look trained.

    A sum is taken of each tensor, which costs one pass over memory. Vectors may be all zeros: fresh biases are.

    Example:
        >>> import torch
        >>> odd_weights({"a": torch.tensor([1.0, float("nan")]), "b": torch.zeros(2, 2)})
        ('NaN or infinity in 1 tensor: a. Every feature will be affected', 'only zeros in 1 matrix: b')
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
        said.append(f"NaN or infinity in {plural(len(infinite), 'tensor')}: {listed(infinite)}. Every feature will be affected")
    if empty:
        said.append(f"only zeros in {'1 matrix' if len(empty) == 1 else f'{len(empty)} matrices'}: {listed(empty)}")
    return tuple(said)
