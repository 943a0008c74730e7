"""What is broken here and whose fault it is: `diagnose`, what `hubcore doctor` prints. Imports no torch.

Discovery's own problems come first. Then every third-party distribution is examined in a process of its own
(`hubcore.doctor.probe`), so that nothing which a plugin does when it is imported can reach this one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import importlib.util
import json
import linecache
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from hubcore.doctor.probe import TORCH_SECONDS
from hubcore.errors import HubcoreError
from hubcore.registry.names import (
    HOOKS_GROUP,
    OBJECTIVES_GROUP,
    REGISTRIES_GROUP,
    Entry,
    Registry,
    entry_points,
    entry_points_file,
)

TIMEOUT = 20.0
"""Seconds that one step of a plugin may take: an import, a construction, a call of a hook."""
_START = """
import json, sys
with open(sys.argv.pop(), encoding="utf-8") as stream:
    job = json.load(stream)
sys.path[:] = job["path"]
from hubcore.doctor.probe import Probe
Probe(job).run()
"""
_FRAME = re.compile(r'  File "(.+)", line (\d+),? in (.+)')
_PROBE = str(Path(__file__).with_name("probe.py"))
_MACHINERY = ("<frozen ", "<string>", _PROBE, importlib.__file__)
_NO_BACKENDS = "TORCH_DEVICE_BACKEND_AUTOLOAD"
_GRACE = 5.0
"""Seconds that a process gets to end itself before it is ended from outside."""


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing that is wrong."""

    owner: str
    """The distribution, `user`, or the folder of metadata that names none."""
    what: str
    """What is wrong and what to do."""
    version: str = ""
    """The distribution's version, where it is known."""
    entry_point: str = ""
    """The entry point concerned, as `name = value (group)`."""
    file: str = ""
    """The file to look into, with `, line N` where that is known."""
    traceback: tuple[str, ...] = ()
    """The lines of the traceback, without the frames that are not the plugin's."""
    warning: bool = False
    """Whether it harms without breaking: it is slow, or changes what belongs to the whole process."""

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return dataclasses.asdict(self)

    def __str__(self) -> str:
        name = f"{self.owner} {self.version}".rstrip()
        lines = [f"- {name}: {self.what}" if name else f"- {self.what}"]
        if self.entry_point:
            lines.append(f"    entry point: {self.entry_point}")
        if self.file:
            lines.append(f"    file: {self.file}")
        return "\n".join([*lines, *(f"    {line}" for line in self.traceback)])


@dataclasses.dataclass
class Plugin:
    """A third-party distribution, and what its examination cost."""

    distribution: str
    version: str
    points: list[importlib.metadata.EntryPoint]
    """All its entry points of hubcore's groups."""
    seconds: float = 0.0
    """What its imports took, torch's own not counted."""

    @property
    def brings(self) -> str:
        """Its entry points, for people."""
        kind = {HOOKS_GROUP: "hooks", REGISTRIES_GROUP: "cards", OBJECTIVES_GROUP: "objective"}
        return ", ".join(f"{point.name} ({kind.get(point.group, 'family')})" for point in self.points)


@dataclasses.dataclass
class Diagnosis:
    """All that was found out."""

    findings: list[Finding]
    """What is wrong."""
    plugins: list[Plugin]
    """Every third-party distribution that was examined, by name."""


