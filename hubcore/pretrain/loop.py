"""`pretrain`: a run from its recipe to its last checkpoint, resumed where an earlier one ended.

A run is a function of its recipe: killed at any moment and started again, it resumes from its last checkpoint as if nothing
had happened, and its metrics are those of a run that was never disturbed.
"""

from __future__ import annotations

import contextlib
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
from hubcore.files import output_folder
from hubcore.loading import on_cpu
from hubcore.pretrain.checkpoints import (
    Found,
    hold_run,
    newest_checkpoint,
    optimizer_tensors,
    prune,
    restore,
    sweep,
    write_checkpoint,
)
from hubcore.pretrain.data import Loaded, Place, read_ahead
from hubcore.pretrain.metrics import Journal, Window, describe_row, rounded, run_figures
from hubcore.pretrain.monitor import Monitor, why_not_finite, why_scale_collapsed, why_too_many_skipped
from hubcore.pretrain.objective import Objective
from hubcore.pretrain.prepare import Prepared, prepare
from hubcore.pretrain.processes import Processes, warn_of_restarts
from hubcore.pretrain.provenance import RECIPE, check_same_recipe, has_card_of, started_from, write_card, write_recipe
from hubcore.pretrain.recipe import Recipe
from hubcore.pretrain.steps import SMALLEST_SCALE, Stepper, Updated
from hubcore.pretrain.validation import validate
from hubcore.text import logger, plural, printable

_log = logger("pretrain")
Report = Callable[["Status"], None]


@dataclass(frozen=True)
class Status:
    """Progress of a run, given to `report` after each update."""

    update: int
    max_updates: int
    row: dict[str, Any] | None
    """The row that was just written, if one was."""
    text: str
    """The figures of the latest row and the speed, in words."""
    seconds_left: float
    """Until the last update, at the speed since the run started or resumed."""


@dataclass(frozen=True)
class Outcome:
    """End of a run."""

    status: Literal["finished", "interrupted", "stopped"]
    update: int
    """Updates done."""
    message: str = ""
    """Why it ended early, and what to do."""
    signal: int | None = None
    """The signal that interrupted it."""


class _Stop(Exception):  # noqa: N818 - it ends a run, and is no error of it
    """Ends a run early; the same in every process."""


@on_cpu()
def pretrain(
    recipe: Recipe, out: str | Path, *, init: str | None = None, report: Report | None = None, force_unlock: bool = False
) -> Outcome:
    """Runs a recipe, or resumes it where `out` holds checkpoints of it.

    Args:
        recipe: what `read_recipe` gave.
        out: the run's folder; created if need be.
        init: a checkpoint of any layout, or a name, whose weights to start from; a run that resumes must have begun with it.
        report: called after each update, in process 0.
        force_unlock: take no notice of the lock file of another run.

    Raises:
        OptionError: the recipe is impossible, or `out` holds a run of another one.
        CheckpointError: `init` does not fit, no checkpoint of the run is whole, or another process is at work in `out`.
        ExtractionError: a manifest cannot be read.
        HubcoreError: accelerate is not installed.
    """
    prepared = prepare(recipe)
    processes = Processes(recipe.run.device)
    folder = output_folder(out)
    try:
        with hold_run(folder, force=force_unlock) if processes.is_main else contextlib.nullcontext():
            return _Run(prepared, folder, processes, init or "", report if processes.is_main else None).go()
    finally:
        processes.close()


