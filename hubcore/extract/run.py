"""`extract`, a bulk extraction: what is to be done, and what became of it.

Shapes: `L` layers, `F` frames, `D` dim.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, SupportsIndex

import torch
from torch import nn

from hubcore.corpus.find import utterances_by_name
from hubcore.corpus.utterance import NO_STAMP, Utterance
from hubcore.errors import ExtractionError, OptionError
from hubcore.extract.batches import Failure, Measured, batches_of, measure
from hubcore.extract.finished import Finished
from hubcore.extract.journal import PARTS, Journal, Part, in_order, opened, rows_of
from hubcore.extract.long import LONG_SECONDS
from hubcore.extract.plan import Block, Plan
from hubcore.extract.record import usual_format, write_record
from hubcore.extract.settings import Chunks, Settings, settings_for
from hubcore.extract.work import BatchResult, Done, Unit, Worker, write_index, writer_fault
from hubcore.extract.writers import BlockWriter, FeatureWriter, check_holds, find_writer, open_writer
from hubcore.files import output_folder
from hubcore.guests import as_guest
from hubcore.protocol import Upstream
from hubcore.text import format_bytes, format_duration, logger, plural, printable
from hubcore.version import VERSION

_log = logger("extract")


Report = Callable[[float, float, str], None]
"""Called with the hours of audio that are done, of how many, and speed, utterances and failures in words."""


@dataclass(frozen=True)
class Forecast:
    """The work that is to be done."""

    utterances: int
    """The number of utterances that are to be written."""
    seconds: float
    """The duration of their audio."""
    bytes: int | None
    """About the size of their features; None where the frame rate depends on the input."""
    files: int
    """The number of files, or of shards, that hold them."""

    @classmethod
    def of(cls, units: Sequence[Unit], upstream: Upstream, settings: Settings) -> Forecast:
        """That of units."""
        waiting = [item for unit in units for batch in unit.batches for item in batch if item.name in unit.pending]
        files = sum(1 if unit.block is not None else len(unit.pending) for unit in units)
        return cls(len(waiting), sum(item.seconds for item in waiting), expected_bytes(waiting, upstream, settings), files)


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
    forecast: Forecast | None = None
    """The work that there is, of a dry run."""

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
    workers: int = 1,
    shard: str = "0/1",
    engine: str = "local",
    address: str | None = None,
    force_unlock: bool = False,
    dry_run: bool = False,
    chunk_seconds: float | None = None,
    overlap_seconds: float | None = None,
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
        workers: the number of threads, each of which decodes a batch while another one is computed; with Ray, of processes.
        shard: the part to make, such as `0/2` and `1/2`, which may be made by two processes at the same time. When the last
            one is done, the folder is that of a run that was not divided.
        engine: `local`, in this process, or `ray`, in processes of a Ray cluster whose machines share the folder.
        address: of a running cluster; if None, that in `RAY_ADDRESS`, else one that runs on this machine, else processes of it.
        force_unlock: take no notice of the lock file of another run.
        dry_run: compute and write nothing; the summary has a `forecast`, and the failures that headers show.
        chunk_seconds: what is longer is computed in chunks of at most so much; see `hubcore.streaming.stream`.
        overlap_seconds: audio before and behind a chunk that is computed with it; the upstream's own choice if None.

    Raises:
        AudioError: a path does not exist or cannot be reached; a folder holds no audio file or cannot be listed.
        OptionError: a layer, a type, a format or a batch size is impossible, or a format cannot hold such features.
        PluginError: the format's writer is broken.
        ExtractionError: `out_dir` has features made otherwise, cannot be written, or is in use; two files share a name;
            the layers differ in width.

    Example:
        >>> import numpy as np, soundfile, tempfile
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
    if workers < 1:
        raise OptionError(f"workers is {workers}. It must be 1 or more.", fix="Each is a thread that decodes audio.")
    part = Part.parse(shard)
    if engine not in ("local", "ray") or (engine == "ray" and part.count > 1):
        what = f"engine is {engine!r}, and shard is {shard!r}."
        raise OptionError(what, fix="The engine is local or ray, and Ray divides the work itself: shard 0/1.")
    folder = output_folder(out_dir)
    chunks = None if chunk_seconds is None else Chunks(chunk_seconds, overlap_seconds, folder.absolute())
    settings = settings_for(upstream, layers, dtype, name, format or "npy", call_options, mix, pool, chunks)
    named = utterances_by_name(paths)
    format = format or usual_format(folder, len(named))
    settings = dataclasses.replace(settings, format=format)
    make_writer = find_writer(format, pooled=pool is not None)
    check_holds(make_writer, settings)
    if dry_run:
        rows = rows_of(folder)
        _check_settings(folder, rows.values(), settings)
        planned = _planned(folder, named, upstream, settings, write=False)
        shared = part.share(_units(planned.blocks, named, batch_seconds, settings, issubclass(make_writer, BlockWriter)))
        forecast = Forecast.of(list(_pending(shared, rows)), upstream, settings)
        unusable, wall = tuple(part.share(planned.failures)), time.perf_counter() - began
        return Summary(folder, (), len(rows.keys() & named.keys()), unusable, wall, {}, forecast)
    with contextlib.ExitStack() as cluster, opened(folder, part, force=force_unlock) as journal:
        if part.count < 2 and (folder / PARTS).exists():
            journal.fold(list(named))
        _check_settings(folder, journal.rows().values(), settings)
        writer = open_writer(make_writer, folder, format)
        try:
            write_record(folder, upstream, settings)
            planned = _planned(folder, named, upstream, settings)
            shared = part.share(_units(planned.blocks, named, batch_seconds, settings, isinstance(writer, BlockWriter)))
            kept = _kept(journal, named, shared if part.count > 1 else None, writer)
            journal.begin()
            failures = [*part.share(planned.failures)]
            journal.own.append_failures(failures)
            target = device_of(upstream) if device is None else torch.device(device)
            run = _Run(journal.own, kept, failures, report)
            units = list(_pending(shared, kept))
            _warn_of_long(units, upstream, settings)
            run.announce(Forecast.of(units, upstream, settings))
            if engine == "ray":
                from hubcore.extract.on_ray import connected, run_on_ray

                cluster.enter_context(connected(address))
                results = run_on_ray(units, upstream, settings, writer, folder, device=str(target), workers=workers)
            else:
                results = Worker(upstream, settings, writer, target, workers).run(units)
            run.take(results)
            journal.finish(list(named), lambda rows: write_index(writer, rows), changed=bool(run.rows))
        finally:
            with as_guest(lambda error: writer_fault(writer, "close", error)):
                writer.close()
    wall = time.perf_counter() - began
    run.failures.sort(key=lambda failure: failure.utterance)
    return Summary(
        folder, tuple(in_order(run.rows, named)), len(kept.keys() & named.keys()), tuple(run.failures), wall, run.speeds
    )


class _Planned(NamedTuple):
    """The blocks of a folder, and the utterances whose headers rule them out."""

    blocks: Sequence[Block]
    failures: Sequence[Failure]


def _planned(
    folder: Path, named: Mapping[str, Utterance], upstream: Upstream, settings: Settings, *, write: bool = True
) -> _Planned:
    """The blocks of a folder, with new ones for utterances that have none."""
    plan = Plan(folder)
    known = plan.planned
    new = [utterance for name, utterance in named.items() if name not in known]
    measured, failures = measure(new, sample_rate=upstream.sample_rate, min_samples=upstream.min_samples)
    size = 0.0 if settings.pool else _frame_bytes(settings) / (upstream.frame_stride or upstream.sample_rate / 50)
    if plan.add({item.name: item.samples for item in measured}, named, bytes_per_sample=size) and write:
        plan.write()
    return _Planned(plan.blocks, failures)


def _units(
    blocks: Iterable[Block], named: Mapping[str, Utterance], batch_seconds: float, settings: Settings, in_shards: bool
) -> list[Unit]:
    """All the work of a folder, done or not, so that all processes divide it in the same way."""
    units: list[Unit] = []
    for block in blocks:
        rate = settings.sample_rate
        items = [Measured(named[name], n, n / rate) for name, n in block.samples.items() if name in named]
        batches = batches_of(items, batch_seconds, rate)
        if in_shards:
            units.append(Unit(block.number, batches, frozenset(block.samples), {}))
        else:
            units += [Unit(None, (batch,), frozenset(item.name for item in batch), {}) for batch in batches]
    return units


def _pending(units: Iterable[Unit], kept: Mapping[str, Mapping[str, Any]]) -> Iterator[Unit]:
    """Units with what is not done yet."""
    for unit in units:
        pending = frozenset(item.name for batch in unit.batches for item in batch).difference(kept)
        if pending:
            there = {name: kept[name]["file"] for name in unit.pending if name in kept} if unit.block is not None else {}
            yield unit._replace(pending=pending, there=there)


def _warn_of_long(units: Iterable[Unit], upstream: Upstream, settings: Settings) -> None:
    longest = max((item.seconds for unit in units for batch in unit.batches for item in batch), default=0.0)
    if longest > LONG_SECONDS and upstream.num_layers and settings.chunks is None:
        _log.warning(
            "the longest has %s: attention over all of it takes time, and often memory, by the square of that. Chunks bound "
            "both: --chunk-seconds 30",
            format_duration(longest),
        )


@dataclass
class _Run:
    """The results of the units of one run."""

    finished: Finished
    kept: Mapping[str, Mapping[str, Any]]
    failures: list[Failure]
    report: Report | None
    rows: list[dict[str, Any]] = field(default_factory=list)
    speeds: dict[str, float] = field(default_factory=dict)
    """The speed at which each utterance was computed."""

    def announce(self, forecast: Forecast) -> None:
        """Says how much there is to do."""
        self._began, self._audio, self._hours = time.perf_counter(), 0.0, forecast.seconds / 3600
        self._done, self._total = len(self.failures), len(self.failures) + forecast.utterances
        about = "" if forecast.bytes is None else f", about {format_bytes(forecast.bytes)} to write"
        _log.info("%s, %s%s", plural(self._total, "utterance"), format_duration(forecast.seconds), about)
        self._tell()

    def take(self, results: Generator[Done, None, None]) -> None:
        """Records what is finished, as it comes."""
        began, shard = time.perf_counter(), list[BatchResult]()
        with contextlib.closing(results):
            for result, whole in results:
                now = time.perf_counter()
                speed = sum(row["seconds"] for row in result.rows) / max(now - began, 1e-9)
                self.speeds.update((row["utterance"], speed) for row in result.rows)
                began = now
                shard.append(result)
                if whole:
                    self._keep(shard)
                    shard = []
                else:
                    self._tell(shard)

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
            done, seconds = self._new(results)
            self._done, self._audio = self._done + done, self._audio + seconds
            self._tell()

    def _new(self, results: Sequence[BatchResult]) -> tuple[int, float]:
        """The number of utterances that these are the first results of, and the seconds of those that were written."""
        new = [row["seconds"] for result in results for row in result.rows if row["utterance"] not in self.kept]
        return len(new) + sum(len(result.failures) for result in results), sum(new)

    def _tell(self, more: Sequence[BatchResult] = ()) -> None:
        """Reports how much is done, that of a shard that is not yet whole with it."""
        if self.report:
            failed = len(self.failures) + sum(len(result.failures) for result in more)
            done, seconds = self._new(more)
            seconds += self._audio
            speed = seconds / max(time.perf_counter() - self._began, 1e-9)
            note = f"{speed:.0f} x real time, {self._done + done} of {self._total} utterances, {failed} failed"
            hours = self._hours if self._done + done == self._total else min(seconds / 3600, self._hours)
            self.report(hours, self._hours, note)


def _check_settings(folder: Path, rows: Iterable[Mapping[str, Any]], settings: Settings) -> None:
    """Raises `ExtractionError` if a folder has features made otherwise."""
    for row in rows:
        differences = settings.differences(row)
        if row["hubcore_version"] != VERSION:
            differences.append(f"hubcore_version is {row['hubcore_version']!r} there and {VERSION!r} here")
        if differences:
            raise ExtractionError(
                f"{printable(folder)} holds features made with other settings: {'; '.join(differences)}.",
                fix="Extract into another folder.",
            )


def _kept(
    journal: Journal, named: Mapping[str, Utterance], units: Sequence[Unit] | None, writer: FeatureWriter
) -> dict[str, dict[str, Any]]:
    """The rows of what need not be computed again; also brings the manifest in line with the files that are there.

    Args:
        journal: of the folder.
        named: the utterances that were asked for.
        units: those of a part, whose rows alone are of interest then.
        writer: of the folder's format.
    """
    rows = journal.rows()
    if units is not None:
        mine = frozenset[str]().union(*(unit.pending for unit in units))
        rows = {name: row for name, row in rows.items() if name in mine}
    changed = {name for name in named.keys() & rows.keys() if _is_changed(named[name], rows[name], journal.whole.path)}
    kept = {name: row for name, row in rows.items() if name not in changed and _is_held(writer, row)}
    there = journal.own.read()
    if not there.keys() <= kept.keys():
        journal.own.replace(row for name, row in there.items() if name in kept)
    journal.own.replace_failures(())
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
    with as_guest(lambda error: writer_fault(writer, "holds", error)):
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
