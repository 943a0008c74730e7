"""The fault cases: each a function that a test runs and a row of `docs/faults.md`, so that the page cannot lag behind."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass

import pytest

GROUPS = {
    "Downloads": ("test_downloads", "test_resuming", "test_processes", "test_cache", "test_offline"),
    "The Hugging Face Hub": ("test_hugging_face",),
    "Checkpoint files": ("test_hostile_cases", "test_reading_cases"),
    "Registry files and plugins": ("test_registry_cases", "test_plugin_cases"),
}
"""Sections of the page, and the modules beside this one that hold the cases of each."""


@dataclass(frozen=True)
class Case:
    """One fault and its outcome."""

    name: str
    fault: str
    outcome: str
    run: Callable[..., None]
    tests: tuple[str, ...] = ()
    """Tests elsewhere that are all there is to this case, as `path::function` or `path::function[id]`; `run` finds them."""
    slow: bool = False

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
    """The cases of one test module. Each is a function `case_<name>` below `@cases(fault, outcome)`, or is tested elsewhere."""

    def __init__(self) -> None:
        self.all: list[Case] = []

    def __call__(self, fault: str, outcome: str, *, slow: bool = False) -> Callable[[Callable[..., None]], Callable[..., None]]:
        def register(run: Callable[..., None]) -> Callable[..., None]:
            assert run.__name__.startswith("case_")
            self.all.append(Case(run.__name__.removeprefix("case_"), fault, outcome, run, slow=slow))
            return run

        return register

    def tested_by(self, name: str, fault: str, outcome: str, *tests: str) -> None:
        """A case that tests elsewhere cover, each as `path::function` or `path::function[id]`; it fails if one is gone."""

        def run(*_: object) -> None:
            missing = [test for test in tests if not exists(test)]
            assert tests and not missing, missing

        self.all.append(Case(name, fault, outcome, run, tests))

    def generate(self, metafunc: pytest.Metafunc) -> None:
        """A module's `pytest_generate_tests`: one test for each case that the module holds in the end."""
        if "case" in metafunc.fixturenames:
            marks = {True: [pytest.mark.slow], False: []}
            metafunc.parametrize("case", [pytest.param(case, id=case.name, marks=marks[case.slow]) for case in self.all])


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


def cases_of(group: str) -> list[Case]:
    """The cases of a section, in the order of its modules."""
    modules = [importlib.import_module(f"tests.faults.{name}") for name in GROUPS[group]]
    return [case for module in modules for case in module.cases.all]


def cases_page() -> str:
    """The text of `docs/faults.md`."""
    lines = [
        "# Faults of checkpoints, downloads and plugins, and how hubcore reacts",
        "",
        "Every row is a test. This page is written by `python -m tests.faults`, and the tests check that it is up to date.",
        "The last column is the test's name: `pytest -k NAME tests/faults` runs it, `-k test_case` all of them.",
        "Where it has a `::`, the tests are elsewhere: their file stands before it, the ids of their parameters after it.",
        "",
        '"Kept": the partial download stays in the cache and the next attempt resumes it.',
        '"Inert": the file asks for a call. hubcore records its name and arguments and never makes the call. Such a file is',
        "not a checkpoint, so `hub.load` refuses it too.",
        "[checkpoints.md](checkpoints.md) explains the cache, pins and offline use.",
    ]
    for group in GROUPS:
        lines += ["", f"## {group}", "", "| fault | result | test |", "|---|---|---|"]
        lines += [f"| {case.fault} | {case.outcome} | {case.where} |" for case in cases_of(group)]
    return "\n".join(lines) + "\n"
