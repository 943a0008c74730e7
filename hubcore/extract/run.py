"""`extract`, a bulk extraction in this process, and `run_batch`, the step that any engine repeats.

Shapes: `B` batch, `T` samples, `L` layers, `F` frames, `D` dim.
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, SupportsIndex, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hubcore.corpus.find import utterances_by_name
from hubcore.corpus.utterance import NO_STAMP, Utterance
from hubcore.errors import AudioError, ExtractionError, HubcoreError, OptionError, PluginError
from hubcore.extract.batches import Failure, Measured, batches_of, check_length, failure_of, measure
from hubcore.extract.finished import ROW_KEYS, Finished, exclusive
from hubcore.extract.plan import Block, Plan
from hubcore.extract.record import usual_format, write_record
from hubcore.extract.reduce import mixed, pooled
from hubcore.extract.settings import Settings, settings_for
from hubcore.extract.writers import BlockWriter, FeatureWriter, Indexed, check_holds, find_writer, open_writer
from hubcore.files import output_folder
from hubcore.guests import as_guest
from hubcore.protocol import Upstream, UpstreamOutput
from hubcore.strategy import send
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
    paths: Iterable[str | os.PathLike[str]] | Iterable[Utterance],
    upstream: Upstream,
    out_dir: str | os.PathLike[str],
    *,
    layers: str | SupportsIndex | Sequence[str | SupportsIndex] | None = None,
    dtype: str = "float32",
    batch_seconds: float = 60.0,
    device: str | torch.device | None = None,
    name: str | None = None,
    format: str | None = None,
    mix: str | os.PathLike[str] | None = None,
    pool: str | None = None,
    call_options: Mapping[str, Any] = MappingProxyType({}),
    report: Report | None = None,
    force_unlock: bool = False,
) -> Summary:
    """Computes the features of audio files and writes them below `out_dir`, with `manifest.jsonl`.

    An utterance whose row is in the manifest is done: calling this again after an interruption computes the rest. An
    utterance that cannot be computed is listed in `failures.jsonl` and in the summary, and harms no other; a batch that
    fails is computed again one by one.

    Args:
        paths: audio files, folders of them, lists and archives, as `find_utterances` takes them; or utterances.
        upstream: in eval mode, on the device that is to compute.
        out_dir: created if need be.
        layers: see `choose_layers`; one layer is written as `(F, D)`, several and `"all"` as `(L, F, D)`. If None, the
            upstream's `default_layers`, else all.
        dtype: `float32`, or `float16` at half the size; `bfloat16` for the format `safetensors`.
        batch_seconds: at most so much audio is computed at once, or one longer utterance.
        device: where the waveforms go, which must be where the weights are; there if None.
        name: recorded in the manifest as the upstream's; its card's name, or its class's, if None.
        format: `npy`, `safetensors`, `hdf5`, `ark`, `parquet`, `webdataset`, `lhotse`, or one that a plugin brings; see
            `FeatureWriter`. If None, that of the folder, and of a new one `npy`, but `safetensors` from 50,000 utterances on.
        mix: layers whose weighted sum is written instead of them; see `choose_mix`.
        pool: `mean`, `mean+std` or `max` over the frames: one vector per utterance, and in the formats `npy` and `parquet` one
            table.
        call_options: keywords of each call of the upstream.
        report: called before the first batch and after each one; see `Report`.
        force_unlock: take no notice of the lock file of another run.

    Raises:
        AudioError: a path does not exist or cannot be reached; a folder holds no audio file or cannot be listed.
        OptionError: a layer, a type, a format or a batch size is impossible, or a format cannot hold such features.
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
    if mix is not None and layers is not None and not os.fspath(mix).endswith(".safetensors"):
        raise OptionError(f"layers is {layers!r} and mix is {os.fspath(mix)!r}. Both name layers.", fix="Leave layers out.")
    if layers is None:
        layers = getattr(upstream, "default_layers", None) or "all"
    if not batch_seconds > 0:
        raise OptionError(f"batch_seconds is {batch_seconds}. It must be above 0.", fix="60 suits a base model on a laptop.")
    folder = output_folder(out_dir)
    settings = settings_for(upstream, layers, dtype, name, format or "npy", call_options, mix, pool)
    named = utterances_by_name(paths)
    format = format or usual_format(folder, len(named))
    settings = dataclasses.replace(settings, format=format)
    make_writer = find_writer(format, pooled=pool is not None)
    check_holds(make_writer, settings)
    with exclusive(folder, force=force_unlock):
        finished = Finished(folder)
        writer = open_writer(make_writer, folder, format)
        try:
            kept = _kept(named, finished, settings, writer)
            write_record(folder, upstream, settings)
            blocks, failures = _planned(folder, named, upstream, settings)
            finished.append_failures(failures)
            target = device_of(upstream) if device is None else torch.device(device)
            run = _Run(named, kept, upstream, settings, writer, finished, target, batch_seconds, report, failures)
            run.blocks(blocks)
            rows = in_order(run.rows, named)
            there = finished.read()
            ordered = in_order(there.values(), named)
            if rows or [name for name in there if name in named] != [name for name in named if name in there]:
                finished.replace(ordered)
            if isinstance(writer, Indexed):
                with as_guest(lambda error: _writer_fault(writer, "index", error)):
                    writer.index(ordered)
        finally:
            with as_guest(lambda error: _writer_fault(writer, "close", error)):
                writer.close()
    wall = time.perf_counter() - began
    skipped = sum(name in kept for name in named)
    return Summary(folder, tuple(rows), skipped, tuple(run.failures), wall, run.speeds)


