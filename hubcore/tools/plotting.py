"""Pictures of one recording: its waveform, its log-mel picture, and below them the panels of an upstream.

`look_at` gathers what there is to see and `draw` makes a matplotlib figure of it (`pip install 'hubcore[plot]'`). No display
is needed, and matplotlib's own state is left alone. Shapes: `T` samples, `F` frames, `D` dim.
"""

from __future__ import annotations

import importlib
import math
import os
import sys
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hubcore.audio import load_audio
from hubcore.errors import HubcoreError
from hubcore.extract.batches import check_length
from hubcore.panels import Heatmap, Panel, Spans, Steps
from hubcore.protocol import Upstream, UpstreamOutput
from hubcore.text import printable

Array = NDArray[Any]

_COLUMNS = 2400
"""Twice what fits into the width: finer detail of a waveform or a hidden state cannot be seen."""
_LOWEST_HZ, _HIGHEST_HZ, _MELS = 20.0, 8000.0, 80
RANGE_DB = 70.0
"""Levels that a log-mel picture tells apart, below the loudest."""
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
"""Look of figures, whatever the user's own matplotlib settings."""


@dataclass(frozen=True, eq=False)
class Look:
    """Everything that a picture of one recording shows."""

    title: str
    """File and upstream."""
    note: str
    """Remark that a reader must know about the weights; may be empty."""
    wav: Array
    """`(T,)` waveform."""
    seconds: float
    """Its duration."""
    mel: Array
    """`(F, 80)` level in dB, of a frame each 10 ms; the loudest is 0."""
    panels: tuple[Panel, ...]
    """Panels of the upstream."""


def look_at(
    file: str | os.PathLike[str], upstream: Upstream, *, variants: Sequence[Mapping[str, Any]] = (), name: str = ""
) -> Look:
    """Everything to draw of an audio file and an upstream.

    Args:
        file: any audio file.
        upstream: any upstream; its own `panels` are drawn if it has such a method, see `hubcore.panels`.
        variants: options of calls to compare.
        name: what to call the upstream; as its card does, or its class, if empty.

    Raises:
        AudioError: the file cannot be used.
        OptionError: an impossible option.
    """
    card = upstream.card
    name = name or (card.name if card else type(upstream).__name__)
    fbank = _filterbank()
    wav, wav_at_16k = _load(file, upstream), _load(file, fbank)
    declared = getattr(upstream, "panels", None)
    with torch.inference_mode():
        panels: list[Panel] = [*declared(wav, variants)] if callable(declared) else []
        if not (panels and variants):
            panels += [_last_state(upstream, wav, variant) for variant in variants or ({},)]
    return Look(
        title=f"{printable(Path(file).name)}  |  {name}",
        note=card.note if card and card.note and card.needs_weights else "",
        wav=wav.numpy(),
        seconds=len(wav) / upstream.sample_rate,
        mel=log_mel(wav_at_16k),
        panels=tuple(panels),
    )


def _filterbank() -> Any:
    from hubcore import hub

    return hub.load(
        "hubcore:fbank_no_cmvn", num_mel_bins=_MELS, low_freq_hz=_LOWEST_HZ, high_freq_hz=_HIGHEST_HZ, delta_order=0
    )


def log_mel(wav: torch.Tensor) -> Array:
    """`(F, 80)` level in dB of a waveform `(T,)` at 16 kHz, of a frame each 10 ms; the loudest is 0.

    Example:
        >>> log_mel(torch.sin(torch.arange(16000) / 9)).shape
        (98, 80)
    """
    with torch.inference_mode():
        decibel: Array = _filterbank()([wav]).last_hidden_state[0].double().numpy() * (10 / math.log(10))
    return decibel - decibel.max() if np.ptp(decibel) else np.full_like(decibel, -RANGE_DB)  # pure silence is black


def _last_state(upstream: Any, wav: torch.Tensor, options: Mapping[str, Any]) -> Heatmap:
    out: UpstreamOutput = upstream([wav], layers=[len(upstream.layer_names) - 1], **options)
    told = ", ".join(f"{option} = {value}" for option, value in options.items())
    label = f"{out.layer_names[0]} ({told})" if told else out.layer_names[0]
    return Heatmap(label, out.last_hidden_state[0].float().numpy(), out.frame_times()[0].numpy())


def _load(file: str | os.PathLike[str], upstream: Upstream) -> torch.Tensor:
    wav = load_audio(file, upstream.sample_rate)
    check_length(file, len(wav), sample_rate=upstream.sample_rate, min_samples=upstream.min_samples)
    return wav


def draw(look: Look) -> Any:
    """A `matplotlib.figure.Figure` of `look`: panels one above the other on a common time axis.

    Raises:
        HubcoreError: matplotlib is missing or broken.
    """
    with load_matplotlib("style").context(STYLE, after_reset=True):
        return _figure(look)


