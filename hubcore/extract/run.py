"""`extract`, a bulk extraction in this process, and `run_batch`, the step that any engine repeats.

Shapes: `B` batch, `T` samples, `L` layers, `F` frames, `D` dim.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, SupportsIndex

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hubcore.corpus.find import find_utterances
from hubcore.corpus.utterance import NO_STAMP, Utterance
from hubcore.errors import AudioError, ExtractionError, HubcoreError, OptionError, PluginError
from hubcore.extract.batches import Batches, Failure, Measured, check_length, failure_of, make_batches
from hubcore.extract.finished import ROW_KEYS, Finished, exclusive
from hubcore.extract.settings import Settings, settings_for
from hubcore.extract.writers import FeatureWriter, find_writer, open_writer
from hubcore.files import output_folder
from hubcore.guests import as_guest
from hubcore.protocol import Upstream, UpstreamOutput
from hubcore.text import error_text, format_bytes, format_duration, logger, plural, printable
from hubcore.version import VERSION

_log = logger("extract")


@dataclass(frozen=True)
class BatchResult:
    """Result of one batch: a manifest row for each utterance that was written, a failure for each other one."""

    rows: tuple[dict[str, Any], ...]
    failures: tuple[Failure, ...]
    stopped: ExtractionError | None = None
    """Why the rest of the batch was not tried, if no later one could be written either: to be raised once the rows are kept."""


class _Decoded(NamedTuple):
    """An utterance with its samples, and what its file was just before it was read."""

    item: Measured
    wav: Tensor
    source_bytes: int
    source_mtime_ns: int


Report = Callable[[int, int, str], None]
"""Called with how many utterances are done, of how many, and how many failed, in words."""


@dataclass(frozen=True)
class Summary:
    """Result of a run."""

    folder: Path
    """The output folder."""
    rows: tuple[dict[str, Any], ...]
    """The manifest rows of this run, in the order of the paths given, and by name inside a folder."""
    skipped: int
    """Utterances that an earlier run had finished."""
    failures: tuple[Failure, ...]
    """Utterances that could not be computed."""
    wall_seconds: float
    """Seconds that it took."""
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
    layers: str | SupportsIndex | Sequence[str | SupportsIndex] | None = None,
    dtype: str = "float32",
    batch_seconds: float = 60.0,
    device: str | torch.device | None = None,
    name: str | None = None,
    format: str = "npy",
    call_options: Mapping[str, Any] = MappingProxyType({}),
    report: Report | None = None,
    force_unlock: bool = False,
) -> Summary:
    """Computes the features of audio files and writes them below `out_dir`, with `manifest.jsonl`.

    An utterance whose row is in the manifest is done: calling this again after an interruption computes the rest. An
    utterance that cannot be computed is listed in `failures.jsonl` and in the summary, and harms no other; a batch that
    fails is computed again one by one.

    Args:
        paths: audio files, folders of them, and lists that `hubcore manifest` wrote (`.tsv`).
        upstream: in eval mode, on the device that is to compute.
        out_dir: created if need be.
        layers: see `choose_layers`; one layer is written as `(F, D)`, several and `"all"` as `(L, F, D)`. If None, the
            upstream's `default_layers`, else all.
        dtype: `float32`, or `float16` at half the size.
        batch_seconds: at most so much audio is computed at once, or one longer utterance.
        device: where the waveforms go, which must be where the weights are; there if None.
        name: recorded in the manifest as the upstream's; its card's name, or its class's, if None.
        format: `npy`, or one that a plugin brings; see `FeatureWriter`.
        call_options: keywords of each call of the upstream.
        report: called before the first batch and after each one; see `Report`.
        force_unlock: take no notice of the lock file of another run.

    Raises:
        AudioError: a path does not exist or cannot be reached; a folder holds no audio file or cannot be listed.
        OptionError: a layer, a type, a format or a batch size is impossible.
        PluginError: the format's writer is broken.
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
    if layers is None:
        layers = getattr(upstream, "default_layers", None) or "all"
    settings = settings_for(upstream, layers, dtype, name, format, call_options)
    make_writer = find_writer(format)
    if not batch_seconds > 0:
        raise OptionError(f"batch_seconds is {batch_seconds}. It must be above 0.", fix="60 suits a base model on a laptop.")
    named = {utterance.name: utterance for utterance in find_utterances(paths)}
    folder = output_folder(out_dir)
    with exclusive(folder, force=force_unlock):
        finished = Finished(folder)
        writer = open_writer(make_writer, folder, format)
        try:
            todo = _unfinished(named, finished, settings, writer)
            batches = make_batches(
                todo.values(), sample_rate=upstream.sample_rate, min_samples=upstream.min_samples, batch_seconds=batch_seconds
            )
            finished.append_failures(batches.failures)
            size = expected_bytes(batches, upstream, settings)
            about = "" if size is None else f", about {format_bytes(size)} to write"
            _log.info("%s, %s%s", plural(len(todo), "utterance"), format_duration(batches.seconds), about)
            target = device_of(upstream) if device is None else torch.device(device)
            rows, failures, speeds = _run_batches(batches, upstream, settings, writer, finished, target, report)
            rows = in_order(rows, named)
            if rows:
                finished.replace(in_order(finished.read().values(), named))
        finally:
            with as_guest(lambda error: _writer_fault(writer, "close", error)):
                writer.close()
    wall = time.perf_counter() - began
    return Summary(folder, tuple(rows), len(named) - len(todo), tuple(failures), wall, speeds)


