"""`extract`, a bulk extraction in this process, and `run_batch`, the step that any engine repeats.

Shapes: `B` batch, `T` samples, `L` layers, `F` frames, `D` dim.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import hubcore
from hubcore.audio import load_audio
from hubcore.checkpoints.sources import file_sha256
from hubcore.errors import AudioError, ExtractionError, OptionError
from hubcore.extract.manifest import Manifest, Settings, exclusive
from hubcore.extract.plan import (
    Failure,
    Plan,
    Utterance,
    check_length,
    choose_layers,
    make_plan,
    name_utterances,
    source_of,
)
from hubcore.extract.writers import FeatureWriter, NpyWriter
from hubcore.protocol import Upstream, UpstreamOutput
from hubcore.text import printable

DTYPES = ("float32", "float16")
"""The types features can be stored in."""


@dataclass(frozen=True)
class BatchResult:
    """What became of one batch: a manifest row for each utterance that was written, a failure for each other one."""

    rows: tuple[dict[str, Any], ...]
    failures: tuple[Failure, ...]


@dataclass(frozen=True)
class Progress:
    """How far a run is; given to `report` before the first batch and after each."""

    done: int
    """Utterances written or failed."""
    total: int
    """Utterances of this run."""
    seconds_done: float
    """Seconds of audio dealt with."""
    seconds_total: float
    """Seconds of audio of this run."""
    failed: int
    """Utterances that failed."""
    bytes_expected: int | None
    """About how much the run writes; None where the frame rate depends on the input."""


@dataclass(frozen=True)
class Summary:
    """What a run did."""

    folder: Path
    """The output folder."""
    rows: tuple[dict[str, Any], ...]
    """The manifest rows of this run, longest utterance first."""
    skipped: int
    """Utterances that an earlier run had finished."""
    failures: tuple[Failure, ...]
    """Utterances that could not be computed."""
    wall_seconds: float
    """How long it took."""
    speeds: dict[str, float]
    """For each utterance of this run, seconds of audio per second of the batch it was computed in."""

    @property
    def audio_seconds(self) -> float:
        """The duration of the audio that was computed."""
        return float(sum(row["seconds"] for row in self.rows))

    @property
    def speed(self) -> float:
        """Seconds of audio per second."""
        return self.audio_seconds / self.wall_seconds if self.wall_seconds > 0 else 0.0


def extract(
    paths: Iterable[str | os.PathLike[str]],
    upstream: Upstream,
    out_dir: str | os.PathLike[str],
    *,
    layers: str | int | Sequence[int] = "all",
    dtype: str = "float32",
    batch_seconds: float = 60.0,
    device: str | torch.device | None = None,
    name: str | None = None,
    report: Callable[[Progress], None] | None = None,
) -> Summary:
    """Computes the features of audio files and writes them below `out_dir`, with `manifest.jsonl`.

    An utterance whose row is in the manifest is done: calling this again after an interruption computes the rest. An
    utterance that cannot be computed is listed in `failures.jsonl` and in the summary, and harms no other; a batch that
    fails is computed again one by one.

    Args:
        paths: audio files, and folders of them.
        upstream: in eval mode, on the device that is to compute.
        out_dir: created if need be.
        layers: see `choose_layers`; one layer is written as `(F, D)`, several and `"all"` as `(L, F, D)`.
        dtype: `float32`, or `float16` at half the size.
        batch_seconds: at most so much audio is computed at once, or one longer utterance.
        device: where the waveforms go, which must be where the weights are; there if None.
        name: recorded in the manifest as the upstream's; its card's name, or its class's, if None.
        report: called before the first batch and after each one.

    Raises:
        AudioError: a path does not exist, or a folder holds no audio file.
        OptionError: a layer, a type or a batch size is impossible.
        ExtractionError: `out_dir` has features made otherwise, cannot be written, or is in use; two files share a name;
            the layers differ in width.

    Example:
        >>> import soundfile, tempfile
        >>> from hubcore import hub
        >>> folder = Path(tempfile.mkdtemp())
        >>> soundfile.write(folder / "a.wav", np.sin(np.arange(16000) / 9), 16000)
        >>> summary = extract([folder], hub.load("fbank"), folder / "out", layers="last")
        >>> [(row["utterance"], row["shape"]) for row in summary.rows]
        [('a', [98, 240])]
    """
    began = time.perf_counter()
    settings = _settings(upstream, layers, dtype, name)
    if not batch_seconds > 0:
        raise OptionError(f"batch_seconds is {batch_seconds}. It must be above 0. 60 suits a base model on a laptop.")
    named = name_utterances(paths)
    folder = Path(out_dir)
    with exclusive(folder):
        manifest = Manifest(folder)
        writer = NpyWriter(folder)
        try:
            todo = _unfinished(named, manifest, settings, writer)
            plan = make_plan(
                todo,
                sample_rate=upstream.sample_rate,
                min_samples=upstream.min_samples,
                batch_seconds=batch_seconds,
            )
            manifest.append_failures(plan.failures)
            target = _device(upstream) if device is None else torch.device(device)
            rows, failures, speeds = _run_plan(plan, upstream, settings, writer, manifest, target, report)
        finally:
            writer.close()
    wall = time.perf_counter() - began
    return Summary(folder, tuple(rows), len(named) - len(todo), tuple(failures), wall, speeds)


def _run_plan(
    plan: Plan,
    upstream: Upstream,
    settings: Settings,
    writer: FeatureWriter,
    manifest: Manifest,
    device: torch.device,
    report: Callable[[Progress], None] | None,
) -> tuple[list[dict[str, Any]], list[Failure], dict[str, float]]:
    rows: list[dict[str, Any]] = []
    speeds: dict[str, float] = {}
    failures = list(plan.failures)
    total, expected = plan.utterances + len(plan.failures), expected_bytes(plan, upstream, settings)
    done, seconds = len(plan.failures), 0.0
    for batch in ((), *plan.batches):
        began = time.perf_counter()
        result = run_batch(batch, upstream, settings, writer, device)
        speed = sum(row["seconds"] for row in result.rows) / max(time.perf_counter() - began, 1e-9)
        speeds.update((row["utterance"], speed) for row in result.rows)
        manifest.append_failures(result.failures)
        if result.rows:
            manifest.append(result.rows)
        rows += result.rows
        failures += result.failures
        done += len(batch)
        seconds += sum(item.seconds for item in batch)
        if report:
            report(Progress(done, total, seconds, plan.seconds, len(failures), expected))
    return rows, failures, speeds


def run_batch(
    batch: Sequence[Utterance], upstream: Upstream, settings: Settings, writer: FeatureWriter, device: torch.device
) -> BatchResult:
    """Decodes, computes and writes one batch. It may be repeated: the same batch gives the same files and rows.

    Raises:
        ExtractionError: the file system refuses; nothing else stops a batch.
    """
    items: list[tuple[Utterance, Tensor]] = []
    failures: list[Failure] = []
    for item in batch:
        try:
            wav = load_audio(item.path, upstream.sample_rate)
            check_length(item.path, len(wav), sample_rate=upstream.sample_rate, min_samples=upstream.min_samples)
        except AudioError as error:
            failures.append(Failure(item.name, source_of(item.path), str(error)))
        else:
            items.append((item, wav))
    rows, failed = _compute(items, upstream, settings, writer, device)
    return BatchResult(tuple(rows), tuple(failures + failed))


def _compute(
    items: Sequence[tuple[Utterance, Tensor]],
    upstream: Upstream,
    settings: Settings,
    writer: FeatureWriter,
    device: torch.device,
) -> tuple[list[dict[str, Any]], list[Failure]]:
    """Rows and failures of decoded utterances, computed together or, where that fails, one by one."""
    if not items:
        return [], []
    rows = []
    try:
        with torch.inference_mode():
            output = upstream([wav.to(device) for _, wav in items], layers=list(settings.layers))
            features = [_features(output, index, settings) for index in range(len(items))]
        for index, ((item, wav), array) in enumerate(zip(items, features, strict=True)):
            row = _row(item, len(wav), array, writer.write(item.name, array), upstream, settings)
            rows.append({**row, **_variable(output, index)} if upstream.frame_stride is None else row)
    except ExtractionError:
        raise
    except Exception as error:  # any failure of any model must cost one utterance and not the run
        if len(items) == 1:
            item = items[0][0]
            what = str(error) if isinstance(error, hubcore.HubcoreError) else f"{type(error).__name__}: {error}"
            return [], [Failure(item.name, source_of(item.path), f"{printable(item.path)}: {what}")]
    else:
        return rows, []
    rows, failures = [], []
    for single in items:
        more, failed = _compute([single], upstream, settings, writer, device)
        rows += more
        failures += failed
    return rows, failures


def _features(output: UpstreamOutput, index: int, settings: Settings) -> NDArray[Any]:
    """`(F, D)` or `(L, F, D)` of one utterance of a batch, in the type asked for."""
    frames = int(output.lengths[index])
    if frames < 1:
        raise AudioError("it gives no frame. Features of nothing cannot be written. Leave the file out.")
    states = [state[index, :frames] for state in output.hidden_states]  # L of (F, D)
    array = (torch.stack(states) if settings.stacked else states[0]).float().cpu().numpy()
    if not np.isfinite(array).all():
        raise AudioError("its features are not finite. Nothing was written. Check the audio and the checkpoint.")
    limit = float(np.finfo(settings.dtype).max)
    if float(np.abs(array).max()) > limit:
        raise AudioError(
            f"its features reach {float(np.abs(array).max()):g}, beyond the {limit:g} of {settings.dtype}. Nothing was "
            "written. Use float32."
        )
    return array.astype(settings.dtype)


def _row(
    item: Utterance, samples: int, array: NDArray[Any], file: str, upstream: Upstream, settings: Settings
) -> dict[str, Any]:
    return {
        "utterance": item.name,
        "source": source_of(item.path),
        "seconds": round(samples / upstream.sample_rate, 6),
        "frames": array.shape[-2],
        "layers": list(settings.layers),
        "shape": list(array.shape),
        "dtype": settings.dtype,
        "file": file,
        "upstream": settings.upstream,
        "checkpoint_sha256": settings.checkpoint_sha256,
        "hubcore_version": hubcore.__version__,
        "frame_stride": upstream.frame_stride,
        "sample_rate": upstream.sample_rate,
        "options": dict(settings.options),
    }


def _variable(output: UpstreamOutput, index: int) -> dict[str, Any]:
    """What a row says of one utterance whose frame rate is its own: its frames' times, and its single numbers."""
    times = output.frame_times()[index, : int(output.lengths[index])]
    numbers = {
        name: round(float(value[index]), 6)
        for name, value in output.extras.items()
        if isinstance(value, Tensor) and value.shape == output.lengths.shape and value.is_floating_point()
    }
    return {**numbers, "frame_times": [[round(start, 5), round(end, 5)] for start, end in times.tolist()]}