def _figure(look: Look) -> Any:
    heights = [1.0, 2.2, *map(_height, look.panels)]
    extra = 1.1 + (0.15 * (1 + len(look.note) // 150) if look.note else 0)
    figure = load_matplotlib("figure").Figure(figsize=(10, sum(heights) + extra), layout="constrained")
    grid = figure.subplots(
        len(heights), 2, squeeze=False, sharex="col", gridspec_kw={"height_ratios": heights, "width_ratios": [1, 0.014]}
    )
    axes, sides = [*grid[:, 0]], [*grid[:, 1]]
    for side in sides:
        side.set_axis_off()
    axes[0].set_title(look.title, loc="left", fontsize=10, color=_INK, parse_math=False)
    _draw_waveform(axes[0], look)
    _draw_mel(axes[1], sides[1], look)
    for panel, axis, side in zip(look.panels, axes[2:], sides[2:], strict=True):
        if isinstance(panel, Steps):
            _draw_steps(axis, side, panel)
        elif isinstance(panel, Spans):
            _draw_spans(axis, side, panel)
        else:
            _draw_heatmap(axis, side, panel, look.seconds)
    axes[-1].set_xlim(0, look.seconds)
    axes[-1].set_xlabel("time (s)")
    figure.align_ylabels(axes)
    if look.note:
        figure.supxlabel(textwrap.fill(look.note, 150), fontsize=7, color="#666666", parse_math=False)
    return figure


def _height(panel: Panel) -> float:
    """Of its axes, in inches."""
    if isinstance(panel, Spans):
        return 0.32 * len(panel.rows) + 0.1
    return 1.1 if isinstance(panel, Steps) else 2.6


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
        vmin=-RANGE_DB,
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


def _draw_steps(axes: Any, side: Any, panel: Steps) -> None:
    filled = axes.stairs(panel.values, panel.edges, fill=True, color=_LIGHT)
    outline = axes.stairs(panel.values, panel.edges, color=_DARK, linewidth=0.9, baseline=None)
    mean = axes.axhline(float(panel.values.mean()), color=_MARK, linewidth=1.1, linestyle=(0, (5, 3)))
    axes.set_ylim(0, 1)
    axes.set_yticks([0, 0.5, 1])
    axes.set_ylabel(panel.label)
    labels = [panel.legend, f"mean {panel.values.mean():.3f}"]
    side.legend([(filled, outline), mean], labels, loc="center left", bbox_to_anchor=(-1, 0.5), frameon=False, fontsize=8)


def _draw_spans(axes: Any, side: Any, panel: Spans) -> None:
    for place, row in enumerate(panel.rows):
        bars = [(start, end - start) for start, end in row.times.tolist()]
        axes.broken_barh(bars, (place - 0.4, 0.8), facecolors=[_DARK, _LIGHT] * (len(bars) // 2 + 1), linewidth=0, snap=False)
        side.text(0, place, row.note, va="center", fontsize=8, color=_INK)
    for each in (axes, side):
        each.set_ylim(len(panel.rows) - 0.5, -0.5)
    axes.set_yticks(range(len(panel.rows)), [row.label for row in panel.rows])
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.set_ylabel(panel.label)


def _draw_heatmap(axes: Any, side: Any, panel: Heatmap, seconds: float) -> None:
    state = panel.values - panel.values.mean(0)
    spread = state.std(0)
    state = state / np.where(spread > 1e-6 * (1 + np.abs(panel.values).max(0)), spread, np.inf)  # a constant is 0
    # Frames may overlap or differ in length: each point in time shows the frame that is nearest to it.
    edges = (panel.times[:-1, 1] + panel.times[1:, 0]) / 2
    centres = (np.arange(_COLUMNS) + 0.5) * seconds / _COLUMNS
    shown = state[np.searchsorted(edges, centres, side="right")]
    shown[centres > panel.times[-1, 1]] = np.nan
    image = axes.imshow(
        shown.T,
        origin="lower",
        aspect="auto",
        cmap="RdBu_r",
        vmin=-2.5,
        vmax=2.5,
        interpolation="nearest",
        extent=(0, seconds, 0, state.shape[1]),
    )
    axes.set_ylabel(f"{panel.label}: dimension", parse_math=False)
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
    if os.environ.get("MPLBACKEND", "").startswith("module://") and "IPython" not in sys.modules:
        del os.environ["MPLBACKEND"]  # a notebook's, which a command started in it inherits, and cannot use
    try:
        return importlib.import_module(f"matplotlib.{module}")
    except (ImportError, ValueError) as error:  # ValueError: a setting it does not know
        missing = isinstance(error, ModuleNotFoundError) and error.name == "matplotlib"
        what = "matplotlib is not installed" if missing else f"matplotlib cannot be imported ({error})"
        fix = "Run pip install 'hubcore[plot]'." if isinstance(error, ImportError) else "Unset MPLBACKEND."
        raise HubcoreError(f"{what}. Pictures are drawn with it.", fix=fix) from error
