"""`Head`, the model of a probe; `fit`, its training, with early stopping.

Shapes: `B` batch, `L` layers, `F` frames, `D` dim, `C` outputs: classes, tokens and the blank, or one number.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from hubcore.fields import Above, AtLeast, Size, check_fields
from hubcore.layer_sum import LayerSum
from hubcore.probes.inputs import Frames, Vectors


@dataclass(frozen=True)
class Recipe:
    """Settings of the training of probes.

    Example:
        >>> Recipe(hidden=256).batch
        64
    """

    hidden: Size | None = None
    """The width of a hidden layer with ReLU; None for a linear probe."""
    seeds: Annotated[int, AtLeast(1)] = 3
    """The number of trainings for each layer, each with parts, weights and an order of its own."""
    learning_rate: Annotated[float, Above(0)] = 0.01
    """The step of Adam."""
    epochs: Annotated[int, AtLeast(1)] = 200
    """The most passes over the training part."""
    patience: Annotated[int, AtLeast(1)] = 20
    """Epochs without a better loss of the validation part after which training stops; the best epoch is kept."""
    batch: Annotated[int, AtLeast(1)] = 64
    """Utterances of a batch."""
    batch_frames: Annotated[int, AtLeast(1)] = 4000
    """Frames of a batch, of `ctc`."""

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class HeadShape:
    """Sizes of a `Head`."""

    layers: Annotated[int, AtLeast(1)]
    """Layers that are summed."""
    width: Annotated[int, AtLeast(1)]
    """Of a layer."""
    outputs: Annotated[int, AtLeast(1)]
    """Numbers that it gives."""
    hidden: Size | None = None
    """The width of a hidden layer, if there is one."""

    def __post_init__(self) -> None:
        check_fields(self)


class Head(nn.Module):
    """A linear layer, or two, on one layer of an upstream or on the weighted sum of several.

    Each number is first brought to mean 0 and deviation 1 over the training part. The sum is that of a `Featurizer`: a softmax
    of `weights`, which start equal.

    Example:
        >>> Head(HeadShape(layers=3, width=4, outputs=2))(torch.randn(5, 3, 4)).shape
        torch.Size([5, 2])
    """

    mean: Tensor
    std: Tensor

    def __init__(self, shape: HeadShape) -> None:
        super().__init__()
        self.shape = shape
        self.register_buffer("mean", torch.zeros(shape.width))
        self.register_buffer("std", torch.ones(shape.width))
        self.weights = nn.Parameter(torch.zeros(shape.layers)) if shape.layers > 1 else None
        hidden, outputs = shape.hidden, shape.outputs
        self.linear = nn.Linear(shape.width, hidden or outputs)
        self.output = nn.Linear(hidden, outputs) if hidden else None

    def forward(self, states: Tensor) -> Tensor:
        """`(B, C)` of `(B, L, D)`, or `(B, F, C)` of `(B, L, F, D)`."""
        summed = states[:, 0]
        if self.weights is not None:
            summed = LayerSum(range(self.shape.layers), self.weights.softmax(0)).sum_of(states.unbind(1))
        x: Tensor = self.linear((summed - self.mean) / self.std)
        if self.output is not None:
            x = self.output(x.relu())
        return x


@dataclass(frozen=True, eq=False)
class Targets:
    """Labels as numbers, of all utterances by their place."""

    task: str
    """`classify`, `regress` or `ctc`."""
    values: Any
    """`(N,)` classes or numbers, or a list of the tokens of each, from 1 on: 0 is the blank."""

    def loss(self, outputs: Tensor, lengths: Tensor, chosen: Sequence[int]) -> Tensor:
        """The mean loss of utterances: cross-entropy, squared error, or CTC (Graves et al. 2006) over the tokens of each."""
        if self.task == "classify":
            return functional.cross_entropy(outputs, self.values[list(chosen)].to(outputs.device))
        if self.task == "regress":
            return functional.mse_loss(outputs[:, 0], self.values[list(chosen)].to(outputs.device))
        texts = [self.values[index] for index in chosen]
        counts = torch.tensor([len(text) for text in texts])
        log_probs = outputs.log_softmax(-1).transpose(0, 1)  # (F, B, C)
        return functional.ctc_loss(log_probs, torch.cat(texts).to(outputs.device), lengths, counts)


@dataclass(frozen=True)
class Fitted:
    """A trained head."""

    head: Head
    """With the weights of the best epoch."""
    epoch: int
    """The best epoch, from 1."""
    loss: float
    """Its loss of the validation part."""


def fit(
    inputs: Vectors | Frames,
    layers: Sequence[int],
    targets: Targets,
    train: Sequence[int],
    valid: Sequence[int],
    shape: HeadShape,
    recipe: Recipe,
    seed: int,
    device: torch.device,
) -> Fitted:
    """Trains a head with Adam until the loss of the validation part no longer falls.

    The same arguments give the same weights on one CPU with the same number of threads.

    Args:
        inputs: the features.
        layers: places of the layers that it reads.
        targets: the labels.
        train: utterances to learn from.
        valid: utterances to decide by when to stop.
        shape: sizes of the head.
        recipe: the settings.
        seed: of the weights and the order.
        device: where to train.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = Head(shape).to(device)
    _standardise(head, inputs, layers, train)
    optimizer = torch.optim.Adam(head.parameters(), lr=recipe.learning_rate)
    best = Fitted(copy.deepcopy(head), 0, math.inf)
    for epoch in range(1, recipe.epochs + 1):
        for chosen in inputs.batches(train, seed, epoch):
            states, lengths = inputs.states(chosen, layers)
            optimizer.zero_grad()
            targets.loss(head(states.to(device)), lengths, chosen).backward()
            optimizer.step()
        loss = _loss(head, inputs, layers, targets, valid, device)
        if loss < best.loss:
            best = Fitted(copy.deepcopy(head), epoch, loss)
        elif epoch - best.epoch >= recipe.patience:
            break
    return best