def in_order(rows: Iterable[dict[str, Any]], named: Iterable[str]) -> list[dict[str, Any]]:
    """Manifest rows in the order of utterance names; rows of others, from earlier runs, come last.

    Example:
        >>> [row["utterance"] for row in in_order([{"utterance": "c"}, {"utterance": "b"}, {"utterance": "a"}], ["a", "b"])]
        ['a', 'b', 'c']
    """
    place = {name: number for number, name in enumerate(named)}
    return sorted(rows, key=lambda row: place.get(row["utterance"], len(place)))


def _run_batches(
    batches: Batches,
    upstream: Upstream,
    settings: Settings,
    writer: FeatureWriter,
    finished: Finished,
    device: torch.device,
    report: Report | None,
) -> tuple[list[dict[str, Any]], list[Failure], dict[str, float]]:
    """The rows, the failures, and the speed at which each utterance was computed."""
    rows: list[dict[str, Any]] = []
    speeds: dict[str, float] = {}
    failures = list(batches.failures)
    total = len(failures) + len(batches.utterances)

    def tell() -> None:
        if report:
            report(len(rows) + len(failures), total, f"{len(failures)} failed")

    tell()
    for batch in batches.batches:
        began = time.perf_counter()
        result = run_batch(batch, upstream, settings, writer, device)
        speed = sum(row["seconds"] for row in result.rows) / max(time.perf_counter() - began, 1e-9)
        speeds.update((row["utterance"], speed) for row in result.rows)
        finished.append_failures(result.failures)
        if result.rows:
            finished.append(result.rows)
        if result.stopped:
            raise result.stopped
        rows += result.rows
        failures += result.failures
        tell()
    return rows, failures, speeds


def run_batch(
    batch: Sequence[Measured], upstream: Upstream, settings: Settings, writer: FeatureWriter, device: torch.device
) -> BatchResult:
    """Decodes, computes and writes one batch. It may be repeated: the same batch gives the same files and rows.

    Nothing raises. What costs one utterance is a failure of that one; a file system that takes nothing more is `stopped`.
    """
    items: list[_Decoded] = []
    failures: list[Failure] = []
    for item in batch:
        # Taken before the samples are: a file replaced in between looks changed to the next run, and is done again.
        source = item.utterance.source
        before = source.stamp()
        try:
            wav = item.utterance.read(upstream.sample_rate)
            check_length(source.given, len(wav), sample_rate=upstream.sample_rate, min_samples=upstream.min_samples)
        except AudioError as error:
            failures.append(failure_of(item.utterance, error))
        else:
            items.append(_Decoded(item, wav, *before))
    rows: list[dict[str, Any]] = []
    stopped: ExtractionError | None = None
    for decoded, computed in _compute(items, upstream, settings, device):
        try:
            if isinstance(computed, Exception):
                raise computed
            array, more = computed
            rows.append({**_row(decoded, array, _write(writer, decoded.item, array), settings), **more})
        except ExtractionError as error:
            stopped = error
            break
        except Exception as error:  # any failure of any model or writer must cost one utterance and not the run
            what = str(error) if isinstance(error, HubcoreError) else f"{type(error).__name__}: {error}"
            given = decoded.item.utterance.source.given
            failures.append(Failure(decoded.item.name, given, f"{printable(given)}: {what}"))
    return BatchResult(tuple(rows), tuple(failures), stopped)


