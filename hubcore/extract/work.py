"""`Worker`: decodes, computes and writes units of work, the three at the same time.

Shapes: `B` batch, `T` samples, `L` layers, `F` frames, `D` dim.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections import deque
from collections.abc import Collection, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hubcore.errors import AudioError, ExtractionError, HubcoreError, PluginError
from hubcore.extract.batches import Failure, Measured, check_length, failure_of
from hubcore.extract.finished import ROW_KEYS
from hubcore.extract.long import NotFiniteError, in_chunks, stored
from hubcore.extract.reduce import mixed, pooled
from hubcore.extract.settings import Settings
from hubcore.extract.writers import BlockWriter, FeatureWriter, Indexed
from hubcore.guests import as_guest
from hubcore.protocol import Upstream, UpstreamOutput
from hubcore.strategy import send
from hubcore.text import error_text, format_duration, logger, printable
from hubcore.version import VERSION

_log = logger("extract")


class Unit(NamedTuple):
    """Batches that are written together: those of one shard, or a single batch of files."""

    block: int | None
    """The number of the shard; None for a file per utterance."""
    batches: tuple[tuple[Measured, ...], ...]
    """Utterances that are computed together."""
    pending: frozenset[str]
    """Names of those that are to be written."""
    there: Mapping[str, str]
    """Names of those of the shard that have a row, with the shard's path; they are written again with the others."""

    @property
    def seconds(self) -> float:
        """The duration of what is pending."""
        return sum(item.seconds for batch in self.batches for item in batch if item.name in self.pending)


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


class _Read(NamedTuple):
    """The samples of a batch, and what could not be read."""

    items: list[_Decoded]
    asked: set[str]
    failures: list[Failure]


_Computed = tuple[NDArray[Any], int, dict[str, Any]]
"""The array of an utterance, its number of frames, and what more its row says."""


class Done(NamedTuple):
    """The result of a batch."""

    result: BatchResult
    whole: bool
    """False until the shard that it is part of has its name; only then may its rows enter the manifest."""


