"""The page of cases is what the tests say, and no case of a download is missing from it."""

from __future__ import annotations

from tests.faults.cases import GROUPS, all_cases, cases_page
from tests.paths import REPOSITORY


def test_every_case_of_the_two_groups_is_there_once() -> None:
    assert [case.number for case in all_cases()] == list(range(1, 94))
    assert {case.group for case in all_cases()} == set(GROUPS)
    assert len({case.name for case in all_cases()}) == 93


def test_the_page_is_up_to_date() -> None:
    page = (REPOSITORY / "docs/faults.md").read_text(encoding="utf-8")
    assert page == cases_page(), "write it again with python -m tests.faults"