def _write(writer: FeatureWriter, item: Measured, array: NDArray[Any]) -> str:
    """The path of the file that was written."""
    with as_guest():
        file = writer.write(item.name, array)
    if not isinstance(file, str):
        what = f"{type(writer).__qualname__}.write gave {file!r}, not the file's path as text."
        raise PluginError(what, fix="Tell its authors.")
    return file


def _writer_fault(writer: FeatureWriter, method: str, error: BaseException) -> BaseException:
    if isinstance(error, HubcoreError):
        return error
    return PluginError(f"{type(writer).__qualname__}.{method} failed: {error_text(error)}.", fix="Update its distribution.")


def _compute(
    items: Sequence[_Decoded], upstream: Upstream, settings: Settings, device: torch.device
) -> Iterator[tuple[_Decoded, tuple[NDArray[Any], dict[str, Any]] | Exception]]:
    """Each utterance with its array and what more its row says, or with why there is none.

    They are computed together or, where that fails, one by one.
    """
    if not items:
        return
    failure: Exception | None = None
    try:
        with torch.inference_mode(), as_guest():
            wavs = [decoded.wav.to(device) for decoded in items]
            call: Any = upstream
            output = call(wavs, layers=list(settings.layers), **settings.call_options)
            arrays = [_features(output, index, settings) for index in range(len(items))]
            more = [_times(output, index, upstream) for index in range(len(items))]
    except Exception as error:  # any failure of any model
        if len(items) == 1:
            failure = error
    else:
        yield from zip(items, zip(arrays, more, strict=True), strict=True)
        return
    # Out of the except block, whose exception would keep the tensors of a batch that was too large.
    if failure is not None:
        yield items[0], failure
    else:
        for single in items:
            yield from _compute([single], upstream, settings, device)


def _features(output: UpstreamOutput, index: int, settings: Settings) -> NDArray[Any]:
    """`(F, D)` or `(L, F, D)` of one utterance of a batch, in the type asked for."""
    frames = int(output.lengths[index])
    if frames < 1:
        raise AudioError("it gives no frame.", fix="Leave the file out.")
    states = [state[index, :frames] for state in output.hidden_states]  # L of (F, D)
    array = (torch.stack(states) if settings.stacked else states[0]).float().cpu().numpy()
    largest, limit = float(np.abs(array).max()), float(np.finfo(settings.dtype).max)
    if not np.isfinite(array).all():
        raise AudioError("its features are not finite.", fix="Check the audio and the checkpoint.")
    if largest > limit:
        raise AudioError(f"its features reach {largest:g}, beyond the {limit:g} of {settings.dtype}.", fix="Use float32.")
    return array.astype(settings.dtype)


def _row(decoded: _Decoded, array: NDArray[Any], file: str, settings: Settings) -> dict[str, Any]:
    values = {
        **settings.in_row(),
        "utterance": decoded.item.name,
        "source": decoded.item.utterance.source.given,
        "seconds": round(len(decoded.wav) / settings.sample_rate, 6),
        "frames": array.shape[-2],
        "shape": list(array.shape),
        "first_sample": None,
        "receptive_field": None,
        "file": file,
        "hubcore_version": VERSION,
        "source_bytes": decoded.source_bytes,
        "source_mtime_ns": decoded.source_mtime_ns,
    }
    return {key: values[key] for key in ROW_KEYS}