def in_order(rows: Iterable[dict[str, Any]], named: Iterable[str]) -> list[dict[str, Any]]:
    """Manifest rows in the order of utterance names; rows of others, from earlier runs, come last.

    Example:
        >>> [row["utterance"] for row in in_order([{"utterance": "c"}, {"utterance": "b"}, {"utterance": "a"}], ["a", "b"])]
        ['a', 'b', 'c']
    """
    place = {name: number for number, name in enumerate(named)}
    return sorted(rows, key=lambda row: place.get(row["utterance"], len(place)))


def _planned(
    folder: Path, named: Mapping[str, Utterance], upstream: Upstream, settings: Settings
) -> tuple[Sequence[Block], list[Failure]]:
    """The blocks of a folder, with new ones for utterances that have none, and the files whose headers rule them out."""
    plan = Plan(folder)
    known = plan.planned
    new = [utterance for name, utterance in named.items() if name not in known]
    measured, failures = measure(new, sample_rate=upstream.sample_rate, min_samples=upstream.min_samples)
    size = 0.0 if settings.pool else _frame_bytes(settings) / (upstream.frame_stride or upstream.sample_rate / 50)
    plan.add({item.name: item.samples for item in measured}, bytes_per_sample=size)
    return plan.blocks, failures


@dataclass
class _Run:
    """One run over the blocks of a folder, and what became of them."""

    named: Mapping[str, Utterance]
    kept: Mapping[str, dict[str, Any]]
    upstream: Upstream
    settings: Settings
    writer: FeatureWriter
    finished: Finished
    device: torch.device
    batch_seconds: float
    report: Report | None
    failures: list[Failure]
    rows: list[dict[str, Any]] = field(default_factory=list)
    speeds: dict[str, float] = field(default_factory=dict)
    """The speed at which each utterance was computed."""

    def blocks(self, blocks: Iterable[Block]) -> None:
        """Computes and writes what is not done yet."""
        rate = self.settings.sample_rate
        todo: list[tuple[Block, list[Measured], set[str]]] = []
        for block in blocks:
            items = [Measured(self.named[name], n, n / rate) for name, n in block.samples.items() if name in self.named]
            pending = {item.name for item in items} - self.kept.keys()
            if pending:
                todo.append((block, items, pending))
        waiting = [item for _, items, pending in todo for item in items if item.name in pending]
        self._done, self._total = len(self.failures), len(self.failures) + len(waiting)
        size = expected_bytes(waiting, self.upstream, self.settings)
        about = "" if size is None else f", about {format_bytes(size)} to write"
        duration = format_duration(sum(item.seconds for item in waiting))
        _log.info("%s, %s%s", plural(self._total, "utterance"), duration, about)
        self._tell()
        for block, items, pending in todo:
            batches = batches_of(items, self.batch_seconds, rate)
            if isinstance(self.writer, BlockWriter):
                self._shard(block, batches, pending, self.writer)
            else:
                for batch in batches:
                    self._keep([self._batch(batch, pending, self.writer)])

    def _shard(
        self, block: Block, batches: Sequence[Sequence[Measured]], pending: Collection[str], writer: BlockWriter
    ) -> None:
        """Writes the shard of a block; one that was whole is only made again if what failed then succeeds now."""
        there = [name for name in block.samples if name in self.kept]
        if there:
            tried = [self._batch(batch, pending, None) for batch in batches]
            if not any(result.rows for result in tried):
                self._keep(tried)
                return
            gone = next((name for name in there if name not in self.named), None)
            if gone is not None:
                shard = printable(self.kept[gone]["file"])
                what = f"{shard} must be made again, and the utterance {printable(gone)!r} in it is not among the paths."
                raise ExtractionError(what, fix="Pass the paths of the earlier run too.")
        with as_guest(lambda error: _writer_fault(self.writer, "begin_block", error)):
            writer.begin_block(block.number)
        results: list[BatchResult] = []
        for batch in batches:
            results.append(self._batch(batch, None, self.writer))
            if results[-1].stopped:
                raise results[-1].stopped
            self._tell(results)
        with as_guest(lambda error: _writer_fault(self.writer, "end_block", error)):
            writer.end_block()
        self._keep(results)

    def _batch(self, batch: Sequence[Measured], only: Collection[str] | None, writer: FeatureWriter | None) -> BatchResult:
        began = time.perf_counter()
        result = run_batch(batch, self.upstream, self.settings, writer, self.device, only)
        speed = sum(row["seconds"] for row in result.rows) / max(time.perf_counter() - began, 1e-9)
        self.speeds.update((row["utterance"], speed) for row in result.rows)
        return result

    def _keep(self, results: Sequence[BatchResult]) -> None:
        """Records what is finished, then raises what stopped a batch."""
        for result in results:
            self.finished.append_failures(result.failures)
            self.failures += result.failures
        rows = [row for result in results for row in result.rows]
        if rows:
            self.finished.append(rows)
        for result in results:
            if result.stopped:
                raise result.stopped
        if any(result.rows or result.failures for result in results):
            self.rows += rows
            self._done += self._new(results)
            self._tell()

    def _new(self, results: Sequence[BatchResult]) -> int:
        """The number of utterances that these are the first results of."""
        written = sum(row["utterance"] not in self.kept for result in results for row in result.rows)
        return written + sum(len(result.failures) for result in results)

    def _tell(self, more: Sequence[BatchResult] = ()) -> None:
        """Reports how many are done, those of a shard that is not yet whole among them."""
        if self.report:
            failed = len(self.failures) + sum(len(result.failures) for result in more)
            self.report(self._done + self._new(more), self._total, f"{failed} failed")


