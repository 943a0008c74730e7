"""Pictures of one recording: its waveform, its log-mel picture, and below them what an upstream makes of it.

`look_at` gathers what there is to see and `draw` makes a matplotlib figure of it (`pip install 'hubcore[plot]'`). No display
is needed, and matplotlib's own state is left alone. Shapes: `T` samples, `F` frames, `D` dim.
"""

from __future__ import annotations

import importlib
import inspect
import math
import os
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hubcore.audio import load_audio
from hubcore.errors import HubcoreError, OptionError
from hubcore.extract.plan import check_length
from hubcore.protocol import Upstream, UpstreamOutput
from hubcore.text import printable

Array = NDArray[Any]

_COLUMNS = 2400
"""Twice what fits into the width: finer detail of a waveform or a hidden state cannot be seen."""
_LOWEST_HZ, _HIGHEST_HZ, _MELS = 20.0, 8000.0, 80
_RANGE_DB = 70.0
# Okabe and Ito's palette, told apart with any colour vision; the two tones of a band differ in lightness too.
_DARK, _LIGHT, _MARK, _INK = "#0072B2", "#A6CEE9", "#D55E00", "#333333"
STYLE: dict[str, Any] = {
    "figure.dpi": 120,
    "font.size": 9,
    "axes.edgecolor": "#888888",
    "axes.labelcolor": _INK,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.hashsalt": "hubcore",  # the same picture is the same bytes
    "xtick.color": _INK,
    "ytick.color": _INK,
}
"""How figures look, whatever the user's own matplotlib settings."""


@dataclass(frozen=True)
class Segments:
    """The frames of one recording at one lambda."""

    lambd: float
    """The lambda."""
    times: Array
    """`(F, 2)` seconds, the start and end of each frame."""
    mean_period_ms: float
    """Mean frame period in ms."""


@dataclass(frozen=True)
class Look:
    """Everything that a picture of one recording shows."""

    title: str
    """File and upstream."""
    note: str
    """What a reader must know about the weights; empty if nothing."""
    wav: Array
    """`(T,)` waveform."""
    seconds: float
    """Its duration."""
    mel: Array
    """`(F, 80)` level in dB, of a frame each 10 ms; the loudest is 0."""
    alpha: Array | None
    """`(F,)` alpha of each uncompressed frame, for an upstream that predicts one."""
    alpha_period: float
    """Seconds of such a frame."""
    segments: tuple[Segments, ...]
    """One for each lambda asked for."""
    state: Array
    """`(F, D)` the deepest hidden state that was computed; the last, where no lambda was asked for."""
    state_times: Array
    """`(F, 2)` seconds of its frames."""
    state_name: str
    """Its name, and the lambda it was computed at."""


def look_at(file: str | os.PathLike[str], upstream: Upstream, *, lambds: Sequence[float] = (), name: str = "") -> Look:
    """What there is to see of an audio file through an upstream.

    Args:
        file: any audio file.
        upstream: any upstream.
        lambds: lambdas to compare, for an upstream that takes one; without any, the last hidden state is looked at.
        name: what to call the upstream; as its card does, or its class, if empty.

    Raises:
        AudioError: the file cannot be used.
        OptionError: lambdas for an upstream that has none, or an impossible one.
    """
    from hubcore import hub

    card = upstream.card
    name = name or (card.name if card else type(upstream).__name__)
    if lambds and "lambd" not in inspect.signature(upstream.forward).parameters:
        raise OptionError(
            f"lambda was given for {name}, which has none: its frame rate is fixed. A model that compresses, such as "
            "ofa_wav2vec2, has one. Leave lambda out; the last hidden state is drawn instead."
        )
    fbank: Any = hub.load(
        "hubcore:fbank_no_cmvn", num_mel_bins=_MELS, low_freq_hz=_LOWEST_HZ, high_freq_hz=_HIGHEST_HZ, delta_order=0
    )
    wav, wav_at_16k = _load(file, upstream), _load(file, fbank)
    outputs: list[UpstreamOutput] = []
    with torch.inference_mode():
        energies = fbank([wav_at_16k]).last_hidden_state[0]
        model: Any = upstream
        for lambd in lambds:  # the input of the first block is there as soon as the frames are: no block runs
            outputs.append(model([wav], layers=[0], lambd=lambd))
        out = outputs[0] if outputs else upstream([wav], layers=[len(upstream.layer_names) - 1])
    decibel = energies.double().numpy() * (10 / math.log(10))
    alpha, chosen = out.extras.get("alpha"), out.extras.get("lambd")
    period_ms = float(out.extras["mean_frame_period_ms"][0]) * int(out.lengths[0]) if alpha is not None else 0.0
    return Look(
        title=f"{printable(Path(file).name)}  |  {name}",
        note=card.note if card and card.note and card.needs_weights else "",
        wav=wav.numpy(),
        seconds=len(wav) / upstream.sample_rate,
        mel=decibel - decibel.max() if np.ptp(decibel) else np.full_like(decibel, -_RANGE_DB),  # pure silence is black
        alpha=None if alpha is None else alpha[0].double().numpy(),
        alpha_period=0.0 if alpha is None else period_ms / 1000 / alpha.shape[1],
        segments=tuple(
            Segments(lambd, output.frame_times()[0].numpy(), float(output.extras["mean_frame_period_ms"][0]))
            for lambd, output in zip(lambds, outputs, strict=True)
        ),
        state=out.last_hidden_state[0].float().numpy(),
        state_times=out.frame_times()[0].numpy(),
        state_name=out.layer_names[0] + (f" (λ = {float(chosen[0]):g})" if chosen is not None else ""),
    )