def diagnose(registry: Registry, *, timeout: float = TIMEOUT, jobs: int | None = None) -> Diagnosis:
    """Everything that is wrong with what is installed, with distribution, version, file and traceback.

    Every family that needs no checkpoint is built, and every hook called once: `hubcore_fetch` with an address of no
    scheme, `hubcore_upstream_loaded` with an `fbank`. A class that needs weights is only imported.

    Args:
        registry: as `current_registry` gives it.
        timeout: seconds for each step of a plugin; a fourth of it is called slow.
        jobs: how many distributions to examine at once; as many as there are processors, and at least two, if None.

    Example:
        >>> from hubcore.registry.names import current_registry
        >>> [finding.owner for finding in diagnose(current_registry()).findings]
        []
    """
    findings = [*_unreadable_entry_points(), *(_of_problem(problem) for problem in registry.problems)]
    findings += [_of_duplicate(registry, name) for name in sorted(registry.duplicates())]
    plugins = third_parties()
    for plugin in plugins:
        findings += _unmet(plugin)
    usable = {(e.family.distribution, e.family.name) for e in registry.entries if e.family and not e.family.missing}
    with ThreadPoolExecutor(jobs or max(2, os.cpu_count() or 1)) as pool:
        for found in pool.map(lambda plugin: list(_examine(plugin, usable, timeout)), plugins):
            findings += found
    return Diagnosis(list(dict.fromkeys(findings)), plugins)


def third_parties() -> list[Plugin]:
    """Every installed and enabled distribution with entry points for hubcore, but hubcore itself, by name.

    Example:
        >>> [plugin.distribution for plugin in third_parties()]
        []
    """
    plugins: dict[str, Plugin] = {}
    for owner, version, point in entry_points([]):
        if owner != "hubcore":
            plugins.setdefault(owner, Plugin(owner, version, [])).points.append(point)
    return [plugins[owner] for owner in sorted(plugins)]


def odd_checkpoints(registry: Registry) -> Iterator[Finding]:
    """A warning for each checkpoint that is here and has weights that nobody can mean: NaN, infinite, or only zeros.

    Every checkpoint that is cached is loaded, which takes its time.
    """
    from hubcore.doctor.odd_weights import odd_weights
    from hubcore.loading import build_upstream
    from hubcore.sources.resolve import find_cached

    for entry in registry.entries:
        path = (
            next(filter(None, (find_cached(source, entry.card) for source in entry.card.sources)), None) if entry.card else None
        )
        if path is None or entry.unavailable:
            continue
        try:
            state = build_upstream(entry, None, {}).state_dict()
        except (HubcoreError, AttributeError) as error:
            what = f"{entry.name} cannot be loaded, so its weights were not looked at: {error}"
            yield Finding(entry.owner, what, file=str(path), warning=True)
            continue
        for said in odd_weights(state):
            yield Finding(
                entry.owner, f"the weights of {entry.name}: {said}. Ask who published them.", file=str(path), warning=True
            )


def _unreadable_entry_points() -> Iterator[Finding]:
    """What stops everybody who asks for all entry points at once, as torch does, and not only the distribution concerned."""
    error = _entry_points_error()
    if error is not None:
        yield Finding(
            "",
            f"importlib.metadata.entry_points() fails: {error!r}. hubcore steps over the distribution that is to blame, but "
            "torch looks for backends there, and may not be importable. Reinstall that distribution, which another finding "
            f"names; until then set {_NO_BACKENDS}=0.",
        )


def _entry_points_error() -> Exception | None:
    try:
        importlib.metadata.entry_points(group="torch.backends")
    except Exception as error:  # whatever broken metadata raises
        return error
    return None


def _of_problem(problem: Any) -> Finding:
    lines: tuple[str, ...] = ()
    if problem.error is not None and not isinstance(problem.error, HubcoreError):
        lines = (f"{type(problem.error).__name__}: {problem.error}",)
    return Finding(problem.owner, problem.text, problem.version, file=problem.place, traceback=lines)


def _of_duplicate(registry: Registry, name: str) -> Finding:
    owners = registry.duplicates()[name]
    choices = " or ".join(f"{owner}:{name}" for owner in owners)
    claims = [entry for entry in registry.entries if name in (entry.name, *entry.aliases)]
    what = f"{name} is claimed by {' and '.join(owners)}. Use {choices}, or uninstall one of them."
    return Finding("", what, traceback=tuple(_claim(entry) for entry in claims))


