"""`collect_view`: what a page shows of each utterance, from an upstream and audio, or from a folder of features.

Shapes: `L` layers, `F` frames, `N` columns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hubcore.errors import AudioError, OptionError
from hubcore.panels import Heatmap, Panel, Row, Spans, Steps
from hubcore.text import plural, printable
from hubcore.tools.frames import AnyFrames, Frames
from hubcore.tools.plotting import RANGE_DB, log_mel
from hubcore.units import Units
from hubcore.view.small import edges_of, outline, packed, pooled, quantised, similarities, sound

_RATE = 16000
"""Samples per second of the audio on a page, and of its log-mel picture."""
_MATRIX = 128
"""Frames on one side of a similarity matrix, at most."""
_MATRICES = 100_000
"""Numbers in the matrices of all layers of an utterance, at most; half of them are kept."""
_SECONDS_OFF = 0.1
"""Difference of the audio's length and the manifest's that is rounding."""

UnitsOf = Callable[[str, Frames], Units | None]
"""Gives the units of an utterance, whose name and frames it is called with; None if it has none."""


@dataclass(frozen=True)
class Shown:
    """An utterance, as the page's script reads it."""

    name: str
    """Its name."""
    seconds: float
    """Its duration."""
    audio: tuple[str, str]
    """Type of media, and base64."""
    index: list[tuple[str, str, list[int]]]
    """Name, type and shape of each array in `data`."""
    data: str
    """The arrays, see `hubcore.view.small.packed`."""
    frames: int
    """The number of frames of its layers."""
    norms: list[tuple[float, float]]
    """For each layer the norm that is 0 on the page, and the one that is 255."""
    units: list[dict[str, Any]]
    """Label of each strip of units."""
    panels: list[dict[str, Any]]
    """Kind, label and rows of each panel of the upstream."""


@dataclass(frozen=True)
class View:
    """Everything that a page shows."""

    source: str
    """The folder or the audio, as it was given."""
    upstream: str
    """The name of the upstream."""
    note: str
    """Remark that a reader must know about the weights; may be empty."""
    options: str
    """Options that the layers were computed with; may be empty."""
    layers: tuple[str, ...]
    """The names of the layers."""
    utterances: tuple[Shown, ...]
    """The utterances, in the order of the page."""


def collect_view(
    frames: AnyFrames,
    names: Sequence[str],
    *,
    source: str = "",
    units: Mapping[str, UnitsOf] | None = None,
    variants: Sequence[Mapping[str, Any]] | None = None,
    report: Callable[[float, float | None], None] | None = None,
) -> View:
    """Gathers what a page shows of these utterances.

    Args:
        frames: where layers come from.
        names: utterances of it.
        source: what to call it on the page.
        units: for each label of a strip what gives its units.
        variants: options of calls, whose panels a slider goes through; those that the upstream declares if None.
        report: called with the number of utterances that are done, and of all.

    Raises:
        AudioError: audio cannot be used, or is not what the features were made from.
        OptionError: an impossible option, or units of other frames.

    Example:
        >>> import soundfile, tempfile
        >>> from pathlib import Path
        >>> from hubcore import hub
        >>> from hubcore.corpus import File, Utterance
        >>> from hubcore.tools.frames import ComputedFrames
        >>> path = Path(tempfile.mkdtemp()) / "a.wav"
        >>> soundfile.write(path, np.sin(np.arange(16000) / 9), 16000)
        >>> view = collect_view(ComputedFrames(hub.load("fbank"), [Utterance("a", File(str(path)))]), ["a"])
        >>> view.layers, view.utterances[0].frames, view.utterances[0].seconds
        (('features',), 98, 1.0)
    """
    if variants is None:
        variants = getattr(frames.upstream, "panel_variants", ())
    shown = []
    for done, name in enumerate(names, 1):
        shown.append(_shown(frames, name, units or {}, variants))
        if report is not None:
            report(done, len(names))
    return View(source, frames.name, frames.note, _options(frames), frames.layer_names, tuple(shown))


def _options(frames: AnyFrames) -> str:
    values = {**getattr(frames.upstream, "options", {}), **frames.options}
    return ", ".join(f"{name} = {value}" for name, value in values.items() if value is not None and name != "layers")


def _shown(frames: AnyFrames, name: str, units: Mapping[str, UnitsOf], variants: Sequence[Mapping[str, Any]]) -> Shown:
    read = frames.read(name)
    utterance = frames.utterances[name]
    wav = utterance.read(_RATE)
    seconds = len(wav) / _RATE
    stored = frames.seconds(name)
    if stored is not None and abs(stored - seconds) > _SECONDS_OFF:
        what = f"{printable(utterance.source.given)} has {seconds:.2f} s; its features were made from {stored:.2f} s."
        raise AudioError(what, fix="Extract again, or name the audio with --corpus.")
    arrays: dict[str, NDArray[Any]] = {"outline": outline(wav.numpy())}
    _add_mel(arrays, wav)
    edges = edges_of(read.times)
    norms = _add_layers(arrays, read, edges)
    strips: list[dict[str, Any]] = []
    for label, units_of in units.items():
        found = units_of(name, read)
        if found is not None and len(found.units):
            arrays[f"units_{len(strips)}"], arrays[f"unit_edges_{len(strips)}"] = _runs(name, found, edges)
            strips.append({"label": label})
    options = {**getattr(frames.upstream, "options", {}), **frames.options}
    panels = [
        _panel(arrays, place, panel, options, variants) for place, panel in enumerate(_declared(frames, name, variants, read))
    ]
    index, data = packed(arrays)
    return Shown(name, seconds, sound(wav.numpy(), _RATE), index, data, len(read.times), norms, strips, panels)


