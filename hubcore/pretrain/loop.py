"""`pretrain`: a run from its recipe to its last checkpoint, resumed where an earlier one ended.

A run is a function of its recipe: killed at any moment and started again, it goes on from its last checkpoint as if nothing
had happened, and its metrics are those of a run that was never disturbed.
"""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Literal

from hubcore.checkpoints.runs import read_state
from hubcore.errors import CheckpointError, OptionError
from hubcore.pretrain.checkpoints import (
    Found,
    hold,
    newest_checkpoint,
    optimizer_tensors,
    prune,
    restore,
    sweep,
    write_checkpoint,
)
from hubcore.pretrain.data import Loaded, Place, read_ahead
from hubcore.pretrain.metrics import METRICS, TIMING, RowFile, Window, rounded
from hubcore.pretrain.monitor import Monitor, why_not_finite, why_scale_collapsed
from hubcore.pretrain.prepare import Prepared, prepare
from hubcore.pretrain.processes import Processes, warn_of_restarts
from hubcore.pretrain.provenance import RECIPE, check_same_recipe, has_card_of, write_card, write_recipe
from hubcore.pretrain.recipe import Recipe
from hubcore.pretrain.steps import SMALLEST_SCALE, Stepper, Updated
from hubcore.pretrain.tensorboard import EventWriter
from hubcore.pretrain.validation import validate
from hubcore.text import printable

_MEND = "Make room or mend the disk, and start the same command again: it resumes."
_log = logging.getLogger("hubcore.pretrain")
Report = Callable[["Progress"], None]