def _claim(entry: Entry) -> str:
    """Who claims a name where: the line of the card, or the entry point."""
    version = f" {entry.family.version}" if entry.family and entry.family.distribution == entry.owner else ""
    place = f"{entry.card.file}, line {entry.card.line}" if entry.card else f"entry point {entry.name} = {_target(entry)}"
    return f"{entry.owner}{version}: {place}"


def _target(entry: Entry) -> str:
    return entry.family.target if entry.family else "?"


def _unmet(plugin: Plugin) -> Iterator[Finding]:
    """What the distribution requires always and is not installed."""
    distribution = plugin.points[0].dist
    for requirement in (distribution.requires if distribution else None) or ():
        needed = re.split(r"[\s<>=!~;\[(@]", requirement.strip(), maxsplit=1)[0]
        if ";" in requirement or not needed:
            continue
        try:
            importlib.metadata.distribution(needed)
        except importlib.metadata.PackageNotFoundError:
            what = f"it requires {requirement}, which is not installed. Install it with: pip install '{requirement}'"
            yield Finding(plugin.distribution, what, plugin.version)


def _examine(plugin: Plugin, usable: set[tuple[str, str]], timeout: float) -> Iterator[Finding]:
    """What is wrong with one distribution; a process that dies is begun again behind the entry point that killed it."""
    points = [
        point
        for point in plugin.points
        if point.group in (HOOKS_GROUP, OBJECTIVES_GROUP)
        or (point.group != REGISTRIES_GROUP and (plugin.distribution, point.name) in usable)
    ]
    first = 0
    while first < len(points):
        with tempfile.TemporaryDirectory() as folder:
            job = {
                "path": sys.path,
                "distribution": plugin.distribution,
                "version": plugin.version,
                "points": [(point.group, point.name, point.value) for point in points],
                "first": first,
                "timeout": timeout,
                "own": sorted(_own_places(points)),
                **{name: str(Path(folder, name)) for name in ("job", "out", "crash", "stdout", "stderr")},
            }
            ended, killed = _run(job)
            current, stage, done = first, "starting", first
            for event in _events(Path(folder, "out")):
                current = event.get("begin", current)
                stage = event.get("stage", stage)
                done = event["end"] + 1 if "end" in event else done
                plugin.seconds += event.get("seconds", 0.0)
                if "finding" in event:
                    found = event["finding"]
                    yield _finding(
                        plugin, points[current], found["what"], found["file"], tuple(found["traceback"]), found["warning"]
                    )
            if done < len(points):
                yield _of_death(plugin, points[current], stage, ended, Path(folder), timeout, killed=killed)
            first = max(done, current + 1)


def _finding(
    plugin: Plugin, point: importlib.metadata.EntryPoint, what: str, file: str, lines: tuple[str, ...], warning: bool = False
) -> Finding:
    shown = f"{point.name} = {point.value} ({point.group})"
    return Finding(plugin.distribution, what, plugin.version, shown, file or entry_points_file(point), lines, warning)


def _of_death(
    plugin: Plugin, point: importlib.metadata.EntryPoint, stage: str, ended: int, folder: Path, timeout: float, *, killed: bool
) -> Finding:
    """What ended the process, and where, if Python could tell."""
    report = _text(folder / "crash")
    place, lines = last_words(report, _text(folder / "stderr"), _PROBE)
    if killed or report.startswith("Timeout"):
        what = f"{stage} takes longer than {timeout:g} s, and was ended. Whoever uses it waits for as long as it takes. "
        what += "Update or mend that distribution, or give `hubcore doctor` a longer --timeout."
    else:
        what = f"{stage} ends the whole process ({how_it_ended(ended)}), which nothing can catch. "
        what += "Uninstall or mend that distribution."
    return _finding(plugin, point, what, place, tuple(lines))


def how_it_ended(status: int) -> str:
    """What the exit status of a process says.

    Example:
        >>> how_it_ended(0), how_it_ended(-11)
        ('exit status 0', 'signal SIGSEGV')
    """
    return f"signal {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"


