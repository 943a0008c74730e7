"""Writes `docs/faults.md`: `python -m tests.faults`."""

from __future__ import annotations

from tests.faults.cases import cases_page
from tests.paths import REPOSITORY

if __name__ == "__main__":
    (REPOSITORY / "docs/faults.md").write_text(cases_page(), encoding="utf-8")