def _times(output: UpstreamOutput, index: int, upstream: Upstream) -> dict[str, Any]:
    """Row entries that tell when the frames of an utterance were; with a frame rate of its own its single numbers too."""
    times = output.frame_times()[index, : int(output.lengths[index])]
    if upstream.frame_stride is not None:
        first = getattr(getattr(upstream, "config", None), "first_sample", None)
        if first is None:  # the last frame's start is the one that was not moved to the utterance's own
            first = round(float(times[-1, 0]) * upstream.sample_rate) - (len(times) - 1) * upstream.frame_stride
        return {"first_sample": first, "receptive_field": upstream.receptive_field}
    numbers = {
        name: float(value[index])  # unrounded: six digits may not be enough to make the same frames again
        for name, value in output.extras.items()
        if isinstance(value, Tensor) and value.shape == output.lengths.shape and value.is_floating_point()
    }
    return {**numbers, "frame_times": [[round(start, 5), round(end, 5)] for start, end in times.tolist()]}


def _unfinished(
    named: dict[str, Utterance], finished: Finished, settings: Settings, writer: FeatureWriter
) -> dict[str, Utterance]:
    """The utterances still to be computed; also brings the rows in line with the files that are there."""
    rows = finished.read()
    for row in rows.values():
        differences = settings.differences(row)
        if differences:
            raise ExtractionError(
                f"{printable(finished.path.parent)} holds features made with other settings: {'; '.join(differences)}.",
                fix="Extract into another folder.",
            )
    changed = {name for name in named.keys() & rows.keys() if _is_changed(named[name], rows[name], finished.path)}
    kept = {name: row for name, row in rows.items() if name not in changed and _is_held(writer, row)}
    if len(kept) < len(rows):
        finished.replace(kept.values())
    finished.forget_failures()
    return {name: utterance for name, utterance in named.items() if name not in kept}


def _is_changed(utterance: Utterance, row: Mapping[str, Any], manifest: Path) -> bool:
    """True if an utterance is no longer what it was when the row was made. Where its file lies is of no account.

    Raises:
        ExtractionError: it is another one of that name.
    """
    given, stamp, then = utterance.source.given, utterance.source.stamp(), (row["source_bytes"], row["source_mtime_ns"])
    moved = given != row["source"]
    if stamp == then and not (moved and stamp == NO_STAMP):
        return False
    if moved and stamp != NO_STAMP:
        was, now = printable(row["source"]), printable(given)
        what = f"the utterance {printable(utterance.name)!r} of {printable(manifest)} was made from {was}. It now means {now}"
        fix = "Extract into another folder. If the corpus was copied, copy its times too: `cp -p`, `rsync -t`."
        raise ExtractionError(f"{what}, whose size or time of change is another.", fix)
    return True


def _is_held(writer: FeatureWriter, row: Mapping[str, Any]) -> bool:
    with as_guest(lambda error: _writer_fault(writer, "holds", error)):
        return writer.holds(row["file"], tuple(row["shape"]), row["dtype"])


def expected_bytes(batches: Batches, upstream: Upstream, settings: Settings) -> int | None:
    """About how many bytes are written, from the frame rate; None where that depends on the input."""
    if upstream.frame_stride is None:
        return None
    frames = sum((item.samples - upstream.min_samples) // upstream.frame_stride + 1 for item in batches.utterances)
    width = sum(upstream.hidden_sizes[index] for index in settings.layers)
    return frames * width * np.dtype(settings.dtype).itemsize + 128 * len(batches.utterances)


def device_of(upstream: Upstream) -> torch.device:
    """Device of the weights of an upstream, the CPU if it has none.

    Example:
        >>> from hubcore import hub
        >>> device_of(hub.load("fbank"))
        device(type='cpu')
    """
    tensors = (*upstream.parameters(), *upstream.buffers()) if isinstance(upstream, nn.Module) else ()
    return next((tensor.device for tensor in tensors), torch.device("cpu"))