def _settings(upstream: Upstream, layers: str | int | Sequence[int], dtype: str, name: str | None) -> Settings:
    if dtype not in DTYPES:
        raise OptionError(f"dtype is {dtype!r}. Features are stored as {' or '.join(DTYPES)}. Choose one of these.")
    if isinstance(upstream, nn.Module) and upstream.training:
        raise ExtractionError(
            "the upstream is in train mode. Its dropout would make every run's features different. Call upstream.eval() first."
        )
    choice = choose_layers(layers, upstream.layer_names)
    widths = [upstream.hidden_sizes[index] for index in choice.indices]
    if len(set(widths)) > 1:
        raise ExtractionError(
            f"the layers {','.join(map(str, choice.indices))} have the widths {', '.join(map(str, widths))}. Layers of "
            "different width do not fit into one array. Extract them one by one, each into its own folder: layers=0, "
            "..."
        )
    if name is None:
        name = upstream.card.name if upstream.card else type(upstream).__name__
    options = dict(getattr(upstream, "options", {}))
    return Settings(name, _checkpoint_sha256(upstream), choice.indices, choice.stacked, dtype, options)


def _checkpoint_sha256(upstream: Upstream) -> str | None:
    report = getattr(upstream, "load_report", None)
    if report is None:
        return None
    if report.sha256:
        return str(report.sha256)
    try:
        source = Path(report.source)
        return file_sha256(source) if source.is_file() else None
    except (OSError, ValueError, TypeError):
        return None


