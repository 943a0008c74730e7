"""The fault cases: each a function that a test runs and a row of `docs/faults.md`, so that the page cannot lag behind."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass

import pytest

GROUPS = {
    "A": "Downloads from an address",
    "B": "The Hugging Face Hub",
    "C": "Checkpoint files",
    "D": "Registry files and plugins",
}
LAST = {"A": 68, "B": 93, "C": 192, "D": 228}
"""The number of each group's last case."""
MODULES = (
    "test_downloads",
    "test_resuming",
    "test_processes",
    "test_cache",
    "test_offline",
    "test_hugging_face",
    "test_hostile_cases",
    "test_reading_cases",
    "test_registry_cases",
    "test_plugin_cases",
)


@dataclass(frozen=True)
class Case:
    """One way in which something goes wrong, and what comes of it."""

    number: int
    fault: str
    outcome: str
    name: str
    run: Callable[..., None]
    tests: tuple[str, ...] = ()
    """Tests elsewhere that are all there is to this case, as `path::function` or `path::function[id]`; `run` finds them."""

    @property
    def group(self) -> str:
        return next(group for group, last in LAST.items() if self.number <= last)

    @property
    def where(self) -> str:
        """The names of its tests, for the page."""
        found: dict[str, list[str]] = {}
        for test in self.tests:
            path, _, name = test.partition("::")
            function, _, parameter = name.removesuffix("]").partition("[")
            found.setdefault(f"{path.rpartition('/')[2]}::{function}", []).append(parameter)
        listed = [f"`{test}` {', '.join(filter(None, ids))}".strip() for test, ids in found.items()]
        return "; ".join(listed) or f"`{self.name}`"


class Cases:
    """The cases of one test module."""

    def __init__(self) -> None:
        self.all: list[Case] = []

    def __call__(self, number: int, fault: str, outcome: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
        def register(run: Callable[..., None]) -> Callable[..., None]:
            self._add(Case(number, fault, outcome, run.__name__, run))
            return run

        return register

    def tested_by(self, number: int, name: str, fault: str, outcome: str, *tests: str) -> None:
        """A case that tests elsewhere cover, each as `path::function` or `path::function[id]`; it fails if one is gone."""

        def run(*_: object) -> None:
            missing = [test for test in tests if not exists(test)]
            assert tests and not missing, missing

        self._add(Case(number, fault, outcome, name, run, tests))

    def _add(self, case: Case) -> None:
        assert case.name.startswith(f"case_{case.number:02}_"), case.name
        self.all.append(case)

    def generate(self, metafunc: pytest.Metafunc) -> None:
        """A module's `pytest_generate_tests`: one test for each case that the module holds in the end."""
        if "case" in metafunc.fixturenames:
            metafunc.parametrize("case", [pytest.param(case, id=case.name) for case in self.all])


def exists(test: str) -> bool:
    """Whether there is a test `path::function[id]`; an id is known if it is written out where the test is parametrized."""
    path, _, name = test.partition("::")
    function, _, wanted = name.removesuffix("]").partition("[")
    module = importlib.import_module(path.removesuffix(".py").replace("/", "."))
    marks = getattr(getattr(module, function, None), "pytestmark", [])
    ids = {
        value if isinstance(value, str) else getattr(value, "id", None)
        for mark in marks
        if mark.name == "parametrize"
        for value in mark.args[1]
    }
    return hasattr(module, function) and (not wanted or wanted in ids)


def all_cases() -> list[Case]:
    """Every case of every module, by number."""
    modules = [importlib.import_module(f"tests.faults.{name}") for name in MODULES]
    return sorted((case for module in modules for case in module.cases.all), key=lambda case: case.number)


def cases_page() -> str:
    """The text of `docs/faults.md`."""
    lines = [
        "# What may go wrong with checkpoints, downloads and plugins, and what hubcore does",
        "",
        "Every row is a test. This page is written by `python -m tests.faults`, and the tests check that it is up to date.",
        "The last column is the test, which `pytest -k NAME tests` runs. Where it has a `::`, its file stands before that, and",
        "the ids of its parameters after it. `pytest -k case_ tests/faults` runs every row.",
        "",
        '"Kept": the partial download stays in the cache and the next attempt resumes it.',
        '"Inert" means that the file asks for a call, which is recorded as a name with arguments and never made: such a file',
        "is no checkpoint, so `hub.load` refuses it, too.",
        "[checkpoints.md](checkpoints.md) explains the cache, pins and offline use.",
    ]
    for group, title in GROUPS.items():
        lines += ["", f"## {title}", "", "| case | what happens | what comes of it | test |", "|---|---|---|---|"]
        lines += [f"| {c.number} | {c.fault} | {c.outcome} | {c.where} |" for c in all_cases() if c.group == group]
    return "\n".join(lines) + "\n"
