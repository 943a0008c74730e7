"""The fault cases: each a function that a test runs and a row of `docs/faults.md`, so that the page cannot lag behind."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass

import pytest

GROUPS = {
    "A": "Downloads from an address",
    "B": "The Hugging Face Hub",
}
MODULES = ("test_downloads", "test_resuming", "test_processes", "test_cache", "test_offline", "test_hugging_face")


@dataclass(frozen=True)
class Case:
    """One way in which something goes wrong, and what comes of it."""

    number: int
    fault: str
    outcome: str
    run: Callable[..., None]

    @property
    def group(self) -> str:
        return "A" if self.number <= 68 else "B"

    @property
    def name(self) -> str:
        return self.run.__name__


class Cases:
    """The cases of one test module."""

    def __init__(self) -> None:
        self.all: list[Case] = []

    def __call__(self, number: int, fault: str, outcome: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
        def register(run: Callable[..., None]) -> Callable[..., None]:
            assert run.__name__.startswith(f"case_{number:02}_"), run.__name__
            self.all.append(Case(number, fault, outcome, run))
            return run

        return register

    def generate(self, metafunc: pytest.Metafunc) -> None:
        """A module's `pytest_generate_tests`: one test for each case that the module holds in the end."""
        if "case" in metafunc.fixturenames:
            metafunc.parametrize("case", [pytest.param(case, id=case.name) for case in self.all])


def all_cases() -> list[Case]:
    """Every case of every module, by number."""
    modules = [importlib.import_module(f"tests.faults.{name}") for name in MODULES]
    return sorted((case for module in modules for case in module.cases.all), key=lambda case: case.number)


def cases_page() -> str:
    """The text of `docs/faults.md`."""
    lines = [
        "# What may go wrong with a download, and what hubcore does",
        "",
        "Every row is a test. This page is written by `python -m tests.faults`, and the tests check that it is up to date.",
        '"Kept" means that the bytes that came lie in the cache as a part, from which the next attempt goes on.',
        "[checkpoints.md](checkpoints.md) explains the cache, pins and offline use.",
    ]
    for group, title in GROUPS.items():
        lines += ["", f"## {title}", "", "| case | what happens | what comes of it |", "|---|---|---|"]
        lines += [f"| {c.number} | {c.fault} | {c.outcome} |" for c in all_cases() if c.group == group]
    return "\n".join(lines) + "\n"