def _add_mel(arrays: dict[str, NDArray[Any]], wav: torch.Tensor) -> None:
    """Adds levels `(N, 80)` of frames of 10 ms, each in the middle of its window of 25 ms."""
    levels = log_mel(wav)
    columns, arrays["mel_edges"] = _float32(pooled(levels, 0.0075 + 0.01 * np.arange(len(levels) + 1)))
    arrays["mel"] = quantised(columns, -RANGE_DB, 0) & 0xFC  # steps of 1 dB, which take half the space


def _add_layers(arrays: dict[str, NDArray[Any]], read: Frames, edges: NDArray[Any]) -> list[tuple[float, float]]:
    """Adds norms `(L, N)`, and of each similarity matrix the half below its diagonal; the range of the norms of each layer."""
    ranges, norms, matrices = [], [], []
    side = min(_MATRIX, int((_MATRICES / len(read.states)) ** 0.5))
    for state in read.states:
        found, arrays["edges"] = _float32(pooled(np.linalg.norm(state.astype(np.float64), axis=1), edges))
        finite = found[np.isfinite(found)]
        low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 0.0)
        ranges.append((low, high))
        norms.append(quantised(found, low, high))
        matrix, arrays["matrix_edges"] = _float32(similarities(state, edges, side))
        matrices.append(quantised(matrix[np.tril_indices(len(matrix))], -1, 1))
    arrays["norms"], arrays["matrices"] = np.stack(norms), np.stack(matrices)
    return ranges


def _float32(pair: tuple[NDArray[Any], NDArray[Any]]) -> tuple[NDArray[Any], NDArray[np.float32]]:
    return pair[0], pair[1].astype(np.float32)


def _runs(name: str, found: Units, edges: NDArray[Any]) -> tuple[NDArray[np.uint16], NDArray[np.float32]]:
    """Runs of equal units, and their edges; without times of their own, units are of the frames of the page."""
    if found.times is not None:
        edges = edges_of(found.times)
    else:
        frames = len(found.units) if found.durations is None else int(found.durations.sum())
        if frames != len(edges) - 1:
            what = f"{printable(name)} has units of {plural(frames, 'frame')} and layers of {len(edges) - 1}."
            raise OptionError(what, fix="Show the layers that they were made from, or units with times (.npz, .parquet).")
        if found.durations is not None:
            edges = edges[np.concatenate([[0], np.cumsum(found.durations)])]
    starts = np.flatnonzero(np.diff(found.units, prepend=-1))
    return found.units[starts].astype(np.uint16), edges[[*starts, len(found.units)]].astype(np.float32)


def _declared(frames: AnyFrames, name: str, variants: Sequence[Mapping[str, Any]], read: Frames) -> list[Panel]:
    """The panels of the upstream; where none is loaded, frames that have no constant rate."""
    declared = getattr(frames.upstream, "panels", None)
    if frames.upstream is not None and callable(declared):
        with torch.inference_mode():
            return [*declared(frames.waveform(name), variants)]
    if frames.upstream is None and np.ptp(read.times[:, 1] - read.times[:, 0]) > 1e-6 * len(read.times):
        return [Spans("frames", (Row("as stored", read.times, f"{len(read.times)} frames"),))]
    return []


def _panel(
    arrays: dict[str, NDArray[Any]],
    place: int,
    panel: Panel,
    options: Mapping[str, Any],
    variants: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """Adds the arrays of a panel; the rest of it."""
    key, label = f"panel_{place}", " ".join(panel.label.split())
    if isinstance(panel, Steps):
        values, edges = pooled(panel.values, panel.edges)
        arrays[key], arrays[f"{key}_edges"] = quantised(values, 0, 1), edges.astype(np.float32)
        return {"kind": "steps", "label": label, "legend": panel.legend, "mean": float(np.nan_to_num(panel.values.mean()))}
    if isinstance(panel, Heatmap):
        values, edges = pooled(panel.values, edges_of(panel.times))
        spread = values.std(0)
        state = (values - values.mean(0)) / np.where(spread > 0, spread, np.inf)
        arrays[key], arrays[f"{key}_edges"] = quantised(state, -2.5, 2.5), edges.astype(np.float32)
        return {"kind": "heatmap", "label": label}
    counts = [len(row.times) for row in panel.rows]
    arrays[key] = np.concatenate([edges_of(row.times) for row in panel.rows]).astype(np.float32)
    first = next((i for i, variant in enumerate(variants) if variant.items() <= options.items()), len(counts) // 2)
    rows = [{"label": row.label, "note": row.note, "frames": count} for row, count in zip(panel.rows, counts, strict=True)]
    return {"kind": "spans", "label": label, "rows": rows, "first": min(first, len(rows) - 1)}