@dataclass
class Worker:
    """The model of a process, and its writer into the folder."""

    upstream: Upstream
    settings: Settings
    writer: FeatureWriter
    device: torch.device
    threads: int = 1
    """The number of batches that are decoded at once, while another one is computed and one is written."""
    room: float = math.inf
    """Samples of several utterances that fit into memory; less once it ran out."""
    _wide: Upstream | None = None

    def run(self, units: Iterable[Unit]) -> Generator[Done, None, None]:
        """Computes and writes units, one after the other.

        Raises:
            ExtractionError: the file system takes no shard more.
            PluginError: the writer is broken.
        """
        for again, group in itertools.groupby(units, key=lambda unit: bool(unit.there)):
            for unit in group if again else ():
                yield from self._again(unit)
            if not again:
                yield from self._flow(group)

    def _again(self, unit: Unit) -> Iterator[Done]:
        """Makes a shard that was whole again, but only if something succeeds that failed before."""
        tried = [self.batch(batch, unit.pending, write=False) for batch in unit.batches]
        if any(result.rows for result in tried):
            named = {item.name for batch in unit.batches for item in batch}
            gone = next((name for name in unit.there if name not in named), None)
            if gone is not None:
                shard = printable(unit.there[gone])
                what = f"{shard} must be made again, and the utterance {printable(gone)!r} in it is not among the paths."
                raise ExtractionError(what, fix="Pass the paths of the earlier run too.")
            yield from self._flow([unit._replace(pending=frozenset(named), there={})])
        else:
            yield from (Done(result, result is tried[-1]) for result in tried)

    def _flow(self, units: Iterable[Unit]) -> Iterator[Done]:
        """While a batch is computed, the next ones are decoded and the one before is written."""
        steps = ((unit, number) for unit in units for number in range(len(unit.batches)))
        reading: deque[tuple[Unit, int, Future[_Read]]] = deque()
        writing: Future[Done] | None = None
        with ThreadPoolExecutor(self.threads) as readers, ThreadPoolExecutor(1) as writers:
            try:
                while True:
                    for unit, number in itertools.islice(steps, self.threads + 1 - len(reading)):
                        reading.append((unit, number, readers.submit(self._read, unit.batches[number], unit.pending)))
                    if not reading:
                        break
                    unit, number, future = reading.popleft()
                    read = future.result()
                    computed = list(self._compute(read.items))
                    if writing:
                        done, writing = writing.result(), None
                        yield done
                    writing = writers.submit(self._written, unit, number, read, computed)
                if writing:
                    yield writing.result()
            except KeyboardInterrupt:
                if writing:
                    yield writing.result()  # so that its rows are kept
                raise
            finally:
                readers.shutdown(cancel_futures=True)

    def batch(self, batch: Sequence[Measured], only: Collection[str] | None = None, *, write: bool = True) -> BatchResult:
        """Decodes, computes and writes one batch. It may be repeated: the same batch gives the same files and rows.

        Nothing raises. What costs one utterance is a failure of that one; a file system that takes nothing more is `stopped`.

        Args:
            batch: utterances to compute together.
            only: names of those to write; the others, which an earlier run wrote, are computed with them so that the numbers
                are the same to the last bit. All if None.
            write: False to find out whether they can be computed, without writing them.
        """
        read = self._read(batch, only)
        return self._rows(read, self._compute(read.items), write=write)

    def _read(self, batch: Sequence[Measured], only: Collection[str] | None) -> _Read:
        asked = {item.name for item in batch if only is None or item.name in only}
        decoded: dict[str, _Decoded] = {}
        failures: list[Failure] = []
        rate, least = self.upstream.sample_rate, self.upstream.min_samples
        for item in sorted(batch, key=lambda item: item.name not in asked):
            if item.name not in asked and not decoded:
                break  # nothing to write
            # Taken before the samples are: a file replaced in between looks changed to the next run, and is done again.
            source = item.utterance.source
            before = source.stamp()
            try:
                wav = item.utterance.read(rate)
                check_length(source.given, len(wav), sample_rate=rate, min_samples=least)
            except AudioError as error:
                if item.name in asked:
                    failures.append(failure_of(item.utterance, error))
            else:
                decoded[item.name] = _Decoded(item, wav, *before)
        return _Read([decoded[item.name] for item in batch if item.name in decoded], asked, failures)

    def _written(
        self, unit: Unit, number: int, read: _Read, computed: Iterable[tuple[_Decoded, _Computed | Exception]]
    ) -> Done:
        writer, last = self.writer, number == len(unit.batches) - 1
        if unit.block is None or not isinstance(writer, BlockWriter):
            return Done(self._rows(read, computed), True)
        if number == 0:
            with as_guest(lambda error: writer_fault(writer, "begin_block", error)):
                writer.begin_block(unit.block)
        result = self._rows(read, computed)
        if result.stopped:
            raise result.stopped
        if last:
            with as_guest(lambda error: writer_fault(writer, "end_block", error)):
                writer.end_block()
        return Done(result, last)

    def _rows(
        self, read: _Read, computed: Iterable[tuple[_Decoded, _Computed | Exception]], *, write: bool = True
    ) -> BatchResult:
        rows: list[dict[str, Any]] = []
        failures, stopped = [*read.failures], None
        for one, found in computed:
            if one.item.name not in read.asked:
                continue
            try:
                if isinstance(found, Exception):
                    raise found
                array, frames, more = found
                file = _write(self.writer, one.item, array) if write else ""
                rows.append({**_row(one, array, frames, file, self.settings), **more})
            except ExtractionError as error:
                stopped = error
                break
            except Exception as error:  # any failure of any model or writer must cost one utterance and not the run
                what = str(error) if isinstance(error, HubcoreError) else f"{type(error).__name__}: {error}"
                given = one.item.utterance.source.given
                failures.append(Failure(one.item.name, given, f"{printable(given)}: {what}"))
        return BatchResult(tuple(rows), tuple(failures), stopped)

    def _compute(self, items: Sequence[_Decoded]) -> Iterator[tuple[_Decoded, _Computed | Exception]]:
        """Each utterance with its features, or with why there are none.

        They are computed together. Where memory runs out, that is tried with half of them, and where anything else fails, with
        each alone.
        """
        size = sum(len(decoded.wav) for decoded in items)
        parts = [items[: len(items) // 2], items[len(items) // 2 :]]
        if len(items) < 2 or size <= self.room:
            failure, full = self._try(items)
            if isinstance(failure, list):
                yield from zip(items, failure, strict=True)
                return
            if len(items) == 1:
                yield items[0], failure
                return
            if full:
                self.room = size - 1
                _log.warning(
                    "memory ran out with %s at once; half of it is tried", format_duration(size / self.settings.sample_rate)
                )
            else:
                parts = [[item] for item in items]
        for part in parts:
            yield from self._compute(part)

    def _try(self, items: Sequence[_Decoded]) -> tuple[list[_Computed] | Exception, bool]:
        """The features of utterances computed together, or why there are none; and whether memory ran out."""
        if not items:
            return [], False
        try:
            return self._call(self.upstream, items), False
        except NotFiniteError as error:
            if len(items) > 1 or not _is_half(self.upstream):
                return error, False
        except Exception as error:  # any failure of any model
            full = _is_memory(error)
            if full and len(items) == 1:
                seconds = len(items[0].wav) / self.settings.sample_rate
                return AudioError(
                    f"memory ran out with its {seconds:.1f} s.", fix="Compute it in chunks: --chunk-seconds 30."
                ), full
            return error.with_traceback(None), full  # whose frames would keep the tensors of a batch that was too large
        try:
            self._wide = self._wide or cast("Upstream", copy.deepcopy(cast("nn.Module", self.upstream)).float())
            return [
                (array, frames, {**more, "recomputed": "float32"}) for array, frames, more in self._call(self._wide, items)
            ], False
        except Exception as error:
            return error.with_traceback(None), False

    def _call(self, upstream: Upstream, items: Sequence[_Decoded]) -> list[_Computed]:
        """The features of utterances, those that are not long computed together."""
        settings = self.settings
        together = [decoded for decoded in items if not settings.is_long(len(decoded.wav))]
        found = iter(self._call_together(upstream, together) if together else ())
        return [
            in_chunks(upstream, decoded.wav, settings, self.device) if settings.is_long(len(decoded.wav)) else next(found)
            for decoded in items
        ]

    def _call_together(self, upstream: Upstream, items: Sequence[_Decoded]) -> list[_Computed]:
        settings = self.settings
        with torch.inference_mode(), as_guest():
            wavs = send([decoded.wav for decoded in items], self.device, torch.float32)
            call: Any = upstream
            output = call(wavs, layers=list(settings.layers), **settings.call_options)
            arrays = [_features(output, index, settings) for index in range(len(items))]
            more = [_times(output, index, upstream) for index in range(len(items))]
            return list(zip(arrays, output.lengths.tolist(), more, strict=True))


def _is_memory(error: Exception) -> bool:
    """True if memory ran out, of a GPU or of the machine."""
    return isinstance(error, (torch.cuda.OutOfMemoryError, MemoryError)) or "DefaultCPUAllocator" in str(error)


def _is_half(upstream: Upstream) -> bool:
    return isinstance(upstream, nn.Module) and any(weight.dtype == torch.float16 for weight in upstream.parameters())


def _write(writer: FeatureWriter, item: Measured, array: NDArray[Any]) -> str:
    """The path of the file that was written."""
    with as_guest():
        file = writer.write(item.name, array)
    if not isinstance(file, str):
        what = f"{type(writer).__qualname__}.write gave {file!r}, not the file's path as text."
        raise PluginError(what, fix="Tell its authors.")
    return file


def write_index(writer: FeatureWriter, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes the files that name all the others, of a format that has some."""
    if isinstance(writer, Indexed):
        with as_guest(lambda error: writer_fault(writer, "index", error)):
            writer.index(rows)


def writer_fault(writer: FeatureWriter, method: str, error: BaseException) -> BaseException:
    """The error of a writer's method: hubcore's own as it is, any other as a `PluginError` that names the method."""
    if isinstance(error, HubcoreError):
        return error
    return PluginError(f"{type(writer).__qualname__}.{method} failed: {error_text(error)}.", fix="Update its distribution.")


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
    if not features.isfinite().all():
        try:
            output.check_finite()  # names the layer
        except HubcoreError as error:
            raise NotFiniteError(error.what, error.fix) from error
    return stored(features, settings.dtype)


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
