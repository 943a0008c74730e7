"""The page of cases is what the tests say, and no case is missing from it."""

from __future__ import annotations

import pytest

from tests.faults.cases import GROUPS, LAST, all_cases, cases_page, exists
from tests.paths import REPOSITORY


def test_every_case_of_the_four_groups_is_there_once() -> None:
    assert [case.number for case in all_cases()] == list(range(1, 229))
    assert {case.group for case in all_cases()} == set(GROUPS) == set(LAST)
    assert len({case.name for case in all_cases()}) == 228


def test_the_page_is_up_to_date() -> None:
    page = (REPOSITORY / "docs/faults.md").read_text(encoding="utf-8")
    assert page == cases_page(), "write it again with python -m tests.faults"


@pytest.mark.parametrize("label", ["plain", pytest.param(3, id="with an id")])
def test_tests_are_found_by_function_and_id(label: object) -> None:
    here = "tests/faults/test_cases_page.py::test_"
    assert exists(here + "the_page_is_up_to_date") and exists(here + "tests_are_found_by_function_and_id[plain]")
    assert exists(here + "tests_are_found_by_function_and_id[with an id]")
    assert not exists(here + "nothing") and not exists(here + "tests_are_found_by_function_and_id[other]")