def run_batch(
    batch: Sequence[Measured],
    upstream: Upstream,
    settings: Settings,
    writer: FeatureWriter | None,
    device: torch.device,
    only: Collection[str] | None = None,
) -> BatchResult:
    """Decodes, computes and writes one batch. It may be repeated: the same batch gives the same files and rows.

    Nothing raises. What costs one utterance is a failure of that one; a file system that takes nothing more is `stopped`.

    Args:
        batch: utterances to compute together.
        upstream: the model.
        settings: those of the folder.
        writer: of the folder's format; None to find out whether they can be computed, without writing them.
        device: where the waveforms go.
        only: names of those to write; the others, which an earlier run wrote, are computed with them so that the numbers are
            the same to the last bit. All if None.
    """
    asked = {item.name for item in batch if only is None or item.name in only}
    decoded: dict[str, _Decoded] = {}
    failures: list[Failure] = []
    for item in sorted(batch, key=lambda item: item.name not in asked):
        if item.name not in asked and not decoded:
            break  # nothing to write
        # Taken before the samples are: a file replaced in between looks changed to the next run, and is done again.
        source = item.utterance.source
        before = source.stamp()
        try:
            wav = item.utterance.read(upstream.sample_rate)
            check_length(source.given, len(wav), sample_rate=upstream.sample_rate, min_samples=upstream.min_samples)
        except AudioError as error:
            if item.name in asked:
                failures.append(failure_of(item.utterance, error))
        else:
            decoded[item.name] = _Decoded(item, wav, *before)
    rows: list[dict[str, Any]] = []
    stopped: ExtractionError | None = None
    items = [decoded[item.name] for item in batch if item.name in decoded]
    for one, computed in _compute(items, upstream, settings, device):
        if one.item.name not in asked:
            continue
        try:
            if isinstance(computed, Exception):
                raise computed
            array, frames, more = computed
            rows.append({**_row(one, array, frames, _write(writer, one.item, array) if writer else "", settings), **more})
        except ExtractionError as error:
            stopped = error
            break
        except Exception as error:  # any failure of any model or writer must cost one utterance and not the run
            what = str(error) if isinstance(error, HubcoreError) else f"{type(error).__name__}: {error}"
            given = one.item.utterance.source.given
            failures.append(Failure(one.item.name, given, f"{printable(given)}: {what}"))
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
) -> Iterator[tuple[_Decoded, tuple[NDArray[Any], int, dict[str, Any]] | Exception]]:
    """Each utterance with its array, its number of frames and what more its row says, or with why there is none.

    They are computed together or, where that fails, one by one.
    """
    if not items:
        return
    failure: Exception | None = None
    try:
        with torch.inference_mode(), as_guest():
            wavs = send([decoded.wav for decoded in items], device, torch.float32)
            call: Any = upstream
            output = call(wavs, layers=list(settings.layers), **settings.call_options)
            arrays = [_features(output, index, settings) for index in range(len(items))]
            frames = output.lengths.tolist()
            more = [_times(output, index, upstream) for index in range(len(items))]
    except Exception as error:  # any failure of any model
        if len(items) == 1:
            failure = error
    else:
        yield from zip(items, zip(arrays, frames, more, strict=True), strict=True)
        return
    # Out of the except block, whose exception would keep the tensors of a batch that was too large.
    if failure is not None:
        yield items[0], failure
    else:
        for single in items:
            yield from _compute([single], upstream, settings, device)