def _load(file: str | os.PathLike[str], upstream: Upstream) -> torch.Tensor:
    wav = load_audio(file, upstream.sample_rate)
    check_length(Path(file), len(wav), sample_rate=upstream.sample_rate, min_samples=upstream.min_samples)
    return wav


def draw(look: Look) -> Any:
    """A `matplotlib.figure.Figure` of `look`: panels one above the other on a common time axis.

    Raises:
        HubcoreError: matplotlib is missing or broken.
    """
    with load_matplotlib("style").context(STYLE, after_reset=True):
        return _figure(look)


def _figure(look: Look) -> Any:
    heights = [1.0, 2.2]
    heights += [1.1] if look.alpha is not None else []
    heights += [0.32 * len(look.segments) + 0.1] if look.segments else [2.6]
    extra = 1.1 + (0.15 * (1 + len(look.note) // 150) if look.note else 0)
    figure = load_matplotlib("figure").Figure(figsize=(10, sum(heights) + extra), layout="constrained")
    grid = figure.subplots(
        len(heights), 2, squeeze=False, sharex="col", gridspec_kw={"height_ratios": heights, "width_ratios": [1, 0.014]}
    )
    sides = [*grid[:, 1]]
    for side in sides:
        side.set_axis_off()
    panels = [*grid[:, 0]]
    panels[0].set_title(look.title, loc="left", fontsize=10, color=_INK, parse_math=False)
    _draw_waveform(panels[0], look)
    _draw_mel(panels[1], sides[1], look)
    if look.alpha is not None:
        _draw_alpha(panels[2], sides[2], look.alpha, look.alpha_period)
    if look.segments:
        _draw_segments(panels[-1], sides[-1], look.segments)
    else:
        _draw_state(panels[-1], sides[-1], look)
    panels[-1].set_xlim(0, look.seconds)
    panels[-1].set_xlabel("time (s)")
    figure.align_ylabels(panels)
    if look.note:
        figure.supxlabel(textwrap.fill(look.note, 150), fontsize=7, color="#666666", parse_math=False)
    return figure


def _draw_waveform(axes: Any, look: Look) -> None:
    size = max(1, math.ceil(len(look.wav) / _COLUMNS))
    columns = np.arange(0, len(look.wav), size)
    low, high = np.minimum.reduceat(look.wav, columns), np.maximum.reduceat(look.wav, columns)
    # Each column begins where the one before it ended, or a slow wave would fall apart into dots.
    low[1:], high[1:] = np.minimum(low[1:], look.wav[columns[1:] - 1]), np.maximum(high[1:], look.wav[columns[1:] - 1])
    seconds = (columns + size / 2) * look.seconds / len(look.wav)
    axes.fill_between(seconds, low, high, color=_INK, linewidth=0.4)
    loudest = max(float(np.abs(look.wav).max()), 1e-4)
    axes.set_ylim(-1.08 * loudest, 1.08 * loudest)
    axes.set_ylabel("amplitude\n(full scale 1)")


def _draw_mel(axes: Any, side: Any, look: Look) -> None:
    shift, length = 0.010, 0.025
    left = (length - shift) / 2  # each column is centred where its window is
    image = axes.imshow(
        look.mel.T,
        origin="lower",
        aspect="auto",
        cmap="magma",
        vmin=-_RANGE_DB,
        vmax=0,
        extent=(left, left + shift * len(look.mel), 0, _MELS),
    )
    hertz = [250, 500, 1000, 2000, 4000]
    lowest, highest = _mel(_LOWEST_HZ), _mel(_HIGHEST_HZ)
    axes.set_yticks([(_mel(f) - lowest) / (highest - lowest) * (_MELS + 1) - 0.5 for f in hertz])
    axes.set_yticklabels([f"{f / 1000:g}" for f in hertz])
    axes.set_ylabel("frequency (kHz),\nmel scale")
    _colour_bar(image, side, "level (dB below\nthe loudest)")


def _mel(hertz: float) -> float:
    return 1127 * math.log(1 + hertz / 700)


def _draw_alpha(axes: Any, side: Any, alpha: Array, period: float) -> None:
    edges = np.arange(len(alpha) + 1) * period
    filled = axes.stairs(alpha, edges, fill=True, color=_LIGHT)
    outline = axes.stairs(alpha, edges, color=_DARK, linewidth=0.9, baseline=None)
    mean = axes.axhline(float(alpha.mean()), color=_MARK, linewidth=1.1, linestyle=(0, (5, 3)))
    axes.set_ylim(0, 1)
    axes.set_yticks([0, 0.5, 1])
    axes.set_ylabel("alpha (outputs\na frame)")
    labels = [f"alpha, each {1000 * period:g} ms", f"mean {alpha.mean():.3f}"]
    side.legend([(filled, outline), mean], labels, loc="center left", bbox_to_anchor=(-1, 0.5), frameon=False, fontsize=8)


def _draw_segments(axes: Any, side: Any, segments: Sequence[Segments]) -> None:
    for row, found in enumerate(segments):
        bars = [(start, end - start) for start, end in found.times.tolist()]
        axes.broken_barh(bars, (row - 0.4, 0.8), facecolors=[_DARK, _LIGHT] * (len(bars) // 2 + 1), linewidth=0, snap=False)
        frames = f"T' = {len(found.times)}, mean {found.mean_period_ms:.1f} ms"
        side.text(0, row, frames, va="center", fontsize=8, color=_INK)
    for each in (axes, side):
        each.set_ylim(len(segments) - 0.5, -0.5)
    axes.set_yticks(range(len(segments)), [f"λ = {found.lambd:g}" for found in segments])
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.set_ylabel("frames")


def _draw_state(axes: Any, side: Any, look: Look) -> None:
    state = look.state - look.state.mean(0)
    spread = state.std(0)
    state = state / np.where(spread > 1e-6 * (1 + np.abs(look.state).max(0)), spread, np.inf)  # what stands still is 0
    # Frames may overlap or differ in length: each point in time shows the frame that is nearest to it.
    edges = (look.state_times[:-1, 1] + look.state_times[1:, 0]) / 2
    centres = (np.arange(_COLUMNS) + 0.5) * look.seconds / _COLUMNS
    shown = state[np.searchsorted(edges, centres, side="right")]
    shown[centres > look.state_times[-1, 1]] = np.nan
    image = axes.imshow(
        shown.T,
        origin="lower",
        aspect="auto",
        cmap="RdBu_r",
        vmin=-2.5,
        vmax=2.5,
        interpolation="nearest",
        extent=(0, look.seconds, 0, state.shape[1]),
    )
    axes.set_ylabel(f"{look.state_name}: dimension", parse_math=False)
    _colour_bar(image, side, "standard deviations\nfrom its own mean")


def _colour_bar(image: Any, side: Any, label: str) -> None:
    side.set_axis_on()
    bar = side.figure.colorbar(image, cax=side)
    bar.outline.set_linewidth(0.4)
    bar.set_label(label, fontsize=8)
    bar.ax.tick_params(labelsize=8)


def load_matplotlib(module: str) -> Any:
    """A module of matplotlib; never `pyplot`, which would look for a display.

    Raises:
        HubcoreError: it is missing or broken.
    """
    try:
        return importlib.import_module(f"matplotlib.{module}")
    except ImportError as error:
        missing = isinstance(error, ModuleNotFoundError) and error.name == "matplotlib"
        what = "matplotlib is not installed" if missing else f"matplotlib cannot be imported ({error})"
        raise HubcoreError(
            f"{what}. Pictures are drawn with it, nothing else needs it. Run pip install 'hubcore[plot]'."
        ) from error
