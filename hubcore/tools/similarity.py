"""Linear CKA between the layers of a model, or of two: how alike two layers see the frames of a corpus.

Centred kernel alignment (Kornblith et al. 2019, section 3) compares two descriptions `X (n, D)` and `Y (n, E)` of the same
`n` frames by their Gram matrices `K = X X'` and `L = Y Y'`: `HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L))`. Rotating or scaling
all frames changes nothing. The estimate of HSIC is the unbiased one of Song et al. 2012 (equation 5), summed over batches as
in Nguyen et al. 2021 (section 3.1): few frames of wide layers do not look alike for being few, and memory does not grow with
the corpus. Shapes: `n` frames of a batch, `D` dim, `L` layers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hubcore.errors import OptionError
from hubcore.text import plural
from hubcore.tools.frames import AnyFrames
from hubcore.tools.plotting import load_matplotlib

BATCH = 1024
"""Frames whose Gram matrices are held at once."""
_LEAST = 16
"""Frames of an utterance that are used at least, if it has them: frames far apart tell more than neighbours."""
_FEWEST = 4
"""Frames that the unbiased estimate needs."""


@dataclass(frozen=True, eq=False)
class Similarity:
    """The CKA of layers."""

    names: tuple[str, str]
    """The upstream of the rows, and that of the columns."""
    layers: tuple[tuple[str, ...], tuple[str, ...]]
    """The layers of the rows, and of the columns."""
    values: NDArray[np.float64]
    """CKA of each pair: 1 for layers that are the same up to rotation and scale, near 0, perhaps below, for unrelated ones."""
    utterances: int
    """Utterances that were used."""
    frames: int
    """Frames that were used."""


class CkaSum:
    """The sums over batches from which CKA follows.

    Example:
        >>> import numpy as np
        >>> x = np.random.default_rng(0).normal(size=(100, 8))
        >>> total = CkaSum()
        >>> total.add([x], [3 * x[:, ::-1], np.random.default_rng(1).normal(size=(100, 8))])
        >>> total.values().round(1).tolist()
        [[1.0, 0.0]]
    """

    def __init__(self) -> None:
        self._cross: Any = 0.0
        self._own: list[Any] = [0.0, 0.0]

    def add(self, rows: Sequence[NDArray[Any]], columns: Sequence[NDArray[Any]] | None = None) -> None:
        """Adds a batch of at least 4 frames.

        Args:
            rows: `(n, D)` of each layer of the one model.
            columns: `(n, E)` of each layer of the other one; the first one's again if None.
        """
        one = _grams(rows)
        other = one if columns is None else _grams(columns)
        self._cross += one @ other.T
        for place, grams in enumerate((one, other)):
            self._own[place] += np.einsum("ij,ij->i", grams, grams)

    def values(self) -> NDArray[np.float64]:
        """`(L, L)` CKA of each pair; NaN for a layer that is constant."""
        with np.errstate(divide="ignore", invalid="ignore"):
            found: NDArray[np.float64] = self._cross / np.sqrt(np.multiply.outer(*self._own))
        return found


def _grams(layers: Sequence[NDArray[Any]]) -> NDArray[np.float64]:
    """`(L, n * n)`, see `_centred`."""
    found = np.empty((len(layers), len(layers[0]) ** 2))
    for row, states in zip(found, layers, strict=True):
        row[:] = _centred(states)
    return found


def _centred(states: NDArray[Any]) -> NDArray[np.float64]:
    """`(n * n,)` Gram matrix without its diagonal, centred so that sums of products of two are the unbiased HSIC.

    That is the U-centring of Székely and Rizzo 2014, which equals equation 5 of Song et al. 2012 times `n (n - 3)`.
    """
    x = states.astype(np.float64)
    x -= x.mean(0)  # the result is the same, and rounding smaller
    gram = x @ x.T
    np.fill_diagonal(gram, 0.0)
    n = len(gram)
    sums = gram.sum(0)
    gram -= (sums[:, None] + sums) / (n - 2)
    gram += sums.sum() / ((n - 1) * (n - 2))
    np.fill_diagonal(gram, 0.0)
    return gram.ravel()


def similarity(
    a: AnyFrames,
    b: AnyFrames | None = None,
    *,
    batch: int = BATCH,
    seed: int = 0,
    report: Callable[[float, float | None], None] | None = None,
) -> Similarity:
    """The CKA between all layers of `a`, or between those of `a` and of `b` on the utterances that both have.

    Of each utterance some frames are drawn at random; where frame rates differ, frames of the slower model, each with the
    frame of the other one whose middle is nearest. Utterances are in random order, so that a batch has frames of many.
    Memory is that of a batch: `8 * batch^2` bytes for each layer, and its frames.

    Args:
        a: the model of the rows.
        b: the model of the columns; `a` if None.
        batch: frames of a batch.
        seed: of the order and of the frames.
        report: called with the number of utterances that are done, and of all.

    Raises:
        OptionError: no utterance in common, or too few frames.
        AudioError: audio cannot be used.

    Example:
        >>> import soundfile, tempfile
        >>> from pathlib import Path
        >>> from hubcore import hub
        >>> from hubcore.corpus import find_utterances
        >>> from hubcore.testing import speech_like
        >>> from hubcore.tools.frames import ComputedFrames
        >>> folder = Path(tempfile.mkdtemp())
        >>> soundfile.write(folder / "a.wav", speech_like(32000).numpy(), 16000)
        >>> model = ComputedFrames(hub.load("wav2vec2_tiny_prompts"), find_utterances([folder]))
        >>> found = similarity(model)
        >>> found.values.shape, found.frames, found.values.diagonal().round(6).tolist()
        ((5, 5), 99, [1.0, 1.0, 1.0, 1.0, 1.0])
    """
    names = [name for name in a.utterances if b is None or name in b.utterances]
    if not names:
        what = "the two have no utterance in common." if b is not None else "there is no utterance."
        raise OptionError(what, fix="Compare models on the same audio: --corpus names it.")
    draw = np.random.default_rng(seed)
    share = max(_LEAST, math.ceil(batch / len(names)))
    total, frames = CkaSum(), 0
    for part in _batches(_drawn(a, b, [names[index] for index in draw.permutation(len(names))], share, draw, report), batch):
        rows = part[: len(a.layer_names)]
        total.add(rows, part[len(rows) :] if b is not None else None)
        frames += len(rows[0])
    if not frames:
        what = f"{plural(len(names), 'utterance')} gave fewer than {_FEWEST} frames."
        raise OptionError(what, fix="Compare models on more audio.")
    second = a if b is None else b
    return Similarity((a.name, second.name), (a.layer_names, second.layer_names), total.values(), len(names), frames)


def _drawn(
    a: AnyFrames,
    b: AnyFrames | None,
    names: Sequence[str],
    share: int,
    draw: np.random.Generator,
    report: Callable[[float, float | None], None] | None,
) -> Iterator[list[NDArray[Any]]]:
    """For each utterance up to `share` frames of every layer of `a`, then of `b`, line by line the same moments."""
    for done, name in enumerate(names, 1):
        one, other = a.read(name), None if b is None else b.read(name)
        if other is None:
            picked = _some(len(one.times), share, draw)
            yield [state[picked] for state in one.states]
        else:
            slow, fast = (one, other) if len(one.times) <= len(other.times) else (other, one)
            picked = _some(len(slow.times), share, draw)
            near = _nearest(fast.times.mean(1), slow.times.mean(1)[picked])
            first, second = (picked, near) if slow is one else (near, picked)
            yield [state[first] for state in one.states] + [state[second] for state in other.states]
        if report is not None:
            report(done, len(names))


def _some(count: int, share: int, draw: np.random.Generator) -> NDArray[np.intp]:
    return np.sort(draw.permutation(count)[:share])


def _nearest(middles: NDArray[np.float64], moments: NDArray[np.float64]) -> NDArray[np.intp]:
    """The places among the ascending `middles` that are nearest to each moment."""
    return np.searchsorted((middles[:-1] + middles[1:]) / 2, moments)


def _batches(parts: Iterator[list[NDArray[Any]]], size: int) -> Iterator[list[NDArray[Any]]]:
    """The frames of all parts, in batches of `size`; a rest that is too small for an estimate is left out."""
    held: list[list[NDArray[Any]]] = []
    count = 0
    for part in parts:
        held.append(part)
        count += len(part[0])
        while count >= size:
            joined = [np.concatenate(layer) for layer in zip(*held, strict=True)]
            yield [layer[:size] for layer in joined]
            held, count = [[layer[size:] for layer in joined]], count - size
    if count >= _FEWEST:
        yield [np.concatenate(layer) for layer in zip(*held, strict=True)]


def draw_similarity(found: Similarity) -> Any:
    """A `matplotlib.figure.Figure` of the values as a heat map, the first layer at the bottom left.

    Raises:
        HubcoreError: matplotlib is missing or broken.

    Example:
        >>> found = Similarity(("a", "a"), (("in", "out"),) * 2, np.eye(2), 1, 100)
        >>> [text.get_text() for text in draw_similarity(found).axes[0].texts]
        ['1.00', '0.00', '0.00', '1.00']
    """
    height, width = found.values.shape
    figure = load_matplotlib("figure").Figure(
        figsize=(max(4.6, 0.42 * width + 2.6), max(3.6, 0.42 * height + 1.6)), layout="constrained"
    )
    axes = figure.subplots()
    image = axes.imshow(found.values, origin="lower", cmap="magma", vmin=0, vmax=1)
    for row, column in np.ndindex(height, width):
        value = found.values[row, column]
        colour = "#000000" if value > 0.6 else "#ffffff"
        axes.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=7, color=colour)
    axes.set_xticks(range(width), found.layers[1], rotation=45, ha="right", parse_math=False)
    axes.set_yticks(range(height), found.layers[0], parse_math=False)
    axes.set_xlabel(found.names[1], parse_math=False)
    axes.set_ylabel(found.names[0], parse_math=False)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    bar = figure.colorbar(image, ax=axes, shrink=0.8)
    bar.outline.set_linewidth(0.4)
    bar.set_label("linear CKA", fontsize=8)
    axes.set_title(f"{plural(found.frames, 'frame')} of {plural(found.utterances, 'utterance')}", fontsize=8, loc="left")
    return figure