def _features(output: UpstreamOutput, index: int, settings: Settings) -> NDArray[Any]:
    """`(F, D)` or `(L, F, D)` of one utterance of a batch, pooled without `F`, in the type asked for."""
    frames = int(output.lengths[index])
    if frames < 1:
        raise AudioError("it gives no frame.", fix="Leave the file out.")
    states = [state[index, :frames] for state in output.hidden_states]  # L of (F, D)
    if settings.mix is not None:
        states = [mixed(states, settings.mix)]
    if settings.pool is not None:
        states = [pooled(state, settings.pool) for state in states]  # L of (D,)
    features = (torch.stack(states) if settings.stacked else states[0]).float().cpu()
    dtype: torch.dtype = getattr(torch, settings.dtype)
    largest, limit = float(features.abs().max()), torch.finfo(dtype).max
    if not features.isfinite().all():
        output.check_finite()  # names the layer
        raise AudioError("its features are not finite.", fix="Check the audio and the checkpoint.")
    if largest > limit:
        raise AudioError(f"its features reach {largest:g}, beyond the {limit:g} of {settings.dtype}.", fix="Use float32.")
    features = features.to(dtype)
    if dtype == torch.bfloat16:
        return cast("NDArray[Any]", features.view(torch.int16).numpy().view(np.uint16))
    return features.numpy()


def _row(decoded: _Decoded, array: NDArray[Any], frames: int, file: str, settings: Settings) -> dict[str, Any]:
    utterance = decoded.item.utterance
    values = {
        **settings.in_row(),
        "utterance": utterance.name,
        "source": utterance.source.given,
        "start": utterance.start or None,
        "end": utterance.end,
        "channel": utterance.channel,
        "seconds": round(len(decoded.wav) / settings.sample_rate, 6),
        "frames": frames,
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


def _kept(
    named: dict[str, Utterance], finished: Finished, settings: Settings, writer: FeatureWriter
) -> dict[str, dict[str, Any]]:
    """The rows of what need not be computed again; also brings the manifest in line with the files that are there."""
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
    return kept


def _is_changed(utterance: Utterance, row: Mapping[str, Any], manifest: Path) -> bool:
    """True if an utterance is no longer what it was when the row was made. Where its file lies is of no account.

    Raises:
        ExtractionError: it is another one of that name.
    """
    given, stamp = utterance.source.given, utterance.source.stamp()
    moved = given != row["source"]
    now = (*stamp, utterance.start or None, utterance.end, utterance.channel)
    then = tuple(row[key] for key in ("source_bytes", "source_mtime_ns", "start", "end", "channel"))
    if now == then and not (moved and stamp == NO_STAMP):
        return False
    if moved and stamp != NO_STAMP:
        name, was = printable(utterance.name), printable(row["source"])
        what = f"the utterance {name!r} of {printable(manifest)} was made from {was}. It now means {printable(given)}"
        fix = "Extract into another folder. If the corpus was copied, copy its times too: `cp -p`, `rsync -t`."
        raise ExtractionError(f"{what}, whose size, time of change or part is another.", fix)
    return True


def _is_held(writer: FeatureWriter, row: Mapping[str, Any]) -> bool:
    with as_guest(lambda error: _writer_fault(writer, "holds", error)):
        return writer.holds(row["file"], tuple(row["shape"]), row["dtype"])


def expected_bytes(utterances: Sequence[Measured], upstream: Upstream, settings: Settings) -> int | None:
    """About how many bytes are written, from the frame rate; None where that depends on the input."""
    if settings.pool:
        return len(utterances) * _frame_bytes(settings)
    if upstream.frame_stride is None:
        return None
    frames = sum((item.samples - upstream.min_samples) // upstream.frame_stride + 1 for item in utterances)
    return frames * _frame_bytes(settings) + 128 * len(utterances)


def _frame_bytes(settings: Settings) -> int:
    """Bytes of one frame, or of a pooled utterance."""
    return settings.itemsize * settings.width * (len(settings.layers) if settings.stacked else 1)


def device_of(upstream: Upstream) -> torch.device:
    """Device of the weights of an upstream, the CPU if it has none.

    Example:
        >>> from hubcore import hub
        >>> device_of(hub.load("fbank"))
        device(type='cpu')
    """
    tensors = (*upstream.parameters(), *upstream.buffers()) if isinstance(upstream, nn.Module) else ()
    return next((tensor.device for tensor in tensors), torch.device("cpu"))