@dataclass(frozen=True)
class Progress:
    """How far a run is; given to `report` after each update."""

    update: int
    max_updates: int
    row: dict[str, Any] | None
    """The row that was just written, if one was."""
    hours_per_second: float
    """Hours of audio learnt from in a second, since the run started or resumed."""
    seconds_left: float
    """Until the last update, at this speed."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    status: Literal["finished", "interrupted", "stopped"]
    update: int
    """Updates done."""
    message: str = ""
    """Why it ended early, and what to do."""
    signal: int | None = None
    """The signal that interrupted it."""


class _Stop(Exception):  # noqa: N818 - it ends a run, and is no error of it
    """Ends a run early; the same in every process."""


def pretrain(recipe: Recipe, out: str | Path, *, init: str | None = None, report: Report | None = None) -> Outcome:
    """Runs a recipe, or goes on with it where `out` holds checkpoints of it.

    Args:
        recipe: what `read_recipe` gave.
        out: the run's folder; created if need be.
        init: a checkpoint of any layout, or a name, whose weights to start from; ignored where the run resumes.
        report: called after each update, in process 0.

    Raises:
        OptionError: the recipe is impossible, or `out` holds a run of another one.
        CheckpointError: `init` does not fit, no checkpoint of the run is whole, or another process is at work in `out`.
        ExtractionError: a manifest cannot be read.
        HubcoreError: accelerate is not installed.
    """
    prepared = prepare(recipe)
    processes = Processes(recipe.run.device)
    folder = Path(out)
    try:
        if not processes.is_main:
            return _Run(prepared, folder, processes, init, None).go()
        with hold(folder):
            return _Run(prepared, folder, processes, init, report).go()
    finally:
        processes.close()


class _Run:
    """The state of a run, and what is done at which update."""

    def __init__(self, prepared: Prepared, folder: Path, processes: Processes, init: str | None, report: Report | None) -> None:
        self.prepared, self.recipe, self.folder, self.processes = prepared, prepared.recipe, folder, processes
        self.report, self.init = report, init or ""
        self.update, self.place, self.samples = 0, Place(0, 0), 0
        self.window, self.monitor = Window(), Monitor(self.recipe.monitor)
        self.unreadable: dict[str, str] = {}
        self.terms: list[str] = []
        self.metrics: RowFile | None = None
        self.timing: RowFile | None = None
        self.events: EventWriter | None = None
        self.saved = -1
        self._corpus = prepared.train.corpus.fingerprint()
        self.signal: int | None = None
        self._began, self._done_before, self._samples_before = time.monotonic(), 0, 0
        self.stepper = self._prepare_stepper()

    # Starting and resuming ------------------------------------------------------------------------------------------

    def _prepare_stepper(self) -> Stepper:
        found = newest_checkpoint(self.folder)
        if found is None and (self.folder / RECIPE).is_file() and self.processes.is_main:
            _log.info("%s holds no checkpoint yet; the run starts afresh", printable(self.folder))
        if found is not None:
            for text in check_same_recipe(self.folder, self.recipe):
                self._say("the recipe has changed: %s", text)
        objective = self.prepared.build()
        if found is None and self.init:
            self._initialise(objective)
        stepper = Stepper(objective, self.recipe, self.processes)
        if found is not None:
            self._resume(found, stepper)
        # No process may write while another one still looks for checkpoints.
        seen = self.processes.gather([found.update if found else -1])
        if len(set(seen)) > 1:
            raise OptionError(
                f"the processes see different checkpoints in {printable(self.folder)}: those of the updates {seen} (-1 for "
                "none). They would train apart. Give an --out that is one folder on all machines."
            )
        if self.processes.is_main:
            self._open(found)
        return stepper

    def _initialise(self, objective: Any) -> None:
        from hubcore.sources.resolve import resolve

        taken, fresh = objective.load_weights(resolve(self.init))
        self._say("%s: %d tensors taken over; fresh: %s", self.init, len(taken), ", ".join(fresh) or "none")

    def _resume(self, found: Found, stepper: Stepper) -> None:
        state = found.state
        if state["corpus"] != self._corpus:
            raise OptionError(
                f"the training manifests are not those that {printable(self.folder)} began with: files came, went, or changed "
                "their length. A run goes on with the same data only. Bring them back, or choose another --out, with --init."
            )
        restore(found, stepper.objective, stepper.optimizer, stepper.names)
        stepper.load_scaler_state(state["scaler"])
        self.update, self.samples = found.update, int(state["samples"])
        self.place = Place(int(state["epoch"]), int(state["position"]))
        self.window, self.monitor = Window(state["window"]), Monitor(self.recipe.monitor, state["monitor"])
        self.unreadable, self.terms, self.init = dict(state["unreadable"]), list(state["terms"]), str(state["init"])
        self.saved = found.update
        self._done_before, self._samples_before = self.update, self.samples
        before, now = int(state["micro_batches"]), self._group
        if before != now:
            self._say("an update has %d micro-batches now and had %d before, so the loss curve bends here", now, before)
        self._say("resumed at update %d of %d", self.update, self.recipe.optimization.max_updates)

    def _open(self, found: Found | None) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            sweep(self.folder)
            write_recipe(self.folder, self.recipe)
            self.metrics = RowFile(self.folder / METRICS, found.state["metrics_bytes"] if found else 0)
            self.timing = RowFile(self.folder / TIMING, found.state["timing_bytes"] if found else 0)
        except OSError as error:
            self._close()
            raise CheckpointError(f"{printable(self.folder)} cannot be used ({error}). Choose another --out.") from error
        if found and not has_card_of(self.folder, found.state):  # killed between the checkpoint and its card
            self._write_card(found.path, found.state)
        if self.recipe.run.tensorboard:
            self.events = EventWriter.open(self.folder / "tensorboard", self.update)

    @property
    def _group(self) -> int:
        return self.processes.world * self.recipe.optimization.accumulate

    def _say(self, message: str, *values: Any, level: int = logging.INFO) -> None:
        if self.processes.is_main:
            _log.log(level, message, *values)

    # Running --------------------------------------------------------------------------------------------------------

    def go(self) -> Outcome:
        """Trains until the last update, a signal, or a reason to stop."""
        if self.processes.is_main:
            warn_of_restarts()
        last = self.recipe.optimization.max_updates
        device, precision = self.processes.device, self.recipe.optimization.precision
        self._say("%d process(es) on %s, precision %s", self.processes.world, device.type, precision)
        batches = read_ahead(self.prepared.train.reader, self._places(), workers=self.recipe.data.workers)
        try:
            with _Signals(self):
                while self.update < last:
                    self._one_update(batches)
                self._save()
        except _Stop as stop:
            if self.signal is not None:
                return Outcome("interrupted", self.update, str(stop), self.signal)
            return Outcome("stopped", self.update, str(stop))
        finally:
            batches.close()  # type: ignore[attr-defined]
            self._close()
        return Outcome("finished", self.update)

    def _close(self) -> None:
        for file in (self.metrics, self.timing, self.events):
            if file is not None:
                file.close()

    def _places(self) -> Iterator[tuple[Place, tuple[int, ...]]]:
        """This process's batches from the checkpoint on, for ever."""
        plan, place, world = self.prepared.train.plan, self.place, self.processes.world
        while True:
            yield from plan.take(place, self._group)[self.processes.rank :: world]
            place = plan.after(place, self._group)

    def _one_update(self, batches: Iterator[Loaded]) -> None:
        options, run = self.recipe.optimization, self.recipe.run
        done = self.stepper.update(self.update, batches, lambda: self.signal)
        self._check(done)
        self.update += 1
        self.place = self.prepared.train.plan.after(self.place, self._group)
        self._record(done)
        row = None
        if self.update % run.log_every == 0 or self.update == options.max_updates:
            row = self._write_row(done)
        self._report(row)
        complaint = self.monitor.judge(row) if row else None
        if complaint:
            raise _Stop(f"{complaint} {self._kept()}")
        valid = self.prepared.valid
        if valid and run.validate_every and (self.update % run.validate_every == 0 or self.update == options.max_updates):
            figures = validate(self.stepper, valid, self.update, workers=self.recipe.data.workers)
            self._write({"update": self.update, **figures})
        if self.update % run.save_every == 0:
            self._save()
        caught = next((flag for flag in done.flags if flag is not None), None)
        if caught is not None:
            self.signal = caught
            self._save()
            raise _Stop(f"interrupted at update {self.update}, which is saved. To go on: {self._command()}")

    def _check(self, done: Updated) -> None:
        """Stops where an update was impossible."""
        if done.broken:
            keys = self._keys()
            raise _Stop(f"{why_not_finite(self.update, done.loss, done.grad_norm, keys)} {self._kept()}")
        if done.overflow and done.scale < SMALLEST_SCALE:
            raise _Stop(f"{why_scale_collapsed(self.update, done.scale)} {self._kept()}")

    def _keys(self) -> list[str]:
        """The first utterance of each micro-batch of this update."""
        data = self.prepared.train
        return [data.corpus.utterances[items[0]].key for _, items in data.plan.take(self.place, self._group)]

    def _record(self, done: Updated) -> None:
        self.samples += sum(batch.samples for batch in done.batches)
        self.terms = self.terms or sorted({name for batch in done.batches for name in batch.terms})
        self.window.add(done.batches)
        self.window.put("grad_norm", done.grad_norm, 1.0 if done.sample_size else 0.0)
        self.window.count("overflows", done.overflow)
        self.window.count("without_targets", done.sample_size == 0)
        if done.sample_size == 0:
            self._say("update %d has no targets, so it changes nothing", self.update, level=logging.WARNING)
        for batch in done.batches:
            for key, reason in batch.unreadable.items():
                if key not in self.unreadable:
                    self.unreadable[key] = reason
                    self._say("left out: %s", reason, level=logging.WARNING)
        limit = min(self.recipe.data.max_unreadable, len(self.prepared.train.corpus.utterances) - 1)
        if len(self.unreadable) > limit:
            raise _Stop(
                f"{len(self.unreadable)} files could not be used, the last one: {list(self.unreadable.values())[-1]} "
                f"data.max_unreadable is {self.recipe.data.max_unreadable}, and the manifests list "
                f"{len(self.prepared.train.corpus.utterances)}. Make the manifest again, or raise the limit. {self._kept()}"
            )

    def _write_row(self, done: Updated) -> dict[str, Any]:
        sums = self.window.row()
        row = {
            "update": self.update,
            "epoch": self.place.epoch,
            **sums,
            **{name: rounded(value) for name, value in self.stepper.weighted(sums, self.terms).items()},
            "lr": rounded(done.lr),
            "hours": rounded(self.samples / self.prepared.sample_rate / 3600),
            "unreadable": len(self.unreadable),
        }
        if self.recipe.optimization.precision == "fp16":
            row["loss_scale"] = done.scale
        self.window = Window()
        self._write(row)
        return row

    def _write(self, row: dict[str, Any]) -> None:
        if self.metrics is not None and self.timing is not None:
            try:
                self.metrics.write(row)
                seconds = round(time.monotonic() - self._began, 3)
                self.timing.write({"update": row["update"], "time": round(time.time(), 3), "seconds": seconds})
            except OSError as error:
                raise CheckpointError(
                    f"the metrics of {printable(self.folder)} cannot be written ({error}). {self._kept()} {_MEND}"
                ) from error
        if self.events is not None:
            self.events.write(row)

    def _report(self, row: dict[str, Any] | None) -> None:
        if self.report is None:
            return
        seconds = max(time.monotonic() - self._began, 1e-9)
        hours = (self.samples - self._samples_before) / self.prepared.sample_rate / 3600
        last = self.recipe.optimization.max_updates
        left = (last - self.update) * seconds / max(self.update - self._done_before, 1)
        self.report(Progress(self.update, last, row, hours / seconds, left))

    # Saving ---------------------------------------------------------------------------------------------------------

    def _save(self) -> None:
        """Writes a checkpoint, unless this update has one. Every process learns whether that went well."""
        if self.saved == self.update:
            return
        failure = ""
        if self.processes.is_main:
            try:
                self._write_checkpoint()
            except CheckpointError as error:
                failure = str(error)
            except OSError as error:
                failure = f"{printable(self.folder)} cannot be written ({error}). {self._kept()} {_MEND}"
        failure = self.processes.gather([failure])[0]
        if failure:
            raise _Stop(failure)
        self.saved = self.update

    def _write_checkpoint(self) -> None:
        run, prepared = self.recipe.run, self.prepared
        if self.metrics is None or self.timing is None:
            raise OptionError("only process 0 writes checkpoints")
        if self.events is not None:
            self.events.flush()
        state = {
            "epoch": self.place.epoch,
            "position": self.place.position,
            "samples": self.samples,
            "sample_rate": prepared.sample_rate,
            "scaler": self.stepper.scaler_state(),
            "window": self.window.state(),
            "monitor": self.monitor.state(),
            "unreadable": self.unreadable,
            "terms": self.terms,
            "init": self.init,
            "corpus": self._corpus,
            "world_size": self.processes.world,
            "micro_batches": self._group,
            "metrics_bytes": self.metrics.sync(),
            "timing_bytes": self.timing.sync(),
        }
        path = write_checkpoint(
            self.folder,
            self.update,
            model=self.stepper.objective.state_dict(),
            config=prepared.model_config,
            upstream=prepared.upstream_class,
            optimizer=optimizer_tensors(self.stepper.optimizer, self.stepper.names),
            state=state,
        )
        self._write_card(path, read_state(path))
        prune(self.folder, keep_last=run.keep_last, keep_every=run.keep_every)

    def _write_card(self, checkpoint: Path, state: dict[str, Any]) -> None:
        prepared = self.prepared
        write_card(
            self.folder,
            self.recipe,
            checkpoint,
            state,
            upstream=prepared.objective_class.upstream,
            config=prepared.named_config,
            corpus_hours=prepared.train.corpus.samples / prepared.sample_rate / 3600,
            init=self.init,
        )

    def _kept(self) -> str:
        if self.saved < 0:
            return "No checkpoint had been written yet."
        return f"The checkpoint of update {self.saved} is kept in {printable(self.folder)}."

    def _command(self) -> str:
        return f"hubcore pretrain {printable(self.folder / RECIPE)} --out {printable(self.folder)}"


class _Signals:
    """Within it, SIGINT and SIGTERM let the update finish; a second SIGINT does not."""

    def __init__(self, run: _Run) -> None:
        self._run = run
        self._before: dict[int, Any] = {}

    def __enter__(self) -> None:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._caught)

    def _caught(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - signal's signature
        if self._run.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._run.signal = number

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