@torch.no_grad()
def _loss(
    head: Head, inputs: Vectors | Frames, layers: Sequence[int], targets: Targets, chosen: Sequence[int], device: torch.device
) -> float:
    """The mean loss of utterances."""
    total = 0.0
    for batch in inputs.batches(chosen, 0, 0):
        states, lengths = inputs.states(batch, layers)
        total += len(batch) * float(targets.loss(head(states.to(device)), lengths, batch))
    return total / len(chosen)


def _standardise(head: Head, inputs: Vectors | Frames, layers: Sequence[int], train: Sequence[int]) -> None:
    """Sets mean and deviation of each number, of the equal sum of the layers over the training part."""
    total, square, count = (torch.zeros(head.shape.width, dtype=torch.float64) for _ in range(3))
    for batch in inputs.batches(train, 0, 0):
        states, lengths = inputs.states(batch, layers)
        means = states.double().mean(1)  # zero beyond the lengths
        rows = means.reshape(-1, means.shape[-1])
        total, square, count = total + rows.sum(0), square + (rows**2).sum(0), count + lengths.sum()
    mean = total / count
    std = (square / count - mean**2).clamp(min=0).sqrt()
    head.mean.copy_(mean)
    head.std.copy_(torch.where(std > 1e-6 * (1 + mean.abs()), std, torch.ones_like(std)))  # what never varies says nothing


@torch.no_grad()
def outputs_of(
    head: Head, inputs: Vectors | Frames, layers: Sequence[int], chosen: Sequence[int], device: torch.device
) -> list[Tensor]:
    """Outputs of a head for utterances in their order: `(C,)`, or `(F, C)` of frames."""
    found: dict[int, Tensor] = {}
    for batch in inputs.batches(chosen, 0, 0):
        states, lengths = inputs.states(batch, layers)
        for index, rows, length in zip(batch, head(states.to(device)).cpu(), lengths.tolist(), strict=True):
            found[index] = rows[:length] if rows.ndim > 1 else rows
    return [found[index] for index in chosen]


def best_path(outputs: Tensor) -> list[int]:
    """The tokens of the best class of each frame `(F, C)`: repeats once, then without blanks (0).

    Example:
        >>> best_path(functional.one_hot(torch.tensor([1, 1, 0, 1, 2])))
        [1, 1, 2]
    """
    return [token for token in outputs.argmax(-1).unique_consecutive().tolist() if token]
