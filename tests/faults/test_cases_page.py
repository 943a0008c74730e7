"""The page of cases is what the tests say, and no case is missing from it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.cases import GROUPS, cases_of, cases_page, exists
from tests.paths import REPOSITORY


def test_no_case_is_lost_and_each_has_a_name_of_its_own() -> None:
    names = [case.name for group in GROUPS for case in cases_of(group)]
    assert len(names) == len(set(names)) >= 234
    holding = {path.stem for path in Path(__file__).parent.glob("test_*.py") if "\ncases = Cases()\n" in path.read_text()}
    assert holding == {module for modules in GROUPS.values() for module in modules}


def test_the_page_is_up_to_date() -> None:
    page = (REPOSITORY / "docs/faults.md").read_text(encoding="utf-8")
    assert page == cases_page(), "write it again with python -m tests.faults"


@pytest.mark.parametrize("label", ["plain", pytest.param(3, id="with an id")])
def test_tests_are_found_by_function_and_id(label: object) -> None:
    here = "tests/faults/test_cases_page.py::test_"
    assert exists(here + "the_page_is_up_to_date") and exists(here + "tests_are_found_by_function_and_id[plain]")
    assert exists(here + "tests_are_found_by_function_and_id[with an id]")
    assert not exists(here + "nothing") and not exists(here + "tests_are_found_by_function_and_id[other]")