def _unfinished(named: dict[str, Path], manifest: Manifest, settings: Settings, writer: FeatureWriter) -> dict[str, Path]:
    """The utterances still to be computed; also brings the manifest in line with the files that are there."""
    rows = manifest.read()
    for row in rows.values():
        differences = settings.differences(row)
        if differences:
            raise ExtractionError(
                f"{printable(manifest.path.parent)} holds features made otherwise: {'; '.join(differences)}. One "
                "folder holds one kind of feature. Extract into another folder."
            )
    for name, path in named.items():
        if name in rows and rows[name]["source"] != source_of(path):
            raise ExtractionError(
                f"the utterance {printable(name)!r} of {printable(manifest.path)} was made from "
                f"{printable(rows[name]['source'])}, but now means {printable(path)}. A name must mean one file. "
                "Extract into another folder."
            )
    kept = {name: row for name, row in rows.items() if writer.holds(row["file"], tuple(row["shape"]), row["dtype"])}
    if len(kept) < len(rows):
        manifest.replace(kept.values())
    manifest.forget_failures()
    return {name: path for name, path in named.items() if name not in kept}


def expected_bytes(plan: Plan, upstream: Upstream, settings: Settings) -> int | None:
    """About how much a plan writes, from the frame rate; None where that depends on the input."""
    if upstream.frame_stride is None:
        return None
    frames = sum((item.samples - upstream.min_samples) // upstream.frame_stride + 1 for batch in plan.batches for item in batch)
    width = sum(upstream.hidden_sizes[index] for index in settings.layers)
    return frames * width * np.dtype(settings.dtype).itemsize + 128 * plan.utterances


def _device(upstream: Upstream) -> torch.device:
    if isinstance(upstream, nn.Module):
        for tensor in (*upstream.parameters(), *upstream.buffers()):
            return tensor.device
    return torch.device("cpu")