class _Run:
    """The state of a run, and what is done at which update."""

    def __init__(self, prepared: Prepared, folder: Path, processes: Processes, init: str, report: Report | None) -> None:
        self.prepared, self.recipe, self.folder, self.processes = prepared, prepared.recipe, folder, processes
        self.report, self.init = report, init
        self.update, self.place, self.samples, self.saved = 0, Place(0, 0), 0, -1
        self.figures = run_figures(prepared.objective_class.figures)
        self.window, self.monitor = Window(), Monitor(self.recipe.monitor, self.figures)
        self.unreadable: dict[str, str] = {}
        self.skipped = 0
        self.journal: Journal | None = None
        self.signal: int | None = None
        self.corpus = prepared.train.corpus.fingerprint()
        self.stepper = self._prepare_stepper()
        self._began, self._before, self._row = time.monotonic(), (self.update, self.samples), dict[str, Any]()

    # Starting and resuming ------------------------------------------------------------------------------------------

    def _prepare_stepper(self) -> Stepper:
        found = newest_checkpoint(self.folder)
        if found is None and (self.folder / RECIPE).is_file():
            self._say("%s holds no checkpoint yet; the run starts from the beginning", printable(self.folder))
        if found is not None:
            for text in check_same_recipe(self.folder, self.recipe):
                self._say("the recipe has changed: %s", text)
        self._check_init(str(found.state["init"]) if found else started_from(self.folder))
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
                "none). They would train different models.",
                fix="Give an --out that is one folder on all machines.",
            )
        if self.processes.is_main:
            self._open(found)
        return stepper

    def _check_init(self, before: str | None) -> None:
        """Refuses other weights than the run began with, if it has begun; without --init it resumes from those."""
        if before is not None and self.init and not _same_source(self.init, before):
            raise OptionError(
                f"{printable(self.folder)} holds a run that began with {f'--init {before}' if before else 'fresh weights'}, "
                f"and now --init is {printable(self.init)}.",
                fix="Leave --init out to resume, or choose another --out.",
            )
        self.init = before or self.init

    def _initialise(self, objective: Objective) -> None:
        from hubcore.sources.resolve import resolve

        taken, fresh = objective.load_weights(resolve(self.init))
        self._say("%s: %s taken over; fresh: %s", self.init, plural(len(taken), "tensor"), ", ".join(fresh) or "none")

    def _resume(self, found: Found, stepper: Stepper) -> None:
        state = found.state
        if state["corpus"] != self.corpus:
            raise OptionError(
                f"the training manifests are not those that {printable(self.folder)} began with: files were added, removed, or "
                "changed their length. A run resumes only with the same data.",
                fix="Restore the manifests, and leave files out with data.exclude; or choose another --out, with --init.",
            )
        restore(found, stepper.objective, stepper.optimizer, stepper.names)
        stepper.load_scaler_state(state["scaler"])
        self.update = self.saved = found.update
        self.place, self.samples = Place(int(state["epoch"]), int(state["position"])), int(state["samples"])
        self.window = Window(state["window"])
        self.monitor = Monitor(self.recipe.monitor, self.figures, state["monitor"])
        self.unreadable = dict(state["unreadable"])
        self.skipped = int(state.get("skipped", 0))
        before, now = int(state["micro_batches"]), self._group
        if before != now:
            self._say("an update has %d micro-batches now and had %d before, so the loss curve bends here", now, before)
        self._say("resumed at update %d of %d", self.update, self.recipe.optimization.max_updates)

    def _open(self, found: Found | None) -> None:
        try:
            sweep(self.folder)
            write_recipe(self.folder, self.recipe, init=self.init)
            state = found.state if found else {}
            self.journal = Journal(self.folder, self.update, state, events=self.recipe.run.tensorboard)
            if found and not has_card_of(self.folder, found.state):  # killed between the checkpoint and its card
                write_card(self.folder, self.prepared, found.path, found.state, init=self.init)
        except OSError as error:
            raise CheckpointError(f"{printable(self.folder)} cannot be used ({error}).", fix="Choose another --out.") from error

    @property
    def _group(self) -> int:
        """Micro-batches of an update, in all processes."""
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
        self._say("%s on %s, precision %s", plural(self.processes.world, "process"), device.type, precision)
        batches = read_ahead(self.prepared.train.reader, self._places(), workers=self.recipe.data.workers)
        try:
            with _Signals(self):
                while self.update < last:
                    self._one_update(batches)
                self._save()
        except _Stop as stop:
            return Outcome("stopped" if self.signal is None else "interrupted", self.update, str(stop), self.signal)
        finally:
            batches.close()  # type: ignore[attr-defined]
            if self.journal is not None:
                self.journal.close()
        return Outcome("finished", self.update)

    def _places(self) -> Iterator[tuple[Place, tuple[int, ...]]]:
        """This process's batches from the checkpoint on, for ever."""
        epochs, place = self.prepared.train.epochs, self.place
        while True:
            yield from epochs.take(place, self._group)[self.processes.rank :: self.processes.world]
            place = epochs.after(place, self._group)

    def _one_update(self, batches: Iterator[Loaded]) -> None:
        run, valid, last = self.recipe.run, self.prepared.valid, self.recipe.optimization.max_updates
        done = self.stepper.update(self.update, batches, lambda: self.signal)
        self._check(done)
        self.update += 1
        self.place = self.prepared.train.epochs.after(self.place, self._group)
        self._record(done)
        row = self._write_row(done) if self.update % run.log_every == 0 or self.update == last else None
        self._report(row)
        complaint = self.monitor.judge(row) if row else None
        if complaint:
            raise _Stop(f"{complaint} {self._kept()}")
        if valid and run.validate_every and (self.update % run.validate_every == 0 or self.update == last):
            self._write({"update": self.update, **validate(self.stepper, valid, self.update, workers=self.recipe.data.workers)})
        if self.update % run.save_every == 0:
            self._save()
        caught = next((flag for flag in done.flags if flag is not None), None)
        if caught is not None:
            self.signal = caught
            self._save()
            command = f"hubcore pretrain {printable(self.folder / RECIPE)} --out {printable(self.folder)}"
            raise _Stop(f"interrupted at update {self.update}, which is saved. To resume: {command}")

    def _check(self, done: Updated) -> None:
        """Counts an update that was impossible; stops where too many were."""
        if done.broken:
            data, limit = self.prepared.train, self.recipe.monitor.max_skipped
            batches = data.epochs.take(self.place, self._group)
            keys = [item.key for place in done.suspects for item in data.reader.named(batches[place][1])]
            why = why_not_finite(self.update, done.loss, done.grad_norm, keys)
            self.skipped += 1
            if self.skipped > limit:
                raise _Stop(f"{why} {why_too_many_skipped(self.skipped, limit)} {self._kept()}")
            self._say("%s", why, level=logging.WARNING)
        if done.overflow and done.scale < SMALLEST_SCALE:
            raise _Stop(f"{why_scale_collapsed(self.update, done.scale)} {self._kept()}")

    def _record(self, done: Updated) -> None:
        self.samples += sum(batch.samples for batch in done.batches)
        self.window.add(done.batches)
        self.window.put("grad_norm", done.grad_norm, 1.0 if done.sample_size else 0.0)
        self.window.count("overflows", done.overflow)
        self.window.count("skipped", done.broken)
        self.window.count("without_targets", done.sample_size == 0)
        if done.sample_size == 0:
            self._say("update %d has no targets, so it changes nothing", self.update, level=logging.WARNING)
        for key, reason in (found for batch in done.batches for found in batch.unreadable.items()):
            if key not in self.unreadable:
                self.unreadable[key] = reason
                self._say("left out: %s", reason, level=logging.WARNING)
        listed = len(self.prepared.train.corpus.utterances)
        if len(self.unreadable) > min(self.recipe.data.max_unreadable, listed - 1):
            raise _Stop(
                f"{plural(len(self.unreadable), 'file')} could not be used, the last one: {list(self.unreadable.values())[-1]} "
                f"data.max_unreadable is {self.recipe.data.max_unreadable}, and the manifests list {listed}. Make the manifest "
                f"again, or raise the limit. {self._kept()}"
            )

    def _write_row(self, done: Updated) -> dict[str, Any]:
        sums = self.window.row()
        row = {
            "update": self.update,
            "epoch": self.place.epoch,
            **sums,
            **{f"weighted/{name}": rounded(weight * sums[name]) for name, weight in done.weights.items() if name in sums},
            "lr": rounded(done.lr),
            "hours": rounded(self._hours(self.samples)),
            "unreadable": len(self.unreadable),
        }
        if self.recipe.optimization.precision == "fp16":
            row["loss_scale"] = done.scale
        self.window = Window()
        self._write(row)
        return row

    def _write(self, row: dict[str, Any]) -> None:
        try:
            if self.journal is not None:
                self.journal.write(row)
        except OSError as error:
            raise CheckpointError(self._unwritable(f"the metrics of {printable(self.folder)}", error)) from error

    def _hours(self, samples: int) -> float:
        return samples / self.prepared.sample_rate / 3600

    def _report(self, row: dict[str, Any] | None) -> None:
        if self.report is None:
            return
        self._row = row or self._row
        seconds = max(time.monotonic() - self._began, 1e-9)
        updates, samples = self._before
        speed = 3600 * self._hours(self.samples - samples) / seconds
        last = self.recipe.optimization.max_updates
        left = (last - self.update) * seconds / max(self.update - updates, 1)
        text = ", ".join([*describe_row(self._row, self.figures), f"{speed:.1f} x real time"])
        self.report(Status(self.update, last, row, text, left))

    # Saving ---------------------------------------------------------------------------------------------------------

    def _save(self) -> None:
        """Writes a checkpoint, unless this update has one. Every process learns whether that went well."""
        if self.saved == self.update:
            return
        failure = ""
        try:
            if self.journal is not None:
                self._write_checkpoint(self.journal)
        except CheckpointError as error:
            failure = str(error)
        except OSError as error:
            failure = self._unwritable(printable(self.folder), error)
        failure = self.processes.gather([failure])[0]
        if failure:
            raise _Stop(failure)
        self.saved = self.update

    def _write_checkpoint(self, journal: Journal) -> None:
        state = {
            "epoch": self.place.epoch,
            "position": self.place.position,
            "samples": self.samples,
            "sample_rate": self.prepared.sample_rate,
            "scaler": self.stepper.scaler_state(),
            "window": self.window.state(),
            "monitor": self.monitor.state(),
            "unreadable": self.unreadable,
            "skipped": self.skipped,
            "init": self.init,
            "corpus": self.corpus,
            "world_size": self.processes.world,
            "micro_batches": self._group,
            **journal.sync(),
        }
        path = write_checkpoint(
            self.folder,
            self.update,
            model=self.stepper.objective.state_dict(),
            config=self.prepared.model_config,
            upstream=self.prepared.upstream_class,
            optimizer=optimizer_tensors(self.stepper.optimizer, self.stepper.names),
            state=state,
        )
        write_card(self.folder, self.prepared, path, read_state(path), init=self.init)
        prune(self.folder, keep_last=self.recipe.run.keep_last, keep_every=self.recipe.run.keep_every)

    def _kept(self) -> str:
        if self.saved < 0:
            return "No checkpoint had been written yet."
        return f"The checkpoint of update {self.saved} is kept in {printable(self.folder)}."

    def _unwritable(self, what: str, error: OSError) -> str:
        repair = "Make room or repair the disk, and start the same command again: it resumes."
        return f"{what} cannot be written ({error}). {self._kept()} {repair}"


_SIGNALS = [getattr(signal, name, None) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU")]
"""Signals that schedulers send before a time limit, and people."""


def _same_source(one: str, other: str) -> bool:
    return one == other or Path(one).absolute() == Path(other).absolute()


class _Signals:
    """Within it, signals that would end the process let the update finish; a second SIGINT does not."""

    def __init__(self, run: _Run) -> None:
        self._run = run
        self._before: dict[int, Any] = {}

    def __enter__(self) -> None:
        if threading.current_thread() is threading.main_thread():
            for number in filter(None, _SIGNALS):
                # Those that are ignored (nohup) stay so, and those that the calling program handles.
                before = signal.getsignal(number)
                if before == signal.SIG_DFL or (number == signal.SIGINT and callable(before)):
                    self._before[number] = signal.signal(number, self._caught)

    def _caught(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - signal's signature
        if self._run.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._run.signal = number

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
