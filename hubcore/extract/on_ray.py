"""`run_on_ray`: units of work on the machines of a Ray cluster, whose workers write into a folder that all of them share."""

from __future__ import annotations

import contextlib
import os
import time
from collections import Counter, deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hubcore.errors import ExtractionError
from hubcore.extract.batches import Failure
from hubcore.extract.settings import Settings
from hubcore.extract.work import BatchResult, Done, Unit, Worker
from hubcore.extract.writers import FeatureWriter, open_writer
from hubcore.lazy import needs
from hubcore.protocol import Upstream
from hubcore.text import logger, printable, text_path

_log = logger("extract")
_TRIES = 3
"""Workers that may die of a unit before it is given up."""
_PATIENCE = 60.0
"""Seconds after which the log says that nothing comes from the cluster."""
_VISIBLE = 15.0
"""Seconds that a network file system may take to show what another machine wrote."""


class _Actor:
    """A worker process: it has the model, and a writer of its own into the folder."""

    def __init__(
        self, upstream: Upstream, settings: Settings, maker: type[FeatureWriter], folder: Path, device: str, place: str
    ) -> None:
        with contextlib.suppress(OSError):
            os.chdir(place)  # that of the command, for relative paths
        if isinstance(upstream, nn.Module):
            upstream.to(device)
        self.worker = Worker(upstream, settings, open_writer(maker, folder, settings.format), torch.device(device))

    def run(self, unit: Unit) -> list[Done]:
        return list(self.worker.run([unit]))


@contextlib.contextmanager
def connected(address: str | None) -> Iterator[None]:
    """A connection to a cluster, unless there is one. It ends last of all, since Ray may end the process with it.

    Args:
        address: of a running cluster; None for `RAY_ADDRESS`, one that runs on this machine, or processes of it.

    Raises:
        OptionError: Ray is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray = needs("ray", "ray")
    if ray.is_initialized():
        yield
        return
    ray.init(address=address, include_dashboard=None if address else False, log_to_driver=False, logging_level="WARNING")
    try:
        yield
    finally:
        ray.shutdown()


def run_on_ray(
    units: Iterable[Unit],
    upstream: Upstream,
    settings: Settings,
    writer: FeatureWriter,
    folder: Path,
    *,
    device: str,
    workers: int,
) -> Generator[Done, None, None]:
    """Computes and writes units in worker processes of the cluster `connected` to, in whatever order they are done.

    The unit of a worker that died is given to another one. After two, the utterances of a batch of files are tried one by one;
    after three it is given up: its utterances are failures.

    Args:
        units: the work.
        upstream: the model, which is sent to the workers.
        settings: those of the folder.
        writer: of this process, to see what the others wrote.
        folder: the output folder, at the same path on all machines.
        device: of the workers; with `cuda` each gets a GPU.
        workers: the number of them.

    Raises:
        ExtractionError: the folder is not shared, or takes nothing more.
    """
    ray = needs("ray", "ray")
    actors: list[Any] = []
    try:
        shared = ray.put(upstream)
        make = ray.remote(num_cpus=1, num_gpus=int(device.startswith("cuda")), max_restarts=0)(_Actor)
        given = (shared, settings, type(writer), folder.absolute(), device, os.getcwd())
        todo, lost, running = deque(units), Counter[frozenset[str]](), dict[Any, tuple[Any, Unit]]()
        while todo or running:
            while todo and len(running) < workers:
                actor = actors.pop() if actors else make.remote(*given)
                unit = todo.popleft()
                running[actor.run.remote(unit)] = actor, unit
            ready = ray.wait(list(running), num_returns=1, timeout=_PATIENCE)[0]
            if not ready:
                _log.info("nothing came from Ray for %.0f s; `ray status` shows whether its CPUs are taken", _PATIENCE)
                continue
            actor, unit = running.pop(ready[0])
            try:
                results: list[Done] = ray.get(ready[0])
            except ray.exceptions.RayActorError as error:
                lost[unit.pending] += 1
                _log.warning("a worker died; the %d utterances that it had are done again", len(unit.pending))
                again, failures = _again(unit, lost[unit.pending], error)
                todo.extend(again)
                if failures:
                    yield Done(BatchResult((), tuple(failures)), True)
                continue
            except ray.exceptions.RayTaskError as error:
                raise error.cause or error from error
            actors.append(actor)
            _check_shared(results, writer, folder)
            yield from results
    finally:
        for actor in [*actors, *(actor for actor, _ in running.values())]:
            ray.kill(actor)


def _again(unit: Unit, lost: int, error: Exception) -> tuple[Sequence[Unit], list[Failure]]:
    """The units to be done in place of one whose workers died, and what is given up."""
    items = [item for batch in unit.batches for item in batch if item.name in unit.pending]
    if unit.block is None and len(items) > 1:
        alone = [unit._replace(batches=((item,),), pending=frozenset([item.name])) for item in items]
        return ([unit] if lost < _TRIES - 1 else alone), []
    if lost < _TRIES:
        return [unit], []
    why = f"{lost} workers died while they had it: {str(error).splitlines()[0]}"
    return [], [Failure(item.name, given := item.utterance.source.given, f"{printable(given)}: {why}") for item in items]


def _check_shared(results: Sequence[Done], writer: FeatureWriter, folder: Path) -> None:
    """Raises `ExtractionError` if this process does not see what a worker wrote."""
    row = next((row for done in results for row in done.result.rows), None)
    until = time.monotonic() + _VISIBLE
    while row and not writer.holds(row["file"], tuple(row["shape"]), row["dtype"]):
        if time.monotonic() > until:
            what = f"{printable(folder / text_path(row['file']))} was written by a worker of Ray and is not here."
            raise ExtractionError(what, fix="Choose a folder that all machines of the cluster share.")
        time.sleep(_VISIBLE / 30)