def last_words(report: str, said: str, runner: str) -> tuple[str, list[str]]:
    """Where a process ended, as `file, line N`, and the lines of its traceback, outermost first.

    Args:
        report: what `faulthandler` wrote of it; may be empty.
        said: its error stream, whose traceback is taken where faulthandler wrote none.
        runner: the file whose code drove it, to know its main thread by.
    """
    threads = report.split("\n\n")
    main = next((thread for thread in threads if runner in thread), threads[0])
    # Python prints a traceback with the last call at its end, faulthandler with the last call first.
    calls = _FRAME.findall(main)[::-1] or _FRAME.findall(said)
    frames = [call for call in calls if not call[0].startswith((*_MACHINERY, runner))]
    lines = [line for file, number, name in frames for line in _frame_lines(file, int(number), name)]
    # The frames of the import system and of the standard library above the plugin's own say nothing.
    place = next((f"{file}, line {number}" for file, number, _ in reversed(frames) if not _is_library(file)), "")
    return place, [*lines, *said.splitlines()[-1:]] if not report else lines or said.splitlines()[-3:]


def _text(path: Path) -> str:
    return path.read_text("utf-8", "replace") if path.is_file() else ""


def _frame_lines(file: str, number: int, name: str) -> Iterator[str]:
    yield f'  File "{file}", line {number}, in {name}'
    source = linecache.getline(file, number).strip()
    if source:
        yield f"    {source}"


def _is_library(file: str) -> bool:
    return file.startswith(os.path.dirname(os.__file__) + os.sep) and "site-packages" not in file


def _own_places(points: Iterable[importlib.metadata.EntryPoint]) -> set[str]:
    """The folders and files that hold the code of these entry points, found without importing it."""
    places: set[str] = set()
    for point in points:
        with contextlib.suppress(Exception):  # whatever the finder of an editable install raises
            spec = importlib.util.find_spec(re.split(r"[.:\[\s]", point.value, maxsplit=1)[0])
            if spec is not None:
                places.update(spec.submodule_search_locations or filter(None, [spec.origin]))
    return places


def _run(job: dict[str, Any]) -> tuple[int, bool]:
    """Runs one examination; its exit status, and whether it had to be ended from outside."""
    Path(job["job"]).write_text(json.dumps(job), "utf-8")
    environment = {**os.environ, "HUBCORE_OFFLINE": "1", "PYTHONIOENCODING": "utf-8:replace"}
    if _entry_points_error() is not None:
        environment.setdefault(_NO_BACKENDS, "0")  # or every plugin would be blamed for what one has done
    with open(job["stdout"], "wb") as stdout, open(job["stderr"], "wb") as stderr:
        process = subprocess.Popen(  # noqa: S603 - this interpreter, a constant text, and a job as data
            [sys.executable, "-c", _START, job["job"]],
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            env=environment,
            start_new_session=True,  # so that what it started itself can be ended with it
        )
        try:
            killed = not _ends_in_time(process, Path(job["out"]), job["timeout"])
        finally:
            if process.poll() is None:
                _kill(process)
    return process.wait(), killed


def _ends_in_time(process: subprocess.Popen[bytes], out: Path, timeout: float) -> bool:
    """Waits for the process, for as long as it goes on from step to step."""
    length, moved = -1, time.monotonic()
    while process.poll() is None:
        time.sleep(0.02)
        now = out.stat().st_size if out.exists() else 0
        if now != length:
            length, moved = now, time.monotonic()
        if time.monotonic() - moved > max(timeout, TORCH_SECONDS) + _GRACE:
            return False
    return True


def _kill(process: subprocess.Popen[bytes]) -> None:
    if hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()


def _events(out: Path) -> Iterator[dict[str, Any]]:
    """What the process wrote, up to a line that it could not finish."""
    for line in _text(out).splitlines():
        try:
            yield json.loads(line)
        except ValueError:
            return
